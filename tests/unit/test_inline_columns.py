"""A file through the topology as columns gives what it gives tick by tick, and inner records arrive as over Kafka."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.clocks import ClockSettings
from connectors.files import FilesSettings, TradesFile, trades
from headrace import backtest
from headrace.pipeline import MarketPart, PipelineSettings, SourcePart
from schemas.codec import decode_body, encode_body
from schemas.records import Bar, DeadLetter, Snapshot
from streams.agent import DEAD_LETTERS, Output
from streams.runtime import inline
from tests.contract.kinds import CARRIED, Struct, example, instances
from tests.examples import bar

START_MS = 1_381_132_800_000
SYMBOLS = ("AIG", "BAC", "IBM", "SPY", "a\tb", "N" * 201)


def session(seed: int) -> str:
    """Trades of a few minutes: out of order, with jumps, prices and names that are refused, and lines that are none."""
    rng = random.Random(seed)
    time, text = START_MS, "ts_ms,symbol,price_e4,size,exchange,condition\n"
    for _ in range(600):
        time += rng.choice([0, 0, 5, 40, 900, 2_500, 70_000 if rng.random() < 0.02 else 1])
        late = rng.choice([0, 0, 0, 0, 800, 65_000])
        far = 10_000_000 if rng.random() < 0.01 else 0
        symbol = rng.choice(SYMBOLS[:4] if rng.random() < 0.97 else SYMBOLS)
        price = rng.choice(["0", "-1", "nan"]) if rng.random() < 0.02 else str(rng.randint(10_000, 20_000))
        text += f"{time - late + far},{symbol},{price},{rng.randint(1, 500)},P,{rng.choice(['0', '20'])}\n"
        if rng.random() < 0.02:
            text += rng.choice(["\n", "what\n", "1,2,3,4,5,x\n"])
    return text


def told(
    feed: Any, pipeline: PipelineSettings
) -> tuple[dict[tuple[str, str], list[tuple[bytes, int]]], list[str]]:
    """Results by topic and key, in order; and the dead letters, of which there is no order."""
    outputs: list[Output] = []
    backtest.run(feed, pipeline.record(), [outputs.append])
    results: defaultdict[tuple[str, str], list[tuple[bytes, int]]] = defaultdict(list)
    letters = []
    for output in outputs:
        if output.topic == DEAD_LETTERS:
            letters.append(repr(output))
        elif output.topic != "universe.bars":  # how many clocks it carries depends on how the run was cut
            body = encode_body(output.topic, output.value)
            results[output.topic, output.key].append((body, output.event_time))
    return dict(results), sorted(letters)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lateness_ms", [0, 1500])
def test_columns_are_the_ticks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, lateness_ms: int
) -> None:
    path = tmp_path / "trades.csv"
    path.write_text(session(seed))
    market = MarketPart(bars=("1s", "1m", "5m"), lateness_ms=lateness_ms, sources=(SourcePart(name="files"),))
    clocks = market.clocks(ClockSettings(lateness_us=lateness_ms * 1000))
    pipeline, _ = backtest.pipeline_for(PipelineSettings(market=market), "files", lambda: SYMBOLS[:4])
    file = TradesFile(path, FilesSettings(clocks=clocks))
    results, letters = told(file.messages(), pipeline)
    assert {"market.bars", "market.ticks.late", "trade.equity"} <= {topic for topic, _ in results}
    assert sum("BAD_KEY" in letter for letter in letters) > 0
    for block_bytes in (400, 5_000, 1_000_000):
        monkeypatch.setattr(trades, "_BLOCK_BYTES", block_bytes)
        assert told(file.columns(), pipeline) == (results, letters)


@pytest.mark.parametrize(("topic", "kind"), CARRIED, ids=[f"{t}-{k.__name__}" for t, k in CARRIED])
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_inner_record_arrives_as_avro_would_bring_it(
    topic: str, kind: Struct, data: st.DataObject
) -> None:
    record = data.draw(instances(kind))
    received = inline._received(topic, record)  # type: ignore[arg-type]
    assert repr(received) == repr(decode_body(topic, encode_body(topic, record)))
    assert received is not record


def test_numbers_of_numpy_arrive_as_plain_ones() -> None:
    record = bar(close=np.float64(1.5), count=np.int64(3))
    received = inline._received("market.bars", record)
    assert repr(received) == repr(bar(close=1.5, count=3))
    assert repr(decode_body("market.bars", encode_body("market.bars", record))) == repr(received)


def test_what_is_decimal_goes_through_avro() -> None:
    kinds = {kind for _, kind in CARRIED}
    exact = {kind for kind in kinds if inline._reader(kind) is None}  # type: ignore[arg-type]
    assert {kind for kind in kinds if "Decimal(" in repr(example(kind))} <= exact
    assert {Snapshot, DeadLetter, Bar}.isdisjoint(exact)
