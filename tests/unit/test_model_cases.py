"""The smallest sequences on which a literal reading of the rules broke a world of the model, on the real code.

DESIGN.md's rules were tried on an executable model before they were written down; each case gives what the literal rule
says, and the test holds the repaired one. Windows are of four seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from schemas.records import (
    Bar,
    Clock,
    Correlations,
    DeadLetter,
    LateTick,
    Record,
    RegimeSpec,
    RiskAlert,
    Settings,
    SourceSpec,
    Tick,
    TradingState,
    UniverseBar,
    UniverseSpec,
)
from schemas.states import PortfoliosPartition, SymbolsPartition, UniversesPartition
from streams.agent import Agent, Input, Output, SourcePartition
from streams.portfolios import Portfolios
from streams.symbols import Symbols
from streams.universes import Universes
from tests import snapshots
from tests.examples import DAY0, SECOND, bar, portfolio, settings, tick

W = 4
"""A window, in seconds."""
SETTINGS = settings(
    tick_partitions=2,
    kinds=("time:4s",),
    sources=(SourceSpec(name="test"),),
    regimes=RegimeSpec(kinds=()),
    universes=(UniverseSpec(name="u1", symbols=("A", "B"), kind="time:4s"),),
    portfolios=(portfolio(strategies=()),),
)


def at(seconds: int) -> int:
    """Seconds after the beginning as event time."""
    return DAY0 + seconds * SECOND


def traded(seconds: int, sequence: int) -> Tick:
    return tick("A", at(seconds), sequence=sequence)


class Struck(int):
    """A clock of the source at a second."""

    source = "test"


class StruckByOther(Struck):
    """A clock of another source."""

    source = "other"


def changed(seconds: int, **over: Any) -> Settings:
    """Settings 2, which hold from a second on."""
    return msgspec.structs.replace(SETTINGS, version=2, effective_from=at(seconds), **over)


def fed(agent: Agent[Any, Any], partition: Any, *runs: Sequence[Any]) -> list[Output]:
    """What the agent answers to its settings and then to ``runs``."""
    where = SourcePartition(agent.source, 0)
    keys: dict[str, Any] = {}
    outputs: list[Output] = []
    offset = 0
    for run in ([SETTINGS], *runs):
        inputs = []
        for value in run:
            inputs.append(_input(offset, value))
            offset += 1
        outputs += agent.step(where, partition, keys, inputs)[0]
    return outputs


def _input(offset: int, value: Any) -> Input:
    if isinstance(value, Settings):
        return Input(offset, 0, None, value, b"")
    if isinstance(value, Struck):
        return Input(offset, at(value) // 1000, None, None, None, (("source", value.source.encode()),))
    if isinstance(value, Tick):
        return Input(offset, value.event_time // 1000, value.symbol.encode(), value, b"")
    if isinstance(value, Clock | UniverseBar):
        return Input(offset, 0, value.universe.encode(), value, b"")
    return snapshots.item(offset, value)


def of_ticks(*runs: Sequence[Tick | Struck]) -> list[Output]:
    return fed(Symbols(), SymbolsPartition(), *runs)


def made(outputs: Sequence[Output], *kinds: type[Record]) -> list[Any]:
    return [output.value for output in outputs if isinstance(output.value, kinds)]


@pytest.mark.parametrize(
    ("run", "closed"),
    [
        ([Struck(20), traded(1, 1)], 0),
        ([traded(9, 1), Struck(20), traded(1, 2)], 1),
        ([traded(9, 1), Struck(12), Struck(20), traded(15, 2)], 1),
    ],
)
def test_a_clock_reaches_every_key_whether_or_not_it_has_an_open_window(run: list[Any], closed: int) -> None:
    """Literally, it reaches keys with an open window: then a tick is late or not as the run was cut."""
    for cut in range(len(run)):
        outputs = of_ticks(run[:cut], run[cut:])
        assert (len(made(outputs, Bar)), len(made(outputs, LateTick))) == (closed, 1)


def test_a_tick_is_late_for_a_window_that_closed_without_a_bar() -> None:
    """Literally, late is what comes after its bar: where there was none, the closed window would open again."""
    outputs = of_ticks([Struck(20), traded(1, 1), Struck(24)])
    assert made(outputs, Bar) == []
    (late,) = made(outputs, LateTick)
    assert late.name == "test/s/1"


def test_bars_leave_before_the_clock_that_closed_them() -> None:
    """Literally, a clock goes on as it comes: the barrier would close a snapshot without the bars of its own time."""
    outputs = of_ticks([traded(1, 1), Struck(W)])
    assert [type(output.value) for output in outputs if output.topic == "universe.bars"] == [
        UniverseBar,
        Clock,
    ]


def test_a_snapshot_waits_for_every_partition_and_its_bars_count_once() -> None:
    """A bar that comes again, of a dead process's last outputs, opens no closed snapshot."""
    first = UniverseBar(universe="u1", bar=bar("A", at(0), kind="time:4s", end=at(W)))
    clocks = [Clock(universe="u1", topic="market.ticks", partition=p, through=at(W)) for p in range(2)]
    outputs = fed(Universes(), UniversesPartition(), [first, clocks[0]], [clocks[1], first, clocks[0]])
    assert [output.topic for output in outputs] == ["market.correlations", "portfolio.events"]
    assert fed(Universes(), UniversesPartition(), [first, clocks[0], first]) == []


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (1, 2)])
def test_a_command_is_recorded_where_it_held_not_where_it_wanted_to(cuts: tuple[int, ...]) -> None:
    """Literally, the next command would be recorded below one that had asked for a later place: a replay turns them."""
    events = [
        snapshots.command("c1", TradingState.HALTED, (1, 2)),
        snapshots.snapshot(1),
        snapshots.command("c2", TradingState.ACTIVE),
    ]
    runs = [events[begin:end] for begin, end in pairwise((0, *cuts, len(events)))]
    alerts = made(fed(Portfolios(), PortfoliosPartition(), *runs), RiskAlert)
    assert [(alert.command_id, alert.ordinal) for alert in alerts] == [("c1", 2), ("c2", 3)]


