"""How long after a bar has ended its snapshot and an order on it are there, at a steady rate of ticks.

Three agents, each a process of its own, in the way of every figure: symbols ▶ universes ▶ portfolios. Event time is
the wall clock. At each second a clock says that nothing before it is still coming: it closes the second's bars of all
symbols, and nothing else does, since it is written ahead of the first tick behind it. A strategy orders on every
snapshot. From the moment the clock is given to the producer (whose own linger counts) to the moment a consumer has

- the snapshot, from portfolio.events: two agents;
- the order's APPROVED event, from trade.executions: three agents.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.rig import RESULTS, BenchError, Rig, load, machine, save
from headrace.compare import FRAME_BYTES
from headrace.fleet import worker_argv
from headrace.pipeline import (
    MarketPart,
    PipelineSettings,
    PortfolioPart,
    RegimesPart,
    SourcePart,
    StrategyPart,
    UniversePart,
)
from headrace.stack import Endpoints
from schemas.codec import decode_body
from schemas.records import Execution, OrderState, Record, Snapshot, Tick
from schemas.topics import GROUP_PARTITIONS, SYMBOL_PARTITIONS, physical
from streams import topology
from streams.runtime.kafka import output_settings

SOURCE, UNIVERSE, PORTFOLIO = "bench", "all", "bench"
SYMBOLS = tuple(f"SYM{number:02d}" for number in range(1, 21))
SECOND_US = 1_000_000
LINGER_MS = 5
"""Of the producer of ticks: that of Headrace's own connectors."""
WARM_UP_S = 10
_START_S = 90.0
_TAIL_S = 5.0
_PERCENTILES = (50, 90, 99, 100)


def pipeline() -> PipelineSettings:
    """1-second bars, one universe of all symbols, one portfolio that orders on each of its snapshots."""
    strategy = Path(__file__).with_name("every_snapshot.py")
    return PipelineSettings(
        market=MarketPart(bars=("1s",), regimes=RegimesPart(bars=()), sources=(SourcePart(name=SOURCE),)),
        universes=(UniversePart(name=UNIVERSE, symbols=SYMBOLS, bar="1s", warm_up=1),),
        portfolios=(
            PortfolioPart(
                name=PORTFOLIO,
                universe=UNIVERSE,
                strategies=(StrategyPart(name="turns", uses=f"{strategy}:EverySnapshot"),),
            ),
        ),
    )


