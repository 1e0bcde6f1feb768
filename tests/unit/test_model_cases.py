"""The smallest sequences on which a literal reading of the rules broke a world of the model, on the real code.

DESIGN.md's rules were tried on an executable model before they were written down; each case gives what the literal rule
says, and the test holds the repaired one. Windows are of four seconds. Cases of settings that change within a run have
no counterpart: settings are fixed for a namespace.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from schemas.records import (
    Bar,
    Clock,
    LateTick,
    Record,
    RegimeSpec,
    RiskAlert,
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
    if isinstance(value, Struck):
        return Input(offset, at(value) // 1000, None, None, None, (("source", b"test"),))
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
