"""The chain of an order, looked up in what an inline run leaves behind, and held against that very run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from connectors.messages import Message
from connectors.simulator import Simulation, SimulatorSettings
from headrace import audit as auditing
from headrace.audit import Audit, Link, UnknownOrder, audit, walk
from headrace.audit_log import Placed
from headrace.audit_ticks import adds_up, ticks_of
from headrace.cli.audit import tree
from headrace.pipeline import PipelineSettings
from schemas.codec import encode_body
from schemas.partitioner import partition_of
from schemas.records import (
    Bar,
    Execution,
    OrderState,
    Record,
    Regime,
    Settings,
    Signal,
    Snapshot,
    Tick,
    TickFilter,
)
from schemas.topics import TOPICS
from streams.agent import Output
from tests.examples import DAY0, MINUTE, SECOND, bar, settings, tick
from tests.pipeline import inline

MARKET = SimulatorSettings(symbols=("A", "B", "C"), minutes=60, ticks_per_minute=20.0)
PIPELINE = PipelineSettings.model_validate(
    {
        "universes": [{"name": "north", "symbols": ["A", "B", "C"]}],
        "portfolios": [
            {
                "name": "alpha",
                "universe": "north",
                "limits": {"max_position": "1500"},
                "strategies": [
                    {"name": "momentum", "uses": "momentum", "parameters": {"lookback": 5, "rebalance": 0.1}},
                    {"name": "reversion", "uses": "reversion", "parameters": {}},
                ],
            }
        ],
    }
)


class Written:
    """A `headrace.audit_log.Log` of what was put in, and what came out."""

    def __init__(self) -> None:
        self.topics: defaultdict[tuple[str, int], list[tuple[str, int, Placed]]] = defaultdict(list)
        self.gone: dict[str, int] = {}

    def write(self, topic: str, key: str, record: Record, time_us: int) -> None:
        partition = partition_of(key, TOPICS[topic].partitions)
        held = self.topics[topic, partition]
        held.append((key, time_us, Placed(topic, partition, len(held), record)))

    def records(self, topic: str, key: str, since_us: int) -> Iterator[Placed]:
        begun = False
        for its_key, time_us, placed in self.topics[topic, partition_of(key, TOPICS[topic].partitions)]:
            begun = begun or time_us // 1000 >= since_us // 1000
            if begun and placed.offset >= self.gone.get(topic, 0) and its_key == key:
                yield placed

    def begins(self, topic: str, key: str) -> tuple[int, int]:
        return partition_of(key, TOPICS[topic].partitions), self.gone.get(topic, 0)

    def settings(self) -> Settings | None:
        return PIPELINE.record()

    def all(self, topic: str) -> list[Any]:
        return [
            placed.record
            for partition in range(TOPICS[topic].partitions)
            for _, _, placed in self.topics[topic, partition]
        ]


def ran() -> Written:
    written, outputs = Written(), list[Output]()

    def fed() -> Iterator[Message]:
        for message in Simulation(MARKET).messages():
            if isinstance(message.record, Tick):
                written.write("market.ticks", message.record.symbol, message.record, message.time_us)
            yield message

    inline(PIPELINE, fed(), outputs=outputs)
    for output in outputs:
        written.write(output.topic, output.key, output.value, output.event_time)
    return written


@pytest.fixture(scope="module")
def run() -> Written:
    return ran()


def events(run: Written, order_id: str) -> list[Execution]:
    return [event for event in run.all("trade.executions") if event.order_id == order_id]


def order_with(run: Written, state: OrderState) -> str:
    found = [event.order_id for event in run.all("trade.executions") if event.state is state]
    assert found, f"the run has no order that is {state}"
    return str(found[-1])


def links(told: Audit, what: str) -> list[Link]:
    return [link for top in (*told.events, told.check) for link in walk(top) if link.what == what]


def test_a_filled_order_is_traced_to_its_ticks(run: Written) -> None:
    order_id = order_with(run, OrderState.FILLED)
    told = audit(run, order_id, all_ticks=True)
    assert told.missing == []
    assert [link.record for link in reversed([*told.events, told.check])] == events(run, order_id)
    first = events(run, order_id)[0]

    (signal,) = told.check.causes
    assert isinstance(signal.record, Signal)
    assert (signal.record.strategy, signal.record.symbol) == (first.strategy, first.symbol)
    assert (signal.record.start, signal.event_time) == (first.decided_on, first.event_time)
    (snapshot,) = signal.causes
    assert isinstance(snapshot.record, Snapshot)
    assert snapshot.record.start == first.decided_on
    (row,) = (row for row in snapshot.record.rows if row.symbol == first.symbol)
    (regime,) = snapshot.causes
    assert isinstance(regime.record, Regime)
    assert row.regime is not None
    assert encode_body("market.regimes", regime.record) == encode_body("market.regimes", row.regime)
    (made_of,) = regime.causes
    assert made_of.record == row.bar
    ticks = [link.record for link in made_of.causes]
    assert ticks == [
        each
        for each in run.all("market.ticks")
        if each.symbol == first.symbol and row.bar.start <= each.event_time < row.bar.end
    ]
    assert len(ticks) == row.bar.count > 2


def test_a_fill_is_traced_to_the_bar_that_it_met(run: Written) -> None:
    filled = Counter(event.order_id for event in run.all("trade.executions") if event.last_quantity)
    told = audit(run, filled.most_common(1)[0][0])
    fills = links(told, "fill")
    assert len(fills) > 1
    starts = []
    for fill in fills:
        (snapshot,) = fill.causes
        (made_of,) = snapshot.causes
        assert isinstance(fill.record, Execution)
        assert isinstance(snapshot.record, Snapshot)
        assert isinstance(made_of.record, Bar)
        assert snapshot.record.start == made_of.record.start == fill.record.start > fill.record.decided_on
        assert (made_of.record.symbol, snapshot.event_time) == (fill.record.symbol, fill.record.event_time)
        starts.append(fill.record.start)
        first, between, last = made_of.causes
        assert isinstance(first.record, Tick)
        assert first.told.startswith(made_of.record.first_tick)
        assert between.told == f"{made_of.record.count - 2} more between them"
        assert last.told.startswith(made_of.record.last_tick)
    assert starts == sorted(starts, reverse=True)


def test_a_denied_order_names_the_limit(run: Written) -> None:
    told = audit(run, order_with(run, OrderState.DENIED))
    assert told.events == []
    assert isinstance(told.check.record, Execution)
    assert told.check.told.startswith("denied by max_position 1500, it would be ")
    assert told.missing == []


def test_every_order_has_a_whole_chain(run: Written) -> None:
    orders = {event.order_id for event in run.all("trade.executions")}
    assert len(orders) > 10
    for order_id in orders:
        assert audit(run, order_id).missing == [], order_id


def test_copies_after_a_crash_are_told_once(run: Written) -> None:
    order_id = order_with(run, OrderState.FILLED)
    copied = ran()
    for event in events(copied, order_id)[:2]:
        copied.topics["trade.executions", partition_of("alpha", 2)].insert(
            0, ("alpha", event.event_time, Placed("trade.executions", 0, 0, event))
        )
    told = audit(copied, order_id)
    assert len(told.events) == len(events(run, order_id)) - 1


def test_what_is_gone_is_told_and_the_rest_stands(run: Written) -> None:
    trimmed = ran()
    trimmed.gone = {"market.ticks": 10**6, "strategy.signals": 10**6}
    told = audit(trimmed, order_with(run, OrderState.FILLED))
    assert {link.what for link in told.missing} == {"signal", "ticks"}
    assert all("begins at offset 1000000" in str(link.missing) for link in told.missing)
    assert isinstance(told.check.causes[0].causes[0].record, Snapshot)

    trimmed.gone = {"trade.executions": 10**6}
    with pytest.raises(UnknownOrder, match="begins at offset 1000000: it may be gone"):
        audit(trimmed, order_with(run, OrderState.FILLED))


@pytest.mark.parametrize(
    "text", ["", "alpha", "alpha/1/x/momentum/A/0", "alpha/1/1/momentum/A", "a/1/2/b/c/0/7", "a/1/-2/b/c/0"]
)
def test_what_is_no_order_is_told_what_one_looks_like(run: Written, text: str) -> None:
    with pytest.raises(UnknownOrder, match=r"portfolio/epoch/snapshot.*trade_executions"):
        audit(run, text)


def test_an_order_that_is_not_there_names_others(run: Written) -> None:
    known = order_with(run, OrderState.FILLED)
    with pytest.raises(UnknownOrder, match=r"there is no order alpha/1/0/momentum/A/0.*alpha/1/"):
        audit(run, "alpha/1/0/momentum/A/0")
    with pytest.raises(UnknownOrder, match="there is no order beta"):
        audit(run, known.replace("alpha", "beta"))


def test_the_tree_has_time_and_place_of_every_link(run: Written) -> None:
    told = audit(run, order_with(run, OrderState.FILLED))
    console = Console(width=400, force_terminal=False)
    with console.capture() as capture:
        console.print(tree(told))
    lines = capture.get().splitlines()
    assert lines[0].startswith(told.order_id)
    placed = [link for top in (*told.events, told.check) for link in walk(top) if link.place]
    for link in placed:
        assert any(
            str(link.place) in line and auditing.moments.shown(link.event_time or 0) in line for line in lines
        )
    order = ["fill", "accepted", "submitted", "check", "signal", "snapshot", "regime", "bar", "tick"]
    at = [next(i for i, line in enumerate(lines) if f"  {what}  " in line) for what in order]
    assert at[:4] == sorted(at[:4])
    assert "regime" in lines[at[6]]
    assert at[3] + 1 == at[4]


# ---- the ticks of a bar


def placed(*ticks: Tick) -> Iterator[Placed]:
    return (Placed("market.ticks", 1, offset, each) for offset, each in enumerate(ticks))


def minute_of(count: int, first: int, last: int, volume: float) -> Bar:
    return bar(count=count, volume=volume, first_tick=f"test/s/{first}", last_tick=f"test/s/{last}")


def test_repeats_bad_ticks_and_late_ones_are_not_the_bars() -> None:
    second, first = tick(time=DAY0 + 2 * SECOND, sequence=1), tick(time=DAY0 + SECOND, sequence=2)
    bad = tick(time=DAY0, sequence=3, price=-1.0)
    stranger = replace(tick(time=DAY0, sequence=4), source="other")
    late = tick(time=DAY0 + 3 * SECOND, sequence=5)
    outside = tick(time=DAY0 + MINUTE, sequence=6)
    made = minute_of(2, 2, 1, 200.0)
    found = ticks_of(made, placed(second, bad, second, stranger, outside, first, late), settings())
    assert [each.record for each in found] == [first, second]
    assert adds_up(made, found)
    assert not adds_up(minute_of(2, 2, 1, 200.1), found)
    assert not adds_up(minute_of(2, 2, 5, 200.0), found)
    assert not adds_up(minute_of(3, 2, 1, 200.0), found)
    assert not adds_up(minute_of(0, 2, 1, 0.0), [])


def test_ticks_that_the_settings_leave_out_are_not_the_bars() -> None:
    odd, whole = tick(sequence=1, size=99.0), tick(sequence=2, size=100.0)
    left_out = settings(leave_out=(TickFilter.ODD_LOTS,))
    found = ticks_of(minute_of(1, 2, 2, 100.0), placed(odd, whole), left_out)
    assert [each.record for each in found] == [whole]
    found = ticks_of(minute_of(2, 1, 2, 199.0), placed(odd, whole), None)
    assert [each.record for each in found] == [odd, whole]


def test_a_tick_without_a_sequence_is_named_by_its_place() -> None:
    (found,) = ticks_of(bar(count=1), placed(tick(sequence=None)), None)
    assert adds_up(bar(count=1, volume=100.0, first_tick="test/@1/0", last_tick="test/@1/0"), [found])
