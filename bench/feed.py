"""A feed in a process of its own: ticks of twenty symbols at a steady rate, and closings, with the moment of each.

Event time runs faster than the wall clock: a second of it, and so a 1-second bar, ends ``closings`` times a second.
A closing is what ends the bars of all symbols at once, for whoever reads the topic: first a clock on every
partition, then one tick of every symbol, stamped with the boundary. These records are handed to the producer
together and flushed, so that its linger does not count.

Values are made by numpy from encoded templates, a bar's worth at a time: at 100,000 ticks a second an encoder in
Python would need more than the core that it shares.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import confluent_kafka as ck
import numpy as np
from numpy.typing import NDArray

from bench.rig import BenchError
from headrace.stack import Endpoints
from schemas.records import Tick
from schemas.topics import SYMBOL_PARTITIONS, physical
from streams.runtime import registry
from streams.runtime.kafka import output_settings

SOURCE = "bench"
SYMBOLS = tuple(f"SYM{number:02d}" for number in range(1, 21))
SECOND_US = 1_000_000
LINGER_MS = 5
"""Of the producer of ticks: that of Headrace's own connectors."""

_FIRST_SEQUENCE = 1 << 27
_SEQUENCE_BYTES, _TIME_BYTES = 5, 8
"""Lengths of these fields in Avro: the same for every sequence from the first on and every time since 2006."""
_PRICES = 7
_BEHIND_US = 86_400 * SECOND_US
"""Event time begins this far in the past: it gains on the wall clock, and brokers refuse what is an hour ahead."""
_NAP_S = 0.001
_READY_S = 60.0


class Closing(NamedTuple):
    """The end of one bar. ``start_us``: the bar's start; the others are moments of the wall clock, seconds.

    The append of its records lies between ``handed_s``, when the first was given to the producer, and
    ``acknowledged_s``, when the producer knew of the last.
    """

    start_us: int
    handed_s: float
    acknowledged_s: float


class Step(NamedTuple):
    """What was fed in a stretch of time. ``reached`` is the true rate, ticks a second."""

    closings: tuple[Closing, ...]
    reached: float


