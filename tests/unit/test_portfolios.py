"""The portfolios agent: decisions in order, what is refused, nothing lost between runs."""

from __future__ import annotations

from collections import Counter
from decimal import Context, Decimal, localcontext
from typing import Any

import msgspec
import pytest

from schemas.codec import Unreadable, encode_body
from schemas.records import (
    AlertKind,
    Answer,
    Bar,
    DeadLetter,
    Equity,
    Execution,
    LimitsSpec,
    OrderState,
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
from schemas.states import PortfoliosPartition
from streams.desk import DAY_US
from streams.errors import SettingsMissing
from streams.portfolios import Portfolios
from tests import examples
from tests.examples import DAY0, MINUTE
from tests.scripted import WHERE, Book, bodies, load, plan
from tests.snapshots import command, item, of, snapshot, walk

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
        (command("c", TradingState.HALTED, (0, -1)), Reason.WRONG_SCHEMA),
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