# ---- settings that change


def cut_anywhere(run: Sequence[Any]) -> list[list[list[Any]]]:
    """``run`` in one piece and in two, in every way."""
    return [[list(run[:cut]), list(run[cut:])] for cut in range(len(run))]


def test_a_symbol_that_leaves_a_universe_may_still_owe_bars_of_before() -> None:
    """Literally, A's bar of 8 alone closes the snapshot of 8, and B's of 4, from another partition, is lost."""
    just_a = (UniverseSpec(name="u1", symbols=("A",), kind="time:4s"),)
    bars = {
        name: UniverseBar(universe="u1", bar=bar(name[0], at(start), kind="time:4s", end=at(start + W)))
        for name, start in (("A8", 8), ("B4", 4))
    }
    clocks = [Clock(universe="u1", topic="market.ticks", partition=p, through=at(12)) for p in range(2)]
    run = [changed(8, universes=just_a), bars["A8"], bars["B4"], *clocks]
    for runs in cut_anywhere(run):
        closed = made(fed(Universes(), UniversesPartition(), *runs), Correlations)
        assert [(each.start, each.settings) for each in closed] == [(at(4), 1), (at(8), 2)]


def test_a_source_that_is_declared_does_not_turn_the_clock_back() -> None:
    """Literally, the clock falls back to nothing: a closed window opens again, and one bar comes out twice."""
    both = (SourceSpec(name="test"), SourceSpec(name="other"))
    run = [traded(9, 1), Struck(20), changed(40, sources=both), traded(10, 2), Struck(50), StruckByOther(50)]
    for runs in cut_anywhere(run):
        outputs = of_ticks(*runs)
        assert [each.start for each in made(outputs, Bar)] == [at(8)]
        assert [each.name for each in made(outputs, LateTick)] == ["test/s/2"]
        through = [each.through for each in made(outputs, Clock)]
        assert through == sorted(set(through))
        assert through[-1] == at(50)


def test_a_new_source_counts_from_the_settings_on() -> None:
    """It holds nothing back before, and everything behind."""
    both = (SourceSpec(name="test"), SourceSpec(name="other"))
    outputs = of_ticks([changed(40, sources=both), Struck(20)], [Struck(60)], [StruckByOther(44)])
    assert [each.through for each in made(outputs, Clock)] == [at(20), at(40), at(44)]


def test_a_source_that_is_gone_is_waited_for_no_more() -> None:
    """Or who takes out a feed that has died would wait for it for ever."""
    both = msgspec.structs.replace(SETTINGS, sources=(SourceSpec(name="test"), SourceSpec(name="other")))
    one = msgspec.structs.replace(both, version=2, effective_from=at(40), sources=both.sources[:1])
    where, keys, partition = SourcePartition("market.ticks", 0), dict[str, Any](), SymbolsPartition()
    items = [_input(n, each) for n, each in enumerate([both, traded(3, 1), Struck(20), one])]
    outputs = [output for item in items for output in Symbols().step(where, partition, keys, [item])[0]]
    assert [type(each.value) for each in outputs] == [Bar, UniverseBar, Clock]
    assert outputs[2].value == Clock(universe="u1", topic="market.ticks", partition=0, through=at(20))
    ticks = [msgspec.structs.replace(traded(t, t), source="other") for t in (25, 44)]
    outputs = Symbols().step(where, partition, keys, [_input(9 + n, each) for n, each in enumerate(ticks)])[0]
    assert [each.input for each in made(outputs, DeadLetter)] == ["A/other/s/44"]


@pytest.mark.parametrize("lateness", [0, 2, 8])
def test_the_lateness_is_fixed(lateness: int) -> None:
    """With two of them, a clock less the newest would say that windows are closed which wait for the older."""
    outputs = fed(Symbols(), SymbolsPartition(), [changed(8, lateness_us=lateness * SECOND + 1), Struck(12)])
    (letter,) = made(outputs, DeadLetter)
    assert "market.lateness_ms" in letter.error
    assert [each.through for each in made(outputs, Clock)] == [at(12)]


def test_settings_are_late_where_a_tick_was_past_them() -> None:
    """Literally, the clock alone tells: A's own ticks had closed windows behind 8, and nobody would hear of it."""
    with_a = changed(8, universes=(UniverseSpec(name="u1", symbols=("A", "B"), kind="time:4s"),))
    only_b = msgspec.structs.replace(
        SETTINGS, universes=(UniverseSpec(name="u1", symbols=("B",), kind="time:4s"),)
    )
    run = [only_b, Struck(4), traded(9, 1), traded(17, 2), with_a, traded(22, 3), traded(26, 4)]
    where = SourcePartition("market.ticks", 0)
    for cut in range(len(run)):
        keys, partition, outputs = dict[str, Any](), SymbolsPartition(), list[Output]()
        items = [_input(n, each) for n, each in enumerate(run)]
        for piece in (items[:cut], items[cut:]):
            outputs += Symbols().step(where, partition, keys, piece)[0]
        (letter,) = made(outputs, DeadLetter)
        assert f"from {at(17) + 1}, not from {at(8)}" in letter.error
        assert "cannot be compared" in letter.error
        assert [each.bar.start for each in made(outputs, UniverseBar)] == [at(20)]
        assert [(each.start, each.settings) for each in made(outputs, Bar)] == [
            (at(8), 1),
            (at(16), 1),
            (at(20), 2),
        ]