class Feed:
    """Feeds market.ticks of a namespace until `close`; between two steps it goes on at the last rate.

    ``closings`` is how many bars end in a second of the wall clock.
    """

    def __init__(self, found: Endpoints, namespace: str, *, rate: int, closings: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        arguments = (theirs, found.kafka, found.registry, namespace, rate, closings)
        self._process = context.Process(target=_feed, args=arguments, name="feed", daemon=True)
        self._process.start()
        self._answer(_READY_S)

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process.pid is not None
        return self._process.pid

    def step(self, rate: int, seconds: float) -> Step:
        """Feed at ``rate`` ticks a second for ``seconds``, and tell what was closed. Raises `BenchError`."""
        self._ours.send((rate, seconds))
        step: Step = self._answer(2 * seconds + _READY_S)
        return step

    def _answer(self, timeout_s: float) -> Any:
        try:
            if self._ours.poll(timeout_s):
                return self._ours.recv()
        except EOFError:
            pass
        raise BenchError("the feed has ended or does not answer")

    def close(self) -> None:
        """Wait until all is sent, and end."""
        try:
            self._ours.send(None)
            self._process.join(10)
        except BrokenPipeError:
            pass
        if self._process.is_alive():
            self._process.kill()


def _feed(
    ours: Connection, bootstrap: str, registry_url: str, namespace: str, rate: int, closings: int
) -> None:
    """The child: feeds, and between two bars looks whether it is told something."""
    bars = _Bars(bootstrap, registry_url, namespace, closings)
    ours.send(None)
    try:
        while True:
            if not ours.poll():
                bars.feed(rate)
                continue
            told = ours.recv()
            if told is None:
                return
            rate, seconds = told
            began_s, sent, closed = time.time(), bars.sent, []
            while time.time() < began_s + seconds:
                closed.append(bars.feed(rate))
            ours.send(Step(tuple(closed), (bars.sent - sent) / (time.time() - began_s)))
    except (EOFError, KeyboardInterrupt):  # the bench has ended
        return
    finally:
        bars.close()


class _Bars:
    """Sends a bar's worth of ticks and its closing at a time, on a schedule that never slips."""

    def __init__(self, bootstrap: str, registry_url: str, namespace: str, closings: int) -> None:
        self.sent = 0
        self._producer = ck.Producer(
            {**output_settings(bootstrap, LINGER_MS), "queue.buffering.max.kbytes": 262_144}
        )
        self._topic = physical(namespace, "market.ticks")
        self._interval_s = 1.0 / closings
        self._begins_s = time.time()
        self._start_us = int(self._begins_s) * SECOND_US - _BEHIND_US
        self._templates = _Templates(registry.codec(registry_url, namespace).encode)
        self._acknowledged_s = 0.0

    def feed(self, rate: int) -> Closing:
        """One bar at ``rate`` ticks a second, and its closing."""
        count = max(round(rate * self._interval_s) - len(SYMBOLS), 1)  # the others come with the closing
        values = self._templates.values(self.sent, self._start_us, count)
        if time.time() - self._begins_s > self._interval_s:
            self._begins_s = time.time()  # it cannot keep up: the rate is what it is, without a burst after
        each_s = self._interval_s / count
        done = 0
        while done < count:
            due = min(int((time.time() - self._begins_s) / each_s) + 1, count)
            for number in range(done, due):
                self._produce(value=values[number], key=SYMBOLS[(self.sent + number) % len(SYMBOLS)])
            done = max(done, due)
            self._producer.poll(0)
            if done < count:
                time.sleep(_NAP_S)
        self.sent += count
        self._begins_s += self._interval_s
        time.sleep(max(self._begins_s - time.time(), 0.0))
        return self._close_bar()

    def _close_bar(self) -> Closing:
        boundary_us = self._start_us + SECOND_US
        ticks = self._templates.values(self.sent, boundary_us, len(SYMBOLS), spacing=0)
        headers = [("source", SOURCE.encode())]
        stamp = boundary_us // 1000
        handed_s = time.time()
        for partition in range(SYMBOL_PARTITIONS):
            self._produce(partition=partition, headers=headers, timestamp=stamp, on_delivery=self._delivered)
        for number, value in enumerate(ticks):
            symbol = SYMBOLS[(self.sent + number) % len(SYMBOLS)]
            self._produce(value=value, key=symbol, timestamp=stamp, on_delivery=self._delivered)
        self.sent += len(ticks)
        self._producer.flush()
        closing = Closing(self._start_us, handed_s, self._acknowledged_s)
        self._start_us = boundary_us
        return closing

    def _produce(self, **record: Any) -> None:
        record.setdefault("timestamp", self._start_us // 1000)
        while True:
            try:
                self._producer.produce(self._topic, **record)
                return
            except BufferError:
                self._producer.poll(0.01)

    def _delivered(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        if error is not None:
            raise BenchError(f"a closing was not delivered: {error.str()}")
        self._acknowledged_s = time.time()

    def close(self) -> None:
        self._producer.flush(10)


class _Templates:
    """Values of consecutive ticks, made by writing sequence and time into encoded ones."""

    def __init__(self, encode: Any) -> None:
        self._rows = np.array(
            [
                [list(encode("market.ticks", _tick(symbol, price))) for symbol in SYMBOLS]
                for price in range(_PRICES)
            ],
            dtype=np.uint8,
        ).reshape(-1, _length(encode))
        sequence = bytes(_varints(np.array([_FIRST_SEQUENCE]), _SEQUENCE_BYTES)[0])
        self._at = self._rows[0].tobytes().index(sequence)

    def values(self, first: int, start_us: int, count: int, *, spacing: int | None = None) -> list[bytes]:
        """Framed values of ``count`` ticks from the ``first`` on, evenly over the bar that begins at ``start_us``."""
        numbers = np.arange(first, first + count)
        times = start_us + np.arange(count) * (SECOND_US if spacing is None else spacing) // count
        rows = self._rows[numbers % len(self._rows)]
        at, then = self._at, self._at + _SEQUENCE_BYTES
        rows[:, at:then] = _varints(_FIRST_SEQUENCE + numbers, _SEQUENCE_BYTES)
        rows[:, then : then + _TIME_BYTES] = _varints(times, _TIME_BYTES)
        joined, width = rows.tobytes(), rows.shape[1]
        return [joined[begin : begin + width] for begin in range(0, len(joined), width)]


def _tick(symbol: str, price: int) -> Tick:
    return Tick(
        symbol=symbol,
        source=SOURCE,
        session="bench",
        sequence=_FIRST_SEQUENCE,
        event_time=int(time.time() * 1e6),
        price=100.0 + price / 100,
        size=100.0,
    )


def _length(encode: Any) -> int:
    return len(encode("market.ticks", _tick(SYMBOLS[0], 0)))


def _varints(values: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """Avro longs (zigzag, seven bits a byte) of values that are not negative and all take ``width`` bytes."""
    zigzag = values.astype(np.int64)[:, None] << 1
    groups = zigzag >> (7 * np.arange(width))
    if (groups[:, -1] >> 7).any() or not groups[:, -1].all():
        raise ValueError(f"not all of these take {width} bytes")
    continued = np.where(np.arange(width) < width - 1, 0x80, 0)
    return (groups & 0x7F | continued).astype(np.uint8)
