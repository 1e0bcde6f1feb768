"""The portfolios agent: decisions in order, commands at their places, nothing lost between runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Context, Decimal, localcontext
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Unreadable, decode_body, encode_body
from schemas.records import (
    NEVER,
    AlertKind,
    Answer,
    Bar,
    DeadLetter,
    Equity,
    Execution,
    LimitsSpec,
    OrderState,
    OrderType,
    Place,
    Position,
    Reason,
    Record,
    RiskAlert,
    RiskMetrics,
    Side,
    Signal,
    StrategySpec,
    TradingState,
)
from schemas.states import PortfoliosPartition, PortfolioState
from streams.agent import Output, SourcePartition
from streams.desk import DAY_US
from streams.errors import SettingsMissing
from streams.portfolios import Portfolios
from streams.pretrade.lifecycle import TERMINAL
from streams.signals.strategy import Strategy, Target, View
from tests import examples
from tests.examples import DAY0, MINUTE
from tests.snapshots import command, item, of, snapshot, walk

WHERE = SourcePartition("portfolio.events", 1)
CHANGELOG = "portfolios.changelog"


class Plan(msgspec.Struct, frozen=True):
    """By the minute, what to want: (symbol, weight, limit price or None, rests for)."""

    targets: dict[str, list[tuple[str, float, float | None, int]]] = {}
    fails_at: int = -1


class Count(msgspec.Struct):
    snapshots: int = 0


class Scripted(Strategy[Plan, Count]):
    Parameters = Plan
    State = Count
    inputs = frozenset({"bars"})

    def on_snapshot(self, state: Count, view: View) -> tuple[Count, Sequence[Target]]:
        minute = (view.start - DAY0) // MINUTE
        state.snapshots += 1
        if minute == self.parameters.fails_at:
            raise ZeroDivisionError("on purpose")
        return state, [
            Target(symbol, weight, "plan", OrderType.LIMIT if limit else OrderType.MARKET, limit, rests)
            for symbol, weight, limit, rests in self.parameters.targets.get(str(minute), ())
            if symbol in view.rows
        ]


def load(spec: StrategySpec) -> Strategy[Plan, Count]:
    return Scripted(msgspec.json.decode(spec.parameters, type=Plan))


def plan(
    name: str, targets: dict[int, list[tuple[str, float, float | None, int]]], fails_at: int = -1
) -> StrategySpec:
    by_minute = {str(minute): wanted for minute, wanted in targets.items()}
    parameters = msgspec.json.encode(Plan(by_minute, fails_at)).decode()
    return StrategySpec(name=name, uses=name, parameters=parameters)


class Book:
    """The agent with its states, and all that it has sent."""

    def __init__(self, *strategies: StrategySpec, **over: Any) -> None:
        self.settings = examples.settings(
            portfolios=(examples.portfolio(cash=Decimal(100_000), strategies=strategies, **over),)
        )
        self.agent = Portfolios(load)
        self.partition = PortfoliosPartition()
        self.keys: dict[str, PortfolioState] = {}
        self.outputs: list[Output] = []
        self.offset = 0
        self.take(self.settings)

    def take(self, *values: Record | Unreadable | None) -> list[Output]:
        """Fold ``values`` in as one run; what that sent."""
        inputs = [item(self.offset + i, value) for i, value in enumerate(values)]
        self.offset += len(values)
        outputs, touched = self.agent.step(WHERE, self.partition, self.keys, inputs)
        assert touched <= set(self.keys)
        self.outputs += outputs
        return outputs

    def restart(self) -> None:
        """Go on from what the changelog holds."""
        stored = {name: encode_body(CHANGELOG, state) for name, state in self.keys.items()}
        self.keys = {name: decode_body(CHANGELOG, body) for name, body in stored.items()}
        self.agent = Portfolios(load)

    @property
    def state(self) -> PortfolioState:
        return self.keys["alpha"]

    def lives(self) -> dict[str, list[str]]:
        """The states that each order has gone through."""
        lives: dict[str, list[str]] = {}
        for execution in of(self.outputs, Execution):
            life = lives.setdefault(execution.order_id, [])
            assert execution.sequence == len(life)
            life.append(execution.state)
        return lives


def bodies(outputs: Sequence[Output]) -> list[tuple[str, str, bytes, int]]:
    return [(o.topic, o.key, encode_body(o.topic, o.value), o.event_time) for o in outputs]


# --- one order from wish to fill


def test_an_order_is_filled_on_the_next_snapshot_and_all_topics_tell_it() -> None:
    book = Book(plan("s", {0: [("A", 0.1, None, 1)]}))
    first = book.take(snapshot(0))
    assert Counter(output.topic for output in first) == {
        "strategy.signals": 1,
        "trade.executions": 3,
        "trade.equity": 1,
        "risk.metrics": 1,
    }
    (signal,) = of(first, Signal)
    assert (signal.strategy, signal.symbol, signal.weight, signal.reason) == ("s", "A", 0.1, "plan")
    second = book.take(snapshot(1, {"A": 104.0, "B": 50.0}, bars={"open": 102.0}))
    (fill,) = of(second, Execution)
    order = f"alpha/1/{DAY0}/s/A/0"
    assert book.lives() == {order: ["APPROVED", "SUBMITTED", "ACCEPTED", "FILLED"]}
    # 100 units at 102 and 1.5 bp (a tenth of the bar's 1000): the half spread and a tenth of the slippage
    assert (fill.last_quantity, fill.last_price, fill.fee) == (100, Decimal("102.0153"), 1)
    assert (fill.slippage, fill.decided_on, fill.start, fill.ordinal) == (
        Decimal("201.53"),
        DAY0,
        DAY0 + MINUTE,
        -1,
    )
    (position,) = of(second, Position)
    cash = Decimal(100_000) - Decimal("10201.53") - 1
    assert (position.quantity, position.average_cost, position.cash) == (100, Decimal("102.0153"), cash)
    assert (position.order_id, position.sequence, position.unrealised) == (order, 3, 0)
    (equity,) = of(second, Equity)
    assert (equity.cash, equity.equity, equity.unrealised) == (cash, cash + 10400, Decimal("198.47"))
    assert (equity.fills, equity.open_orders, equity.fees) == (1, 0, 1)
    (metrics,) = of(second, RiskMetrics)
    assert [(e.symbol, e.notional) for e in metrics.exposures] == [("A", 10400.0)]
    assert metrics.equity == float(equity.equity)
    assert all(output.event_time == DAY0 + 2 * MINUTE and output.key == "alpha" for output in second)


def test_what_a_bar_cannot_fill_waits_and_stale_bars_fill_nothing() -> None:
    book = Book(plan("s", {0: [("A", 0.1, None, 1), ("B", -0.1, 50.5, 2)]}))
    book.take(snapshot(0))
    book.take(snapshot(1, bars={"volume": 600.0}, stale=["B"]))
    book.take(snapshot(2, bars={"volume": 900.0}, stale=["B"]))
    assert list(book.lives().values()) == [
        ["APPROVED", "SUBMITTED", "ACCEPTED", "PARTIALLY_FILLED", "FILLED"],
        ["APPROVED", "SUBMITTED", "ACCEPTED", "EXPIRED"],
    ]
    assert [position.quantity for position in of(book.outputs, Position)] == [60, 100]
    assert of(book.outputs, Execution)[-1].reason == "rested for as long as it was good for"


def test_a_repeated_snapshot_is_dropped() -> None:
    book = Book(plan("s", {0: [("A", 0.1, None, 1)]}))
    book.take(snapshot(0), snapshot(1))
    assert book.take(snapshot(1), snapshot(0)) == []


def test_open_orders_count_and_the_other_way_cancels_them() -> None:
    book = Book(
        plan(
            "s",
            {
                0: [("A", 0.1, 90.0, 9)],
                1: [("A", 0.15, 90.0, 9)],
                2: [("A", 0.15, 91.0, 9)],
                3: [("A", -0.1, None, 1)],
            },
        )
    )
    book.take(*map(snapshot, range(4)))
    ordered = [(e.side, e.quantity) for e in of(book.outputs, Execution) if e.state is OrderState.APPROVED]
    assert ordered == [(Side.BUY, 100), (Side.BUY, 50), (Side.SELL, 100)]
    assert [life[-1] for life in book.lives().values()] == ["CANCELLED", "CANCELLED", "ACCEPTED"]


def test_a_cancelled_order_makes_room_at_once() -> None:
    book = Book(
        plan("s", {0: [("A", 0.1, 90.0, 9)], 1: [("A", -0.01, None, 1)]}),
        plan("t", {1: [("A", 0.1, None, 1)]}),
        limits=LimitsSpec(max_position=Decimal(120)),
    )
    book.take(snapshot(0), snapshot(1))
    assert [life[-1] for life in book.lives().values()] == ["CANCELLED", "ACCEPTED", "ACCEPTED"]


def test_without_equity_nothing_more_is_wanted() -> None:
    book = Book(plan("s", {0: [("A", -1.0, None, 1)], 2: [("A", -1.0, None, 1), ("B", 1.0, None, 1)]}))
    wide = {"volume": 100_000.0}
    book.take(snapshot(0), snapshot(1, bars=wide), snapshot(2, {"A": 300.0, "B": 50.0}))
    (order,) = book.state.orders
    assert (order.symbol, order.side, order.quantity) == ("A", Side.BUY, 1000)


def test_strategies_hold_apart_and_the_portfolio_holds_their_sum() -> None:
    book = Book(
        plan("long", {0: [("A", 0.1, None, 1)]}),
        plan("short", {0: [("A", -0.04, None, 1)], 2: [("A", 0.0, None, 1)]}),
    )
    book.take(*(snapshot(m, bars={"volume": 5000.0}) for m in range(3)))
    assert [holding.quantity for holding in book.state.holdings] == [60]
    assert [envelope.holdings for envelope in book.state.strategies] == [{"A": 100}, {"A": -40}]
    assert of(book.outputs, Execution)[-1].quantity == 40


def test_a_signal_on_a_carried_bar_makes_no_order() -> None:
    book = Book(plan("s", {0: [("A", 0.1, None, 1)]}))
    outputs = book.take(snapshot(0, stale=["A"]))
    assert (len(of(outputs, Signal)), of(outputs, Execution)) == (1, [])


def test_a_strategy_that_raises_keeps_its_state_and_costs_the_others_nothing() -> None:
    wish: dict[int, list[tuple[str, float, float | None, int]]] = {1: [("A", 0.1, None, 1)]}
    book = Book(plan("bad", wish, fails_at=1), plan("good", wish))
    book.take(snapshot(0))
    (before, _) = book.state.strategies
    kept = msgspec.structs.asdict(before)
    outputs = book.take(snapshot(1))
    (letter,) = of(outputs, DeadLetter)
    assert (letter.reason, letter.input) == (Reason.STRATEGY_RAISED, f"alpha/{DAY0 + MINUTE}/bad")
    assert (letter.error, letter.stage) == ("ZeroDivisionError: on purpose", "signals")
    assert letter.value == encode_body("portfolio.events", snapshot(1))
    assert msgspec.structs.asdict(book.state.strategies[0]) == kept
    assert {execution.strategy for execution in of(outputs, Execution)} == {"good"}
    assert [envelope.snapshots for envelope in book.state.strategies] == [1, 2]


# --- limits, states and commands


def test_a_denied_order_lives_for_one_event() -> None:
    book = Book(plan("s", {0: [("A", 0.1, None, 1)]}), limits=LimitsSpec(max_position=Decimal(99)))
    (denied,) = of(book.take(snapshot(0)), Execution)
    assert (denied.state, denied.sequence, denied.limit) == (OrderState.DENIED, 0, "max_position")
    assert (denied.value, denied.figure, denied.reason) == (99, 100, "max_position 99: A could reach 100")
    assert book.state.orders == []


def test_the_order_rate_is_counted_in_event_time() -> None:
    wishes = {m: [("A", 0.01 * (m + 1), None, 1)] for m in range(4)}
    book = Book(plan("s", wishes), limits=LimitsSpec(max_orders=1, order_window_us=2 * MINUTE))
    book.take(*map(snapshot, range(4)))
    states = [e.state for e in of(book.outputs, Execution) if e.state in ("APPROVED", "DENIED")]
    assert states == ["APPROVED", "DENIED", "APPROVED", "DENIED"]


def test_halt_cancels_and_denies_until_resume() -> None:
    wishes = {m: [("A", 0.1, 90.0, 9)] for m in range(4)}
    book = Book(plan("s", wishes))
    book.take(snapshot(0), command("c1", TradingState.HALTED, issued_by="ann", reason="lunch"))
    cancelled = of(book.outputs, Execution)[-1]
    assert (cancelled.state, cancelled.start, cancelled.ordinal) == (OrderState.CANCELLED, DAY0, 0)
    assert cancelled.reason == "the portfolio is HALTED: HALTED by ann: lunch"
    (denied,) = of(book.take(snapshot(1)), Execution)
    assert (denied.state, denied.limit) == (OrderState.DENIED, "trading_state")
    book.take(command("c2", TradingState.ACTIVE))
    assert len(of(book.take(snapshot(2)), Execution)) == 3
    assert [(a.id, a.previous, a.state) for a in of(book.outputs, RiskAlert)] == [
        ("c1", TradingState.ACTIVE, TradingState.HALTED),
        ("c2", TradingState.HALTED, TradingState.ACTIVE),
    ]


def test_reduce_keeps_only_resting_orders_that_reduce() -> None:
    book = Book(
        plan("s", {0: [("A", 0.1, None, 1)], 1: [("A", 0.04, 200.0, 9), ("B", 0.1, 10.0, 9)]}),
        plan("t", {1: [("A", -0.06, 200.0, 9)]}),
    )
    book.take(snapshot(0), snapshot(1), command("c", TradingState.REDUCING))
    assert [(order.strategy, order.symbol, order.side) for order in book.state.orders] == [
        ("s", "A", Side.SELL)
    ]


def test_drawdown_reduces_once_and_resuming_starts_the_peak_anew() -> None:
    limits = LimitsSpec(max_drawdown=Decimal("0.05"))
    book = Book(plan("s", {0: [("A", 1.0, None, 1)], 1: [("B", 0.1, 10.0, 9)]}), limits=limits)
    wide = {"volume": 100_000.0}
    book.take(snapshot(0), snapshot(1, bars=wide))
    assert len(book.state.orders) == 1
    outputs = book.take(snapshot(2, {"A": 94.0, "B": 50.0}), snapshot(3, {"A": 93.0, "B": 50.0}))
    (alert,) = of(outputs, RiskAlert)
    assert (alert.kind, alert.limit, alert.value) == (AlertKind.STATE, "max_drawdown", limits.max_drawdown)
    assert (alert.previous, alert.state) == (TradingState.ACTIVE, TradingState.REDUCING)
    assert [metrics.state for metrics in of(outputs, RiskMetrics)] == [TradingState.REDUCING] * 2
    (cancelled,) = of(outputs, Execution)
    assert (cancelled.symbol, cancelled.state, cancelled.ordinal) == ("B", OrderState.CANCELLED, -1)
    book.take(command("go", TradingState.ACTIVE), snapshot(4, {"A": 92.0, "B": 50.0}))
    assert book.state.state is TradingState.ACTIVE
    assert book.state.peak == of(outputs, Equity)[-1].equity
    book.take(snapshot(5, {"A": 80.0, "B": 50.0}))
    assert [a.state for a in of(book.outputs, RiskAlert)] == ["REDUCING", "ACTIVE", "REDUCING"]


def test_a_daily_loss_is_alerted_once_a_day_and_denies() -> None:
    limits = LimitsSpec(max_daily_loss=Decimal(100))
    book = Book(plan("s", {0: [("A", 0.5, None, 1)], 3: [("B", 0.1, None, 1)]}), limits=limits)
    closes = {0: 100.0, 1: 100.0, 2: 99.0, 3: 98.0}
    wide = {"volume": 100_000.0}
    book.take(*(snapshot(m, {"A": close, "B": 50.0}, bars=wide) for m, close in closes.items()))
    (alert,) = of(book.outputs, RiskAlert)
    assert (alert.kind, alert.limit, alert.start) == (AlertKind.LIMIT, "max_daily_loss", DAY0 + 2 * MINUTE)
    assert of(book.outputs, Execution)[-1].limit == "max_daily_loss"
    midnight = (DAY_US - DAY0 % DAY_US) // MINUTE  # the bar that ends at midnight is the new day's first
    fallen = [snapshot(midnight - 1 + m, {"A": 98.0 - m, "B": 50.0}, bars=wide) for m in range(3)]
    outputs = book.take(*fallen)
    assert [alert.start for alert in of(outputs, RiskAlert)] == [fallen[1].start]
    assert [metrics.daily_loss > 0 for metrics in of(outputs, RiskMetrics)] == [False, True, True]


def places(book: Book) -> list[tuple[str, int, int]]:
    return [
        (alert.id, alert.start if alert.start == NEVER else (alert.start - DAY0) // MINUTE, alert.ordinal)
        for alert in of(book.outputs, RiskAlert)
    ]


HALT, GO = TradingState.HALTED, TradingState.ACTIVE


def test_commands_hold_where_they_lie_or_wait_for_their_place() -> None:
    book = Book(plan("s", {}))
    book.take(command("early", GO), command("waits", HALT, (4, 2)), command("twice", GO, (4, 0)))
    book.take(command("twice", HALT, (0, 0)), snapshot(1), command("here", GO), command("past", HALT, (0, 7)))
    book.take(snapshot(5), command("then", HALT), command("now", GO, (5, 9)))
    assert places(book) == [
        ("early", NEVER, 0),
        ("here", 1, 0),
        ("past", 1, 1),
        ("twice", 5, 0),
        ("waits", 5, 1),
        ("then", 5, 2),
        ("now", 5, 3),
    ]
    assert book.state.kept == []


def test_an_ordinal_asked_for_is_given_unless_it_is_taken() -> None:
    book = Book(plan("s", {}))
    book.take(command("c1", HALT, (4, 2)), command("c3", HALT, (4, 2)), snapshot(4), command("c2", GO))
    assert places(book) == [("c1", 4, 2), ("c3", 4, 3), ("c2", 4, 4)]


COMMANDS = st.lists(
    st.tuples(
        st.sampled_from(list(TradingState)), st.none() | st.tuples(st.integers(0, 7), st.integers(0, 3))
    ),
    max_size=6,
)


@settings(deadline=None)
@given(COMMANDS, st.lists(st.integers(0, 6), min_size=6, max_size=6))
def test_a_replay_by_recorded_places_applies_the_same_commands_in_the_same_order(
    given_: list[tuple[TradingState, tuple[int, int] | None]], cuts: list[int]
) -> None:
    values: list[tuple[int, Record]] = [(minute * 2 + 1, snapshot(minute)) for minute in range(8)]
    values += [
        (cut * 2, command(f"c{i}", state, after))
        for i, ((state, after), cut) in enumerate(zip(given_, cuts, strict=False))
    ]
    live = Book(plan("s", {}))
    live.take(*(value for _, value in sorted(values, key=lambda pair: pair[0])))
    recorded = of(live.outputs, RiskAlert)
    replay = Book(plan("s", {}))
    replay.take(
        *(
            command(alert.id, alert.state, after=None, issued_at=DAY0)
            if alert.start == NEVER
            else msgspec.structs.replace(
                command(alert.id, alert.state), after=Place(start=alert.start, ordinal=alert.ordinal)
            )
            for alert in recorded
        )
    )
    replay.take(*map(snapshot, range(8)))
    assert of(replay.outputs, RiskAlert) == recorded


def test_before_any_snapshot_an_alert_has_the_time_of_its_command() -> None:
    (output,) = Book(plan("s", {})).take(command("c", HALT, issued_at=DAY0 + 5))
    assert isinstance(output.value, RiskAlert)
    assert (output.event_time, output.value.event_time, output.value.start) == (DAY0 + 5, DAY0 + 5, NEVER)


# --- what is refused


def broken(**over: Any) -> Bar:
    return examples.bar("A", **over)


def with_bar(bar: Bar) -> Record:
    first, second = snapshot(0).rows
    return snapshot(0, rows=(msgspec.structs.replace(first, bar=bar), second))


def with_spread(spread_bps: float) -> Record:
    first, second = snapshot(0).rows
    quote = examples.quote_bar("A", spread_bps=spread_bps)
    return snapshot(0, rows=(msgspec.structs.replace(first, quote=quote), second))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Unreadable(Reason.UNKNOWN_SCHEMA, "no id 77"), Reason.UNKNOWN_SCHEMA),
        (None, Reason.WRONG_SCHEMA),
        (examples.tick(), Reason.WRONG_SCHEMA),
        (examples.settings(version=2), Reason.SETTINGS_CHANGED),
        (snapshot(0, portfolio="nobody"), Reason.UNDECLARED_KEY),
        (snapshot(0, universe="u2"), Reason.UNDECLARED_KEY),
        (snapshot(0, {"A": 1.0, "C": 1.0}), Reason.UNDECLARED_KEY),
        (snapshot(0, rows=snapshot(0).rows[::-1]), Reason.WRONG_SCHEMA),
        (snapshot(0, covariance=(1.0,)), Reason.WRONG_SCHEMA),
        (snapshot(0, covariance=(1.0, float("nan"), 1.0)), Reason.WRONG_SCHEMA),
        (with_bar(broken(close=float("inf"))), Reason.BAD_PRICE),
        (with_bar(broken(open=0.0)), Reason.BAD_PRICE),
        (with_bar(broken(volume=-1.0)), Reason.BAD_SIZE),
        (with_bar(broken(volume=1e300)), Reason.BAD_SIZE),
        (with_spread(-1.0), Reason.BAD_PRICE),
        (with_spread(float("nan")), Reason.BAD_PRICE),
        (command("c", HALT, (0, -1)), Reason.WRONG_SCHEMA),
        (
            Answer(portfolio="alpha", id="a", order_id="o", state=OrderState.FILLED, event_time=0),
            Reason.WRONG_SCHEMA,
        ),
    ],
)
def test_bad_input_is_dead_lettered_whole_and_its_neighbours_are_processed(
    value: Record | Unreadable | None, reason: Reason
) -> None:
    book = Book(plan("s", {0: [("A", 0.1, None, 1)]}))
    raw = b"raw"
    refused = item(1, None)._replace(
        value=value, raw=raw, key=str(getattr(value, "portfolio", "alpha")).encode()
    )
    good = item(2, snapshot(1))
    outputs, touched = book.agent.step(WHERE, book.partition, book.keys, [refused, good])
    (letter,) = of(outputs, DeadLetter)
    assert (letter.reason, letter.value, letter.input) == (reason, raw, "portfolio.events/1/1")
    assert touched == {"alpha"}
    assert book.state.last_start == snapshot(1).start


def test_a_record_under_a_foreign_key_is_refused() -> None:
    book = Book(plan("s", {}))
    inputs = [item(1, snapshot(0))._replace(key=key) for key in (b"beta", b"\xff", None)]
    outputs, touched = book.agent.step(WHERE, book.partition, book.keys, inputs)
    assert [letter.reason for letter in of(outputs, DeadLetter)] == [Reason.BAD_KEY] * 3
    assert not touched


def test_nothing_is_decided_before_the_settings_which_may_come_twice() -> None:
    with pytest.raises(SettingsMissing):
        Portfolios(load).step(WHERE, PortfoliosPartition(), {}, [item(0, snapshot(0))])
    book = Book(plan("s", {}))
    assert book.take(book.settings) == []


def test_a_raised_epoch_starts_the_portfolio_anew() -> None:
    book = Book(plan("s", {0: [("A", 0.1, None, 1)]}))
    book.take(snapshot(0), snapshot(1))
    again = Book(plan("s", {}), epoch=2)
    again.keys = book.keys
    (equity,) = of(again.take(snapshot(0)), Equity)
    assert (equity.epoch, equity.equity, equity.fills) == (2, 100_000, 0)


# --- whatever happens

WEIGHTS = st.floats(-1.5, 1.5).map(lambda weight: round(weight, 3))
WISHES = st.dictionaries(
    st.integers(0, 11),
    st.lists(
        st.tuples(
            st.sampled_from("AB"),
            WEIGHTS,
            st.none() | st.sampled_from([95.0, 100.0, 104.0]),
            st.integers(1, 3),
        ),
        max_size=2,
        unique_by=lambda wish: wish[0],
    ),
)
MOVES = st.lists(st.floats(0.9, 1.1), min_size=12, max_size=12)


def events(moves: list[float], commands: list[tuple[int, TradingState]], quiet: set[int]) -> list[Record]:
    """Twelve snapshots on random walks, some with a carried symbol, with commands between them."""
    closes = {"A": 100.0, "B": 100.0}
    made: list[tuple[float, Record]] = []
    for minute, move in enumerate(moves):
        closes = {"A": closes["A"] * move, "B": closes["B"] * (2.0 - move)}
        stale = ["B"] if minute in quiet else []
        made.append((minute, snapshot(minute, closes, stale=stale, bars={"volume": 2000.0 + 500.0 * minute})))
    made += [(minute - 0.5, command(f"c{i}", state)) for i, (minute, state) in enumerate(commands)]
    return [record for _, record in sorted(made, key=lambda pair: pair[0])]


LIMITS = LimitsSpec(
    max_position=Decimal(700),
    max_order_notional=Decimal(60_000),
    max_position_notional=Decimal(65_000),
    max_leverage=Decimal("0.9"),
    max_daily_loss=Decimal(3_000),
    max_orders=3,
    order_window_us=2 * MINUTE,
    max_drawdown=Decimal("0.04"),
)
TRADING = st.lists(st.tuples(st.integers(0, 11), st.sampled_from(list(TradingState))), max_size=3)
QUIET = st.sets(st.integers(1, 11), max_size=4)


@settings(max_examples=60, deadline=None)
@given(WISHES, WISHES, MOVES, TRADING, QUIET)
def test_no_order_that_is_sent_breaches_a_limit_and_everything_adds_up(
    first: Any, second: Any, moves: list[float], commands: list[tuple[int, TradingState]], quiet: set[int]
) -> None:
    book = Book(plan("s", first), plan("t", second), limits=LIMITS)
    held: Counter[str] = Counter()
    opening, cash = Decimal(100_000), Decimal(100_000)
    resting: dict[str, Execution] = {}
    sent: list[int] = []
    loss, state = Decimal(0), TradingState.ACTIVE
    for event in events(moves, commands, quiet):
        closes = {row.symbol: Decimal(repr(row.bar.close)) for row in getattr(event, "rows", ())}
        for value in (output.value for output in book.take(event)):
            match value:
                case RiskAlert():
                    state = value.state
                case RiskMetrics():
                    loss = Decimal(repr(value.daily_loss))
                case Equity():
                    worth = sum(units * closes[symbol] for symbol, units in held.items())
                    assert value.cash == cash
                    assert abs(value.equity - cash - worth) < Decimal("0.0001")
                    assert value.equity == opening + value.realised + value.unrealised - value.fees
                    assert value.open_orders == len(resting)
                case Execution(state=OrderState.APPROVED):
                    check_sent(value, closes, held, resting, state, loss)
                    sent.append(value.event_time)
                    resting[value.order_id] = value
                case Execution():
                    if value.last_quantity:
                        units = value.last_quantity if value.side is Side.BUY else -value.last_quantity
                        held[value.symbol] += units
                        cash -= (units * value.last_price).quantize(Decimal("1e-9")) + value.fee
                    resting[value.order_id] = value
                    if value.state in TERMINAL:
                        del resting[value.order_id]
        if state is TradingState.HALTED:
            assert not resting
    for time in sent:
        assert sum(time - LIMITS.order_window_us < other <= time for other in sent) <= LIMITS.max_orders


def check_sent(
    order: Execution,
    closes: dict[str, Decimal],
    held: Counter[str],
    resting: dict[str, Execution],
    state: TradingState,
    loss: Decimal,
) -> None:
    """What the limits ask of an approved order, reckoned anew from the executions alone."""
    limit, limits = order.limit_price, LIMITS
    sign = 1 if order.side is Side.BUY else -1
    same = [o for o in resting.values() if (o.symbol, o.side) == (order.symbol, order.side)]
    furthest = sign * held[order.symbol] + sum(o.quantity - o.filled for o in same) + order.quantity
    price = max(closes[order.symbol], limit or Decimal(0))
    assert state is not TradingState.HALTED
    assert order.quantity * price <= limits.max_order_notional
    if furthest <= 0:
        return
    assert state is TradingState.ACTIVE
    assert furthest <= limits.max_position
    assert furthest * price <= limits.max_position_notional
    assert loss <= limits.max_daily_loss


@settings(max_examples=40, deadline=None)
@given(WISHES, MOVES, TRADING, QUIET, st.lists(st.integers(0, 15), max_size=5))
def test_however_it_is_cut_and_restarted_the_outputs_and_the_state_are_the_same(
    wishes: Any,
    moves: list[float],
    commands: list[tuple[int, TradingState]],
    quiet: set[int],
    cuts: list[int],
) -> None:
    sequence = events(moves, commands, quiet)
    whole, cut = (Book(plan("s", wishes, fails_at=5), limits=LIMITS) for _ in range(2))
    whole.take(*sequence)
    bounds = [0, *sorted(min(c, len(sequence)) for c in cuts), len(sequence)]
    for begin, end in pairwise(bounds):
        cut.take(*sequence[begin:end])
        if end:
            cut.restart()
    assert bodies(cut.outputs) == bodies(whole.outputs)
    assert encode_body(CHANGELOG, cut.state) == encode_body(CHANGELOG, whole.state)


def test_the_precision_that_a_caller_has_set_changes_nothing() -> None:
    def outputs() -> list[tuple[str, str, bytes, int]]:
        book = Book(plan("s", {0: [("A", 0.123, None, 1)], 1: [("A", 0.0, None, 1)]}))
        book.take(*(snapshot(m, {"A": 97.31 + m / 7, "B": 50.0}) for m in range(4)))
        return bodies(book.outputs)

    usual = outputs()
    with localcontext(Context(prec=4)):
        assert outputs() == usual


def test_the_strategies_that_ship_trade_on_trends_and_bands() -> None:
    specs = [StrategySpec(name=name, uses=name, parameters="{}") for name in ("momentum", "reversion")]
    book = Book(*specs)
    book.agent = Portfolios()
    for minute in range(200):
        closes = {symbol: walk(minute, symbol) for symbol in "AB"}
        book.take(snapshot(minute, closes, bars={"volume": 50_000.0}))
    fills = Counter(
        execution.strategy for execution in of(book.outputs, Execution) if execution.last_quantity
    )
    assert fills["momentum"] >= 10
    assert fills["reversion"] >= 10
    assert of(book.outputs, DeadLetter) == []
