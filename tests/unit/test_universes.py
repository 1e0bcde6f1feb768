"""The universes agent: what it writes, what it refuses, and that runs and interleavings change nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Unreadable, encode_body
from schemas.records import (
    Clock,
    Correlations,
    DeadLetter,
    Fit,
    QuoteBar,
    Reason,
    Record,
    Snapshot,
    UniverseBar,
    UniverseSpec,
)
from schemas.states import UniversesPartition, UniverseState
from streams.agent import Agent, Input, Output, SourcePartition
from streams.errors import SettingsMissing
from streams.universes import Universes
from tests import examples
from tests.examples import DAY0, MINUTE

AGENT: Agent[UniversesPartition, UniverseState] = Universes()
WHERE = SourcePartition("universe.bars", 1)
SETTINGS = examples.settings(
    tick_partitions=2,
    universes=(
        UniverseSpec(name="u1", symbols=("A", "B", "C"), kind="time:1m", warm_up=3),
        UniverseSpec(name="u2", symbols=("C",), kind="time:1m", decay=0.5, warm_up=1),
    ),
    portfolios=(
        examples.portfolio("alpha", symbols=("A", "C")),
        examples.portfolio("beta", symbols=("B",)),
        examples.portfolio("gamma", universe="u2", symbols=("C",)),
    ),
)


def price(symbol: str, minute: int) -> float:
    """A path of its own for each symbol."""
    return 100.0 + 3.0 * math.sin(minute * (1 + ord(symbol) % 5)) + minute / 10


def bar(symbol: str, minute: int, universe: str = "u1", **over: Any) -> UniverseBar:
    bar = examples.bar(symbol, DAY0 + minute * MINUTE, close=price(symbol, minute), **over)
    return UniverseBar(universe=universe, bar=bar)


def quotes(symbol: str, minute: int, **over: Any) -> QuoteBar:
    return examples.quote_bar(symbol, DAY0 + minute * MINUTE, **over)


def clock(partition: int, minute: int, universe: str = "u1", **over: Any) -> Clock:
    through = DAY0 + minute * MINUTE
    base = Clock(universe=universe, topic="market.ticks", partition=partition, through=through)
    return msgspec.structs.replace(base, **over)


def item(value: Record | Unreadable | None, offset: int = 0, key: bytes | None = None) -> Input:
    if key is None and isinstance(value, UniverseBar | QuoteBar | Clock | Fit):
        key = value.universe.encode()
    return Input(offset=offset, timestamp_ms=DAY0 // 1000, key=key, value=value, raw=b"raw")


def items(*values: Record) -> list[Input]:
    return [item(value, offset) for offset, value in enumerate(values)]


def run(inputs: Sequence[Input], cuts: Sequence[int] = ()) -> tuple[list[Output], Any]:
    """Fold ``inputs``, cut into runs, through states that are stored and read back between the runs."""
    partition, keys = UniversesPartition(), dict[str, UniverseState]()
    outputs: list[Output] = []
    bounds = [0, *sorted(cuts), len(inputs)]
    for a, b in pairwise(bounds):
        stored = msgspec.msgpack.encode((partition, keys))
        partition, keys = msgspec.msgpack.decode(
            stored, type=tuple[UniversesPartition, dict[str, UniverseState]]
        )
        before = msgspec.to_builtins(keys)
        made, touched = AGENT.step(WHERE, partition, keys, inputs[a:b])
        after = msgspec.to_builtins(keys)
        assert {key for key in after if before.get(key) != after[key]} <= touched <= set(after)
        outputs += made
    return outputs, msgspec.to_builtins((partition, keys))


def by_key(outputs: list[Output]) -> dict[tuple[str, str], list[tuple[int, bytes]]]:
    found: dict[tuple[str, str], list[tuple[int, bytes]]] = {}
    for output in outputs:
        body = encode_body(output.topic, output.value)
        found.setdefault((output.topic, output.key), []).append((output.event_time, body))
    return found


def values(outputs: list[Output], topic: str, key: str) -> list[Any]:
    return [output.value for output in outputs if (output.topic, output.key) == (topic, key)]


def letters(outputs: list[Output]) -> list[DeadLetter]:
    return [output.value for output in outputs if isinstance(output.value, DeadLetter)]


def full(minutes: int) -> list[Record]:
    return [SETTINGS, *(bar(s, minute) for minute in range(minutes) for s in "ABC")]


def test_a_snapshot_for_the_universe_and_each_of_its_portfolios() -> None:
    outputs, _ = run(items(*full(1)))
    assert [(o.topic, o.key, o.event_time) for o in outputs] == [
        ("market.correlations", "u1", DAY0 + MINUTE),
        ("portfolio.events", "alpha", DAY0 + MINUTE),
        ("portfolio.events", "beta", DAY0 + MINUTE),
    ]
    alpha = outputs[1].value
    assert isinstance(alpha, Snapshot)
    assert (alpha.start, alpha.end, alpha.kind, alpha.settings) == (DAY0, DAY0 + MINUTE, "time:1m", 1)
    assert [(row.symbol, row.bar.close, row.stale) for row in alpha.rows] == [
        ("A", price("A", 0), False),
        ("C", price("C", 0), False),
    ]
    assert (alpha.covariance, alpha.warm) == ((0.0, 0.0, 0.0), False)


def test_covariance_equals_pandas_for_universe_and_portfolio() -> None:
    outputs, _ = run(items(*full(30)))
    closes = pd.DataFrame({s: [price(s, minute) for minute in range(30)] for s in "ABC"})
    returns = np.log(closes / closes.shift()).iloc[1:]
    products = {
        (a, b): (returns[a] * returns[b]).ewm(alpha=0.06, adjust=False).mean().iloc[-1]
        for a in "ABC"
        for b in "ABC"
    }
    seen: Correlations = values(outputs, "market.correlations", "u1")[-1]
    assert (seen.symbols, seen.observations, seen.model, seen.fit) == (("A", "B", "C"), 30, "ewma", None)
    volatilities = [math.sqrt(products[s, s]) for s in "ABC"]
    np.testing.assert_allclose(seen.volatilities, volatilities, rtol=1e-12, atol=0.0)
    expected = [
        products[a, b] / math.sqrt(products[a, a] * products[b, b])
        for a, b in (("A", "B"), ("A", "C"), ("B", "C"))
    ]
    np.testing.assert_allclose(seen.correlations, expected, rtol=1e-12, atol=0.0)
    assert seen.average_correlation == pytest.approx(sum(expected) / 3, rel=1e-12)
    alpha: Snapshot = values(outputs, "portfolio.events", "alpha")[-1]
    wanted = [products["A", "A"], products["A", "C"], products["C", "C"]]
    np.testing.assert_allclose(alpha.covariance, wanted, rtol=1e-12, atol=0.0)


def test_warm_counts_each_symbol_for_itself() -> None:
    late_c = [bar(s, minute) for minute in range(5) for s in ("ABC" if minute >= 3 else "AB")]
    ends = [clock(p, 5) for p in (0, 1)]
    outputs, _ = run(items(SETTINGS, *late_c, *ends))
    assert [s.warm for s in values(outputs, "portfolio.events", "beta")] == [False, False, False, True, True]
    assert not any(s.warm for s in values(outputs, "portfolio.events", "alpha"))
    assert not any(s.warm for s in values(outputs, "market.correlations", "u1"))
    assert [len(s.rows) for s in values(outputs, "portfolio.events", "alpha")] == [1, 1, 1, 2, 2]


def test_stale_rows_are_marked_everywhere() -> None:
    outputs, _ = run(items(*full(3), bar("A", 3), clock(0, 4), clock(1, 4)))
    before, after = values(outputs, "market.correlations", "u1")[-2:]
    assert after.stale == (False, True, True)
    assert after.volatilities[0] != before.volatilities[0]
    assert after.volatilities[1:] == before.volatilities[1:]
    assert [row.stale for row in values(outputs, "portfolio.events", "alpha")[-1].rows] == [False, True]


def test_a_portfolio_without_a_bar_yet_gets_an_empty_snapshot() -> None:
    outputs, _ = run(items(SETTINGS, bar("A", 0), clock(0, 1), clock(1, 1)))
    (beta,) = values(outputs, "portfolio.events", "beta")
    assert (beta.rows, beta.covariance, beta.warm) == ((), (), False)


def test_fits_change_nothing() -> None:
    fit = Fit(
        universe="u1",
        model="dcc-garch",
        version=1,
        due=DAY0,
        data_through=DAY0,
        holds_from=DAY0,
        converged=True,
        status="ok",
        observations=1,
        symbols=(),
        parameters={},
    )
    with_fit, without = items(SETTINGS, fit, *full(3)[1:]), items(*full(3))
    assert by_key(run(with_fit)[0]) == by_key(run(without)[0])


def test_settings_come_first() -> None:
    with pytest.raises(SettingsMissing):
        run(items(bar("A", 0)))
    with pytest.raises(SettingsMissing):
        run([item(SETTINGS, key=b"u1")])


def test_the_same_settings_again_are_nothing_others_are_refused() -> None:
    other = examples.settings(version=2)
    outputs, (partition, _) = run(items(SETTINGS, SETTINGS, other))
    (letter,) = letters(outputs)
    assert (letter.reason, letter.input, letter.value) == (
        Reason.SETTINGS_CHANGED,
        "universe.bars/1/2",
        b"raw",
    )
    assert partition["settings"]["version"] == 1


BAD: list[tuple[Input, Reason, str]] = [
    (item(Unreadable(Reason.UNKNOWN_SCHEMA, "id 9"), 7), Reason.UNKNOWN_SCHEMA, "universe.bars/1/7"),
    (item(None, 7), Reason.WRONG_SCHEMA, "universe.bars/1/7"),
    (item(examples.tick(), 7, key=b"u1"), Reason.WRONG_SCHEMA, "universe.bars/1/7"),
    (item(SETTINGS, 7, key=b"u1"), Reason.WRONG_SCHEMA, "universe.bars/1/7"),
    (item(bar("A", 0), 7, key=b"u2"), Reason.BAD_KEY, "universe.bars/1/7"),
    (item(bar("A", 0), 7, key=b"\xff"), Reason.BAD_KEY, "universe.bars/1/7"),
    (item(bar("A", 0, universe="u9"), 7), Reason.UNDECLARED_KEY, "universe.bars/1/7"),
    (item(clock(0, 9, universe="u9"), 7), Reason.UNDECLARED_KEY, "universe.bars/1/7"),
    (item(bar("A", 0, kind="time:1s")), Reason.WRONG_SCHEMA, f"u1/A/{DAY0}"),
    (item(bar("A", 0, end=DAY0 + 1)), Reason.BAD_TIME, f"u1/A/{DAY0}"),
    (item(bar("A", 0, low=0.0)), Reason.BAD_PRICE, f"u1/A/{DAY0}"),
    (item(bar("A", 0, high=math.nan)), Reason.BAD_PRICE, f"u1/A/{DAY0}"),
    (item(bar("A", 0, open=5e-324)), Reason.BAD_PRICE, f"u1/A/{DAY0}"),
    (item(bar("A", 0, volume=math.inf)), Reason.BAD_SIZE, f"u1/A/{DAY0}"),
    (item(clock(2, 9)), Reason.BAD_CLOCK, f"u1/market.ticks/2/{DAY0 + 9 * MINUTE}"),
    (item(clock(0, 9, topic="market.quotes")), Reason.BAD_CLOCK, f"u1/market.quotes/0/{DAY0 + 9 * MINUTE}"),
    (item(quotes("A", 0)), Reason.UNDECLARED_SOURCE, f"u1/A/{DAY0}"),
]


@pytest.mark.parametrize(("bad", "reason", "name"), BAD)
def test_bad_input_is_set_aside_and_costs_its_neighbours_nothing(
    bad: Input, reason: Reason, name: str
) -> None:
    good = items(*full(3))
    outputs, state = run([*good[:5], bad, *good[5:]])
    expected, expected_state = run(good)
    found = by_key(outputs)
    assert found.pop(("system.dead_letters", "universe.bars"))
    (letter,) = letters(outputs)
    assert (letter.stage, letter.reason, letter.input) == ("barrier", reason, name)
    assert letter.error
    assert (found, state) == (by_key(expected), expected_state)


WITH_QUOTES = msgspec.structs.replace(SETTINGS, quote_partitions=1)


def test_the_quotes_of_a_window_are_in_its_rows() -> None:
    events = [bar(s, 0) for s in "ABC"] + [quotes(s, 0, spread_bps=7.0) for s in "ABC"]
    outputs, _ = run(items(WITH_QUOTES, *events))
    (alpha,) = values(outputs, "portfolio.events", "alpha")
    assert [(row.symbol, row.quote.spread_bps) for row in alpha.rows] == [("A", 7.0), ("C", 7.0)]


BAD_QUOTES: list[tuple[dict[str, Any], Reason]] = [
    ({"universe": "u9"}, Reason.UNDECLARED_KEY),
    ({"kind": "time:1s"}, Reason.WRONG_SCHEMA),
    ({"end": DAY0 + 1}, Reason.BAD_TIME),
    ({"bid": 0.0}, Reason.BAD_PRICE),
    ({"microprice": math.nan}, Reason.BAD_PRICE),
    ({"low": -1.0}, Reason.BAD_PRICE),
    ({"spread_bps": -0.1}, Reason.BAD_PRICE),
    ({"spread_bps": 20_001.0}, Reason.BAD_PRICE),
    ({"spread_bps": math.nan}, Reason.BAD_PRICE),
]


@pytest.mark.parametrize(("over", "reason"), BAD_QUOTES)
def test_bad_quotes_are_set_aside(over: dict[str, Any], reason: Reason) -> None:
    bad = msgspec.structs.replace(quotes("A", 0), **over)
    bars = [bar(s, 0) for s in "ABC"]
    outputs, _ = run(items(WITH_QUOTES, *bars, bad, *(quotes(s, 0) for s in "ABC")))
    (letter,) = letters(outputs)
    assert (letter.stage, letter.reason) == ("barrier", reason)
    (alpha,) = values(outputs, "portfolio.events", "alpha")
    assert [row.quote for row in alpha.rows] == [quotes("A", 0), quotes("C", 0)]


def test_extreme_prices_stay_finite() -> None:
    wild = [
        UniverseBar(universe="u2", bar=examples.bar("C", DAY0 + k * MINUTE, close=c, high=c, low=c))
        for k, c in enumerate([1e-150, 1e150, 1e-150])
    ]
    outputs, _ = run(items(SETTINGS, *wild))
    (last,) = values(outputs, "market.correlations", "u2")[-1].volatilities
    assert 690.0 < last < 691.0
    assert not letters(outputs)


@st.composite
def streams(draw: st.DrawFn) -> list[list[Record]]:
    """What two partitions of the ticks send (A and Z; B and C): bars with gaps, clocks, repeats."""
    partitions = []
    for partition, symbols in enumerate(("AZ", "BC")):
        sent: list[Record] = []
        for minute in range(5):
            for symbol in symbols:
                if draw(st.booleans()):
                    sent.append(bar(symbol, minute))
                    if symbol == "C":
                        sent.append(bar(symbol, minute, universe="u2"))
            if draw(st.booleans()) or minute == 4:
                sent += [clock(partition, minute + 1, universe=u) for u in ("u1", "u2")]
        cut = draw(st.integers(0, len(sent)))
        partitions.append(sent[:cut] + sent[draw(st.integers(0, cut)) :])
    return partitions


def merge(draw: Any, partitions: list[list[Record]]) -> list[Input]:
    order = draw(st.permutations([p for p, sent in enumerate(partitions) for _ in sent]))
    queues = [iter(sent) for sent in partitions]
    return items(SETTINGS, *(next(queues[p]) for p in order))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), partitions=streams())
def test_outputs_do_not_depend_on_interleaving_nor_on_runs(
    data: st.DataObject, partitions: list[list[Record]]
) -> None:
    one, other = merge(data.draw, partitions), merge(data.draw, partitions)
    cuts = data.draw(st.lists(st.integers(0, len(one)), max_size=6))
    whole, whole_state = run(one)
    split, split_state = run(one, cuts)
    assert by_key(split) == by_key(whole)
    assert split_state == whole_state
    assert by_key(run(other)[0]) == by_key(whole)