class Arrivals:
    """When the records of one topic arrived, by the start of their snapshot, read in a thread until `close`."""

    def __init__(self, rig: Rig, topic: str, start_of: Callable[[Record], int | None]) -> None:
        self.at_s: dict[int, float] = {}
        self._topic = topic
        self._start_of = start_of
        self._stop = threading.Event()
        self._reader = ck.Consumer(
            {
                "bootstrap.servers": rig.kafka,
                "group.id": f"{rig.namespace}-{topic}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 10,
                "fetch.queue.backoff.ms": 5,
            }
        )
        name = physical(rig.namespace, topic)
        self._reader.assign([ck.TopicPartition(name, number, 0) for number in range(GROUP_PARTITIONS)])
        self._thread = threading.Thread(target=self._read, name=topic, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            message = self._reader.poll(0.1)
            now_s = time.time()
            if message is None or message.error() is not None:
                continue
            record = decode_body(self._topic, message.value()[FRAME_BYTES:])
            assert isinstance(record, Record)
            start = self._start_of(record)
            if start is not None:
                self.at_s.setdefault(start, now_s)

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()
        self._reader.close()


class Feed:
    """Ticks of all symbols in turn at a steady rate, stamped with the wall clock, and a clock at each second.

    ``struck_s`` tells when the clock at the end of a bar was given to the producer, by the bar's start.
    """

    def __init__(self, rig: Rig, rate: int) -> None:
        self.struck_s: dict[int, float] = {}
        self.ticks = 0
        self._rate = rate
        self._encode = rig.codec.encode
        self._topic = physical(rig.namespace, "market.ticks")
        self._producer = ck.Producer(output_settings(rig.kafka, LINGER_MS))
        self._second_us = int(time.time()) * SECOND_US

    def run(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        """Send for ``seconds``, or until ``done``, which is asked once a second."""
        began_s, sent, ends_s = time.time(), 0, time.time() + seconds
        while (now_s := time.time()) < ends_s:
            now_us = int(now_s * 1e6)
            if now_us >= self._second_us + SECOND_US:
                self._strike(now_us // SECOND_US * SECOND_US)
                if done():
                    return
            while sent < (now_s - began_s) * self._rate:
                self._tick(now_us)
                sent += 1
            self._producer.poll(0)
            next_s = min(began_s + sent / self._rate, self._second_us / 1e6 + 1.0)
            time.sleep(max(next_s - time.time(), 0.0002))

    def _strike(self, boundary_us: int) -> None:
        """The clock at ``boundary_us`` to every partition: it closes the bars that end there."""
        headers = [("source", SOURCE.encode())]
        self.struck_s[boundary_us - SECOND_US] = time.time()
        for partition in range(SYMBOL_PARTITIONS):
            self._producer.produce(
                self._topic, partition=partition, timestamp=boundary_us // 1000, headers=headers
            )
        self._second_us = boundary_us

    def _tick(self, now_us: int) -> None:
        symbol = SYMBOLS[self.ticks % len(SYMBOLS)]
        self.ticks += 1
        tick = Tick(
            symbol=symbol,
            source=SOURCE,
            session="bench",
            sequence=self.ticks,
            event_time=now_us,
            price=100.0 + self.ticks % 7 / 100,
            size=100.0,
        )
        value = self._encode("market.ticks", tick)
        self._producer.produce(self._topic, value, symbol, timestamp=now_us // 1000)

    def close(self) -> None:
        """Wait until all is sent."""
        self._producer.flush(10)


def run(found: Endpoints, *, rate: int, seconds: int, advance: Callable[[str], None]) -> dict[str, Any]:
    """Measure for ``seconds``; writes latency.json and latency.png into `bench.rig.RESULTS` and returns the figures.

    ``advance`` is called before each step with what it is. Raises `BenchError` where orders are missing.
    """
    about = machine()
    with Rig(found, pipeline()) as rig:
        advance("starting three agents")
        for agent in topology.agents():
            rig.fleet.start(agent.name, worker_argv(agent.name), restart=False)
        snapshots = Arrivals(rig, "portfolio.events", _snapshot)
        orders = Arrivals(rig, "trade.executions", _order)
        feed = Feed(rig, rate)
        feed.run(_START_S, done=lambda: bool(orders.at_s))
        if not orders.at_s:
            raise BenchError(f"no order within {_START_S:g} s; logs in {rig.folder}")
        advance(f"warming up at {rate:,} ticks/s")
        feed.run(WARM_UP_S)
        advance(f"{seconds} s at {rate:,} ticks/s")
        measured, sent = len(feed.struck_s), feed.ticks
        before, began_s = load(), time.time()
        feed.run(seconds)
        reached = (feed.ticks - sent) / (time.time() - began_s)
        struck = dict(list(feed.struck_s.items())[measured:])
        feed.run(1.0)  # the last bar's clock is not the last record
        feed.close()
        late_s = time.monotonic() + _TAIL_S
        while not struck.keys() <= orders.at_s.keys() and time.monotonic() < late_s:
            time.sleep(0.05)
        rig.fleet.check()
        for arrivals in (snapshots, orders):
            arrivals.close()
    if missing := struck.keys() - orders.at_s.keys():
        raise BenchError(f"{len(missing)} of {len(struck)} bars led to no order within {_TAIL_S:g} s")
    samples = {
        "snapshot": [1e3 * (snapshots.at_s[start] - at_s) for start, at_s in struck.items()],
        "order": [1e3 * (orders.at_s[start] - at_s) for start, at_s in struck.items()],
    }
    figures = {
        "what": f"from the clock that closes a bar, at {rate:,} ticks/s, ms",
        "machine": {**about, "load_average_before": before, "load_average_after": load()},
        "setting": {
            "symbols": len(SYMBOLS),
            "ticks_per_second": rate,
            "ticks_per_second_reached": round(reached, 1),
            "seconds": seconds,
            "linger_ms": LINGER_MS,
        },
        "percentiles": {
            name: {f"p{at}": float(np.percentile(values, at)) for at in _PERCENTILES}
            for name, values in samples.items()
        },
        "samples_ms": samples,
    }
    save("latency", figures)
    _plot(samples, rate, RESULTS / "latency.png")
    return figures


def _snapshot(record: Record) -> int | None:
    return record.start if isinstance(record, Snapshot) else None


def _order(record: Record) -> int | None:
    if isinstance(record, Execution) and record.state is OrderState.APPROVED:
        return record.decided_on
    return None


def show(figures: dict[str, Any], console: Console) -> None:
    """The table, and how busy the machine was."""
    table = Table(box=None, pad_edge=False)
    for heading in ("until", "p50", "p90", "p99", "max", "samples"):
        table.add_column(heading, justify="left" if heading == "until" else "right")
    for name, percentiles in figures["percentiles"].items():
        cells = [f"{value:.1f}" for value in percentiles.values()]
        table.add_row(f"the {name}", *cells, str(len(figures["samples_ms"][name])))
    console.print(figures["what"], style="bold", highlight=False)
    console.print(table)
    about = figures["machine"]
    loads = f"{about['load_average_before']:g} before, {about['load_average_after']:g} after"
    console.print(f"{about['cpus']} CPUs, load average {loads}", style="dim")


def _plot(samples: dict[str, list[float]], rate: int, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for name, values in samples.items():
        p50, p99 = np.percentile(values, (50, 99))
        axes.ecdf(values, label=f"{name}: p50 {p50:.0f} ms, p99 {p99:.0f} ms", linewidth=1.6)
    axes.set(
        title=f"From the clock that closes a 1-second bar, {rate:,} ticks/s",
        xlabel="milliseconds",
        ylabel="share that has arrived",
    )
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
