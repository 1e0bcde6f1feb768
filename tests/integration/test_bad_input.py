"""Bad input is evidence: each kind lies in the dead letters with its reason, and its neighbours are all processed."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest

from headrace import compare
from headrace.compare import Results
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints
from schemas.codec import decode_body
from schemas.records import Bar, DeadLetter, Reason, Tick
from schemas.topics import physical
from streams import topology
from streams.runtime.inline import Inline
from streams.runtime.kafka import output_settings
from tests.examples import DAY0, MINUTE, SECOND
from tests.pipeline import KafkaRun

TICKS = 2400
"""Two symbols, one tick a second each: 20 minutes."""
YEAR = 365 * 86_400 * SECOND

RAISES = '''
import msgspec
from headrace import Strategy, Target


class RaisesParameters(msgspec.Struct, frozen=True):
    every: int = 5


class RaisesState(msgspec.Struct):
    snapshots: int = 0


class Raises(Strategy):
    """Buys, and raises on every fifth minute."""

    Parameters = RaisesParameters
    State = RaisesState

    def on_snapshot(self, state, view):
        state.snapshots += 1
        if view.start // 60_000_000 % self.parameters.every == 0:
            raise RuntimeError("a bug in a strategy")
        weight = 0.1 if state.snapshots % 2 else 0.0
        return state, [Target(symbol, weight, "test") for symbol in view.rows]
'''


def settings(strategy: Path) -> PipelineSettings:
    return PipelineSettings.model_validate(
        {
            "market": {"sources": [{"name": "test"}]},
            "universes": [{"name": "north", "symbols": ["A", "B"]}],
            "portfolios": [
                {
                    "name": "alpha",
                    "universe": "north",
                    "strategies": [
                        {"name": "raises", "uses": f"{strategy}:Raises"},
                        {"name": "momentum", "uses": "momentum", "parameters": {}},
                    ],
                }
            ],
        }
    )


def good(i: int, **over: Any) -> Tick:
    symbol = "AB"[i % 2]
    fields = {
        "symbol": symbol,
        "source": "test",
        "session": "s",
        "sequence": i,
        "event_time": DAY0 + (i // 2) * SECOND,
        "price": 100.0 + (i * 7 % 50) / 100,
        "size": 100.0,
    }
    return Tick(**{**fields, **over})


def bad_records(run: KafkaRun) -> dict[int, tuple[str | None, bytes, int, Reason]]:
    """After which good tick, and: key, value, timestamp in ms, expected reason."""
    encode = run.codec.encode
    at = [DAY0 // 1000 + (i // 2) * 1000 for i in range(TICKS)]
    whole = encode("market.ticks", good(0))
    nan = encode("market.ticks", good(301, price=float("nan"), session="bad-1", symbol="A"))
    negative = encode("market.ticks", good(400, size=-5.0, session="bad-2"))
    ahead = encode("market.ticks", good(700, event_time=DAY0 + YEAR, session="bad-3"))
    return {
        100: ("A", whole[:-6], at[100], Reason.UNREADABLE),
        200: ("A", b"\0" + struct.pack(">I", 987_654) + whole[5:], at[200], Reason.UNKNOWN_SCHEMA),
        250: ("A", encode("market.bars", example_bar()), at[250], Reason.WRONG_SCHEMA),
        301: ("A", nan, at[301], Reason.BAD_PRICE),
        400: ("A", negative, at[400], Reason.BAD_SIZE),
        500: ("", whole, at[500], Reason.BAD_KEY),
        600: ("A", whole[:5] + b"\xff" * 900_000, at[600], Reason.UNREADABLE),
        650: ("A", encode("market.ticks", good(650, session="x" * 600_000)), at[650], Reason.TOO_LARGE),
        660: ("\0position", whole, at[660], Reason.BAD_KEY),
        700: ("A", ahead, at[700] + YEAR // 1000, Reason.AHEAD_OF_CLOCK),
    }


def example_bar() -> Bar:
    from tests.examples import bar

    return bar()


def produce(run: KafkaRun) -> dict[int, tuple[str | None, bytes, int, Reason]]:
    bad = bad_records(run)
    producer = ck.Producer(output_settings(run.stack.kafka))
    topic = physical(run.namespace, "market.ticks")
    for i in range(TICKS):
        tick = good(i)
        if i % 2 == 0:
            clock(producer, topic, tick.event_time)
        producer.produce(
            topic, run.codec.encode("market.ticks", tick), tick.symbol, timestamp=tick.event_time // 1000
        )
        if i in bad:
            key, value, timestamp, _ = bad[i]
            producer.produce(topic, value, key, timestamp=timestamp)
    clock(producer, topic, DAY0 + TICKS // 2 * SECOND + 10 * MINUTE)
    assert producer.flush(30) == 0
    return bad


def clock(producer: ck.Producer, topic: str, time_us: int) -> None:
    for partition in range(4):
        producer.produce(topic, partition=partition, timestamp=time_us // 1000, headers=[("source", b"test")])


def oracle(run: KafkaRun) -> Results:
    """The inline run over the very records that lie in market.ticks."""
    results = Results()
    runner = Inline(topology.agents(), run.settings.record(), results.output)
    for message in compare.messages(run.stack.kafka, physical(run.namespace, "market.ticks")):
        if message.offset() == 0:
            continue  # the settings, which the inline run has already
        value = message.value()
        decoded = None if value is None else run.codec.decode("market.ticks", value)
        headers = tuple(message.headers() or ())
        runner.raw(
            "market.ticks",
            message.partition(),
            message.key(),
            decoded,  # type: ignore[arg-type]
            value,
            message.timestamp()[1],
            headers,
        )
    runner.flush()
    return results


@pytest.fixture(scope="module")
def strategy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("strategies") / "raises.py"
    path.write_text(RAISES)
    return path


def test_bad_input(stack: Endpoints, namespace: str, tmp_path: Path, strategy: Path) -> None:
    with KafkaRun(stack, namespace, settings(strategy), tmp_path) as run:
        bad = produce(run)
        run.start()
        run.settle()
        results = run.results()
        letters = [
            letter
            for _, value, _ in compare.records(stack.kafka, namespace, "system.dead_letters")
            if isinstance(letter := decode_body("system.dead_letters", (value or b"")[5:]), DeadLetter)
        ]
    ticks = [letter for letter in letters if letter.topic == "market.ticks"]
    assert Counter(letter.reason for letter in ticks) == Counter(reason for *_, reason in bad.values())
    assert {letter.value for letter in ticks} == {value for _, value, _, _ in bad.values()}
    assert all(letter.error for letter in letters)

    bars = [
        decode_body("market.bars", body)
        for (topic, _), held in results.sequences.items()
        if topic == "market.bars"
        for body, _ in held.values()
    ]
    counted = sum(bar.count for bar in bars if isinstance(bar, Bar) and bar.kind == "time:1m")
    assert counted == TICKS, "a neighbour of a bad record was lost"

    raised = [letter for letter in letters if letter.reason is Reason.STRATEGY_RAISED]
    assert len(raised) == TICKS // 120 // 5
    assert all("a bug in a strategy" in letter.error for letter in raised)
    assert results.count("trade.equity") == TICKS // 120
    assert results.count("trade.executions") > 0

    assert not compare.differences(oracle(run), results)
