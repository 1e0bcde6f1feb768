"""Versions of the settings: which holds where, what may differ, what is forgotten; and what agents make of them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from headrace.pipeline import PipelineSettings
from headrace.settings import SettingsError, changed
from schemas.records import (
    NEVER,
    AlertKind,
    Bar,
    Clock,
    ClockKind,
    Correlations,
    DeadLetter,
    Execution,
    LimitsSpec,
    OrderState,
    QuoteBar,
    Record,
    RiskAlert,
    Settings,
    Snapshot,
    SourceSpec,
    StrategySpec,
    TradingState,
    UniverseBar,
    UniverseSpec,
)
from schemas.states import PortfoliosPartition, QuotesPartition, SymbolsPartition, UniversesPartition
from streams import versions
from streams.agent import Agent, Input, Output, SourcePartition
from streams.portfolios import Portfolios
from streams.quotes import Quotes
from streams.symbols import Symbols
from streams.universes import Universes
from tests import examples, snapshots
from tests.examples import DAY0, MINUTE, SECOND, portfolio, quote, settings, tick

FIRST = settings(tick_partitions=1)
change = msgspec.structs.replace


def second(begins: int = DAY0 + 10 * MINUTE, **over: Any) -> Settings:
    return change(FIRST, version=2, effective_from=begins, **over)


def test_a_window_belongs_to_the_settings_in_force_at_its_start() -> None:
    held = (FIRST, second(DAY0), change(second(DAY0 + MINUTE), version=3))
    found = [versions.at(held, DAY0 + each).version for each in (-1, 0, MINUTE - 1, MINUTE, 9 * MINUTE)]
    assert found == [1, 2, 2, 3, 3]


def test_a_version_is_taken_once_and_none_goes_back() -> None:
    partition = SymbolsPartition()
    assert versions.take(partition, FIRST, NEVER) == (FIRST, None)
    assert versions.take(partition, FIRST, NEVER) == (None, None)
    assert versions.take(partition, second(), DAY0) == (second(), None)
    for again in (second(), second(kinds=()), FIRST):
        assert versions.take(partition, again, DAY0) == (None, None)
    assert versions.held(partition) == (FIRST, second())


@pytest.mark.parametrize(("past", "begins"), [(DAY0 - 1, DAY0), (DAY0, DAY0 + 1), (DAY0 + 99, DAY0 + 100)])
def test_settings_hold_behind_all_that_was_seen(past: int, begins: int) -> None:
    partition = SymbolsPartition(settings=FIRST)
    taken, error = versions.take(partition, second(DAY0), past)
    assert taken == second(begins)
    assert (error is None) == (begins == DAY0)


def test_a_version_holds_behind_the_one_before_it() -> None:
    partition = SymbolsPartition(settings=FIRST, later=[second(DAY0 + 7)])
    taken, error = versions.take(partition, change(FIRST, version=3, effective_from=DAY0), NEVER)
    assert taken is not None
    assert taken.effective_from == DAY0 + 8
    assert error is not None


BOOK = FIRST.portfolios[0]
OTHER_WAY = (StrategySpec(name="momentum", uses="reversion", parameters="{}"),)
OTHER_BAR = (UniverseSpec(name="u1", symbols=("A", "B"), kind="time:1s"),)


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({"lateness_us": 5}, "market.lateness_ms"),
        ({"max_ahead_us": 5}, "market.max_ahead_s"),
        ({"round_lot": 5.0}, "market.round_lot"),
        ({"quote_partitions": 4}, "market.quotes"),
        ({"sources": (SourceSpec(name="test", clock=ClockKind.TICKS),)}, "market.sources: test: clock"),
        ({"regimes": change(FIRST.regimes, period=15)}, "market.regimes.period"),
        ({"kinds": ("time:1w",)}, "unknown bar kind"),
        ({"kinds": tuple(f"tick:{n}" for n in range(1, 63))}, "more than 64 kinds"),
        ({"universes": OTHER_BAR}, "universe u1: bar"),
        ({"portfolios": (change(BOOK, cash=Decimal(5)),)}, "portfolio alpha: cash"),
        ({"portfolios": (change(BOOK, epoch=0),)}, "portfolio alpha: epoch"),
        ({"portfolios": (change(BOOK, strategies=OTHER_WAY),)}, "strategy momentum: uses"),
    ],
)
def test_what_is_fixed_is_refused_and_named(over: dict[str, Any], named: str) -> None:
    partition = SymbolsPartition(settings=FIRST)
    taken, error = versions.take(partition, second(**over), NEVER)
    assert taken is None
    assert named in str(error)
    assert versions.held(partition) == (FIRST,)


@pytest.mark.parametrize(
    "over",
    [
        {"kinds": ("time:1m", "tick:9")},
        {"sources": (SourceSpec(name="other"),)},
        {"regimes": change(FIRST.regimes, trend_adx=9.0, kinds=("time:1s",))},
        {"universes": ()},
        {"portfolios": (change(BOOK, cash=Decimal(5), epoch=2, strategies=OTHER_WAY),)},
        {"portfolios": (change(BOOK, limits=LimitsSpec(max_orders=3), symbols=("A",)), portfolio("new"))},
    ],
)
def test_the_rest_may_change(over: dict[str, Any]) -> None:
    assert versions.fixed(FIRST, second(**over)) == []


def test_differences_are_told_by_name() -> None:
    limited = change(BOOK, limits=LimitsSpec(max_position=Decimal(9)), symbols=("A", "C"))
    found = versions.differences(FIRST, second(portfolios=(limited, portfolio("new", symbols=("A",)))))
    told = {what: (was, now) for what, was, now in found}
    assert told["portfolios.alpha.limits.max_position"] == ("-", "9")
    assert told["portfolios.alpha.symbols"] == ("B", "C")
    assert told["portfolios.new"][0] == "-"
    assert told["version"] == ("1", "2")
    assert set(told) == {*told} & {
        "version",
        "effective_from",
        "portfolios.alpha.limits.max_position",
        "portfolios.alpha.symbols",
        "portfolios.new",
    }


@pytest.mark.parametrize(
    ("number", "told"), [("2000", "2000"), ("0.05", "0.05"), ("1E+3", "1000"), ("0", "0")]
)
def test_a_number_is_told_the_same_before_and_after_kafka(number: str, told: str) -> None:
    for limit in (Decimal(number), Decimal(number).quantize(Decimal("1e-9"))):
        after = second(portfolios=(change(BOOK, limits=LimitsSpec(max_position=limit)),))
        assert ("portfolios.alpha.limits.max_position", "-", told) in versions.differences(FIRST, after)


# ---- the agents


def fed(agent: Agent[Any, Any], partition: Any, *runs: Sequence[Input]) -> list[Output]:
    keys: dict[str, Any] = {}
    where = SourcePartition(agent.source, 1)
    return [output for run in runs for output in agent.step(where, partition, keys, run)[0]]


def made(outputs: Sequence[Output], kind: type[Record]) -> list[Any]:
    return [output.value for output in outputs if isinstance(output.value, kind)]


def inputs(*values: Any) -> list[Input]:
    """Settings, records with their symbols as keys, and clocks: an event time."""
    items = []
    for offset, value in enumerate(values):
        if isinstance(value, int):
            items.append(Input(offset, value // 1000, None, None, None, (("source", b"test"),)))
        elif isinstance(value, Settings):
            items.append(Input(offset, 0, None, value, b""))
        else:
            key = getattr(value, "symbol", None) or value.universe
            items.append(Input(offset, 0, key.encode(), value, b""))
    return items


def test_a_kind_that_is_gone_is_forgotten_with_its_settings() -> None:
    """Its open windows are done by then; a bar of ticks that never filled is dropped."""
    partition = SymbolsPartition()
    begins = DAY0 + 10 * SECOND
    fewer = second(begins, kinds=("time:1s",))
    third = change(fewer, version=3, effective_from=DAY0 + 900 * SECOND)
    first = change(FIRST, kinds=("time:1s", "time:5m", "tick:3"), universes=(), portfolios=())
    ticks = [tick("A", DAY0 + n * 4 * SECOND, sequence=n) for n in range(4)]
    outputs = fed(Symbols(), partition, inputs(first, fewer, *ticks, DAY0 + 309 * SECOND, third))
    assert [(bar.kind, bar.count, bar.settings) for bar in made(outputs, Bar)] == [
        ("time:1s", 1, 1),
        ("time:1s", 1, 1),
        ("tick:3", 3, 1),
        ("time:1s", 1, 1),
        ("time:1s", 1, 2),
        ("time:5m", 4, 1),
    ]
    assert [each.version for each in versions.held(partition)] == [1, 2, 3]
    fourth = change(third, version=4, effective_from=DAY0 + 1900 * SECOND)
    fed(Symbols(), partition, inputs(DAY0 + 310 * SECOND, fourth))
    assert [each.version for each in versions.held(partition)] == [2, 3, 4]


def test_quotes_make_bars_of_the_universes_in_force() -> None:
    declared = change(FIRST, quote_sources=FIRST.sources, quote_partitions=1)
    more = UniverseSpec(name="u2", symbols=("A",), kind="time:1m")
    begins = DAY0 + MINUTE
    told = change(
        declared,
        version=2,
        effective_from=begins,
        universes=(more, UniverseSpec(name="u1", symbols=("B",), kind="time:1m")),
    )
    quotes = [quote("A", DAY0 + n * MINUTE // 2, sequence=n) for n in range(4)]
    for cut in range(7):
        items = inputs(declared, quotes[0], told, *quotes[1:], DAY0 + 2 * MINUTE)
        outputs = fed(Quotes(), QuotesPartition(), items[:cut], items[cut:])
        bars = [(bar.universe, bar.start - DAY0, bar.count, bar.settings) for bar in made(outputs, QuoteBar)]
        assert bars == [("u1", 0, 2, 1), ("u2", MINUTE, 2, 2)]


def test_quotes_that_nobody_declares_take_settings_all_the_same() -> None:
    partition = QuotesPartition()
    assert fed(Quotes(), partition, inputs(FIRST, second())) == []
    assert versions.held(partition) == (FIRST, second())


def bar_of(symbol: str, minute: int, universe: str = "u1") -> UniverseBar:
    return UniverseBar(universe=universe, bar=examples.bar(symbol, DAY0 + minute * MINUTE))


def clock_of(minute: int, universe: str = "u1") -> Clock:
    return Clock(universe=universe, topic="market.ticks", partition=0, through=DAY0 + minute * MINUTE)


def test_a_universe_that_is_new_one_that_is_gone_and_a_portfolio_that_joins() -> None:
    told = second(
        DAY0 + 2 * MINUTE,
        universes=(UniverseSpec(name="u2", symbols=("A",), kind="time:1m"),),
        portfolios=(portfolio("beta", universe="u2", symbols=("A",)),),
    )
    values = [
        FIRST,
        bar_of("A", 0),
        bar_of("B", 0),
        told,
        bar_of("A", 1),
        clock_of(2),
        bar_of("A", 2, "u2"),
        clock_of(3, "u2"),
        clock_of(3),
    ]
    for cut in range(len(values)):
        items = inputs(*values)
        outputs = fed(Universes(), UniversesPartition(), items[:cut], items[cut:])
        assert made(outputs, DeadLetter) == []
        closed = [
            (each.universe, (each.start - DAY0) // MINUTE, each.symbols, each.settings)
            for each in made(outputs, Correlations)
        ]
        assert sorted(closed) == [("u1", 0, ("A", "B"), 1), ("u1", 1, ("A", "B"), 1), ("u2", 2, ("A",), 2)]
        parts = [(each.portfolio, each.settings) for each in made(outputs, Snapshot)]
        assert sorted(parts) == [("alpha", 1), ("alpha", 1), ("beta", 2)]


def test_universes_forget_settings_when_all_of_them_are_past() -> None:
    partition = UniversesPartition()
    told = second(DAY0 + 2 * MINUTE)
    third = change(told, version=3, effective_from=DAY0 + 9 * MINUTE)
    fed(Universes(), partition, inputs(FIRST, told, bar_of("A", 0), clock_of(1), third))
    assert [each.version for each in versions.held(partition)] == [1, 2, 3]
    late = SourcePartition("universe.bars", 1)
    keys: dict[str, Any] = {}
    partition = UniversesPartition()
    Universes().step(late, partition, keys, inputs(FIRST, told, bar_of("A", 0), clock_of(2), third))
    assert [each.version for each in versions.held(partition)] == [2, 3]


def decided(*values: Any) -> tuple[list[Output], PortfoliosPartition]:
    partition = PortfoliosPartition()
    items = [snapshots.item(offset, value) for offset, value in enumerate(values)]
    for cut in range(len(items)):
        again = PortfoliosPartition()
        outputs = fed(Portfolios(), again, items[:cut], items[cut:])
        if cut == 0:
            first, partition = outputs, again
        assert outputs == first
    return first, partition


WALK = [snapshots.snapshot(minute, {"A": snapshots.walk(minute, "A"), "B": 50.0}) for minute in range(40)]
FAST = StrategySpec(
    name="momentum",
    uses="momentum",
    parameters='{"lookback": 2, "target_volatility": 0.5, "bars_per_year": 1000}',
)
TRADED = change(FIRST, portfolios=(portfolio(strategies=(FAST,)),))


def test_a_limit_holds_from_its_snapshot_on_and_people_are_told() -> None:
    tight = portfolio(strategies=(FAST,), limits=LimitsSpec(max_position=Decimal(1)))
    told = change(TRADED, version=2, effective_from=DAY0 + 3 * MINUTE, portfolios=(tight,))
    outputs, _ = decided(TRADED, told, *WALK[:8])  # it turns at the sixth
    (alert,) = [each for each in made(outputs, RiskAlert) if each.kind is AlertKind.SETTINGS]
    assert (alert.start, alert.id) == (DAY0 + 3 * MINUTE, "settings/2")
    assert alert.message == "settings 2 hold: limits.max_position - → 1"
    decisions = [
        ((each.start - DAY0) // MINUTE, each.state, each.settings)
        for each in made(outputs, Execution)
        if each.state in (OrderState.APPROVED, OrderState.DENIED)
    ]
    assert decisions == [(2, OrderState.APPROVED, 1), (6, OrderState.DENIED, 2), (7, OrderState.DENIED, 2)]


def test_settings_that_come_too_late_for_a_portfolio_are_told() -> None:
    told = change(TRADED, version=2, effective_from=DAY0)
    outputs, partition = decided(TRADED, *WALK[:3], told, *WALK[3:5])
    (letter,) = made(outputs, DeadLetter)
    (alert,) = [each for each in made(outputs, RiskAlert) if each.kind is AlertKind.SETTINGS]
    assert "cannot be compared" in letter.error
    assert (alert.id, alert.message) == ("settings/2/late", letter.error)
    assert versions.held(partition)[-1].effective_from == DAY0 + 2 * MINUTE + 1


def test_a_new_epoch_begins_at_its_snapshot_and_repeats_of_the_old_do_nothing() -> None:
    again = change(TRADED.portfolios[0], epoch=2, cash=Decimal(500))
    told = change(TRADED, version=2, effective_from=DAY0 + 3 * MINUTE, portfolios=(again,))
    waits = snapshots.command("c1", TradingState.HALTED, (4, 0))
    outputs, _ = decided(TRADED, waits, told, *WALK[:4], *WALK[1:3], *WALK[4:6])
    equities = [
        ((each.start - DAY0) // MINUTE, each.epoch, each.cash)
        for each in (output.value for output in outputs if output.topic == "trade.equity")
    ]
    assert [each[:2] for each in equities] == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
    assert equities[3][2] == 500
    (alert,) = [each for each in made(outputs, RiskAlert) if each.command_id == "c1"]
    assert (alert.start, alert.epoch) == (DAY0 + 4 * MINUTE, 2)


def test_a_portfolio_that_is_gone_takes_repeats_in_silence_and_no_commands() -> None:
    gone = change(TRADED, version=2, effective_from=DAY0 + 2 * MINUTE, portfolios=())
    third = change(gone, version=3, effective_from=DAY0 + 99 * MINUTE)
    halt = snapshots.command("c1", TradingState.HALTED)
    outputs, partition = decided(
        TRADED, gone, *WALK[:2], halt, third, WALK[0], snapshots.command("c2", TradingState.HALTED)
    )
    assert [each.command_id for each in made(outputs, RiskAlert)] == ["c1"]
    (letter,) = made(outputs, DeadLetter)
    assert "no portfolio 'alpha'" in letter.error
    assert [each.version for each in versions.held(partition)] == [2, 3]


# ---- --set


def test_a_setting_is_said_by_its_path() -> None:
    told = PipelineSettings.model_validate(
        {
            "universes": [{"name": "u", "symbols": ["A"]}],
            "portfolios": [{"name": "p", "universe": "u", "strategies": [{"name": "m", "uses": "momentum"}]}],
        }
    )
    now = changed(
        told, ["portfolios.p.limits.max_position=5", 'market.bars=["1s", "1m"]', "universes.u.bar=1s"]
    )
    assert now.version == told.version + 1
    assert now.portfolios[0].limits.max_position == 5
    assert now.market.bars == ("1s", "1m")
    assert now.universes[0].bar == "1s"
    for wrong, words in (
        ("portfolios.q.epoch=2", "there is no 'q' here, but p"),
        ("portfolios", "write PATH=VALUE"),
        ("portfolios.p=2", "a whole part is changed in a file"),
        ("portfolios.p.limits.max_posture=5", "there is no such setting"),
    ):
        with pytest.raises(SettingsError, match=words):
            changed(told, [wrong])
