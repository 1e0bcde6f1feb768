"""The pre-trade check lets no breach of a hard limit through; an order's life goes by its table."""

from __future__ import annotations

from decimal import Decimal
from itertools import chain, combinations
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schemas.records import LimitsSpec, OrderState, OrderType, Side, TradingState
from schemas.states import HoldingState, OpenOrder
from streams.pretrade.lifecycle import TERMINAL, TRANSITIONS, Event, advance
from streams.pretrade.limits import Denial, Proposal, Standing, check
from tests import examples

CLOSES = {"A": Decimal(100), "B": Decimal("49.5")}


def open_order(symbol: str, side: Side, quantity: int, state: OrderState = OrderState.ACCEPTED) -> OpenOrder:
    return OpenOrder(
        order_id="o",
        strategy="s",
        symbol=symbol,
        side=side,
        order_type=OrderType.MARKET,
        quantity=Decimal(quantity + 5),
        reference_price=Decimal(1),
        filled=Decimal(5),
        cost=Decimal(5),
        fees=Decimal(0),
        events=3,
        state=state,
        decided_on=examples.DAY0,
        rests_for=1,
    )


def standing(
    held: dict[str, int] | None = None,
    orders: list[OpenOrder] | None = None,
    **over: Any,
) -> Standing:
    given_: dict[str, Any] = {
        "state": TradingState.ACTIVE,
        "equity": Decimal(10_000),
        "daily_loss": Decimal(0),
        "holdings": [
            HoldingState(
                symbol=symbol,
                quantity=Decimal(units),
                cost=Decimal(0),
                realised=Decimal(0),
                fees=Decimal(0),
                last_price=Decimal(7),
            )
            for symbol, units in (held or {}).items()
        ],
        "orders": orders or [],
        "closes": CLOSES,
        "order_times": [],
    }
    return Standing(**(given_ | over))


def proposal(side: Side, quantity: int, limit: int | None = None, symbol: str = "A") -> Proposal:
    return Proposal(symbol, side, Decimal(quantity), None if limit is None else Decimal(limit))


BUY_10 = proposal(Side.BUY, 10)
SELL_10 = proposal(Side.SELL, 10)


@pytest.mark.parametrize(
    ("limits", "stands", "order", "figure", "reason"),
    [
        ({"max_position": 25}, {"held": {"A": 16}}, BUY_10, "26", "max_position 25: A could reach 26"),
        ({"max_position": 25}, {"held": {"A": -16}}, SELL_10, "26", "max_position 25: A could reach 26"),
        (
            {"max_position": 25},
            {"held": {"A": 6}, "orders": [open_order("A", Side.BUY, 10)]},
            BUY_10,
            "26",
            "max_position 25: A could reach 26",
        ),
        (
            {"max_order_notional": 999},
            {"held": {"A": -50}},
            BUY_10,
            "1000",
            "max_order_notional 999: order would be 1000",
        ),
        (
            {"max_order_notional": 1049},
            {},
            proposal(Side.SELL, 10, limit=105),
            "1050",
            "max_order_notional 1049: order would be 1050",
        ),
        (
            {"max_position_notional": 1500},
            {"held": {"A": 6}},
            BUY_10,
            "1600",
            "max_position_notional 1500: A could reach 1600",
        ),
        (
            {"max_leverage": Decimal("0.5")},
            {"held": {"B": -60}, "orders": [open_order("B", Side.SELL, 30)]},
            BUY_10,
            "0.5455",
            "max_leverage 0.5: leverage could reach 0.5455",
        ),
        (
            {"max_leverage": Decimal("0.5")},
            {"held": {"A": -60}},
            proposal(Side.BUY, 70),
            "0.6",
            "max_leverage 0.5: leverage could reach 0.6",
        ),
        ({"max_leverage": 2}, {"equity": Decimal(-3)}, BUY_10, "-3", "max_leverage 2: equity is -3"),
        (
            {"max_daily_loss": 100},
            {"daily_loss": Decimal("100.01")},
            BUY_10,
            "100.01",
            "max_daily_loss 100: the day's loss is 100.01",
        ),
        (
            {"max_orders": 2, "order_window_us": 60_000_000},
            {"order_times": [1, 2]},
            BUY_10,
            "3",
            "max_orders 2: order 3 within 60 s",
        ),
    ],
)
def test_each_limit_denies_and_names_itself_its_value_and_the_figure(
    limits: dict[str, Any], stands: dict[str, Any], order: Proposal, figure: str, reason: str
) -> None:
    name = next(iter(limits))
    typed = {
        key: value if key in ("max_orders", "order_window_us") else Decimal(value)
        for key, value in limits.items()
    }
    denial = check(LimitsSpec(**typed), standing(**stands), order)
    assert denial == Denial(name, Decimal(limits[name]), Decimal(figure), reason)
    loosened = {name: typed[name] + 1 if name == "max_orders" else Decimal(figure).copy_abs() + 1}
    if "equity" not in stands:
        assert check(LimitsSpec(**(typed | loosened)), standing(**stands), order) is None


@pytest.mark.parametrize(
    ("state", "held", "order", "denied"),
    [
        (TradingState.HALTED, 50, SELL_10, True),
        (TradingState.HALTED, 0, BUY_10, True),
        (TradingState.REDUCING, 50, SELL_10, False),
        (TradingState.REDUCING, -50, BUY_10, False),
        (TradingState.REDUCING, 10, SELL_10, False),
        (TradingState.REDUCING, 9, SELL_10, True),
        (TradingState.REDUCING, 0, SELL_10, True),
        (TradingState.REDUCING, 50, BUY_10, True),
        (TradingState.ACTIVE, 0, BUY_10, False),
    ],
)
def test_the_trading_state_decides_first(
    state: TradingState, held: int, order: Proposal, denied: bool
) -> None:
    denial = check(LimitsSpec(), standing({"A": held}, state=state), order)
    assert (denial is not None) == denied
    assert denial is None or (denial.limit == "trading_state" and state in denial.reason)


def test_open_orders_use_up_what_may_be_reduced() -> None:
    stands = standing({"A": 15}, [open_order("A", Side.SELL, 10)], state=TradingState.REDUCING)
    assert check(LimitsSpec(), stands, proposal(Side.SELL, 5)) is None
    assert check(LimitsSpec(), stands, proposal(Side.SELL, 6)) is not None
    stands.closed(open_order("A", Side.SELL, 10))
    assert check(LimitsSpec(), stands, proposal(Side.SELL, 6)) is None


def test_a_reducing_order_passes_what_the_portfolio_is_already_over() -> None:
    over = LimitsSpec(
        max_position=Decimal(1),
        max_position_notional=Decimal(1),
        max_leverage=Decimal("0.01"),
        max_daily_loss=Decimal(1),
    )
    stands = standing({"A": 50}, daily_loss=Decimal(1000))
    assert check(over, stands, SELL_10) is None
    assert check(over, stands, BUY_10) is not None
    assert check(over, stands, proposal(Side.SELL, 51)) is not None


SIDES = st.sampled_from(list(Side))
SYMBOLS = st.sampled_from("AB")
OPTIONAL = st.none() | st.integers(1, 400)


@settings(deadline=None)
@given(
    held=st.dictionaries(SYMBOLS, st.integers(-60, 60)),
    orders=st.lists(st.builds(open_order, SYMBOLS, SIDES, st.integers(1, 60)), max_size=4),
    state=st.sampled_from(list(TradingState)),
    equity=st.integers(-50, 20_000),
    daily_loss=st.integers(-50, 50),
    sent=st.integers(0, 4),
    limits=st.builds(
        LimitsSpec,
        max_position=OPTIONAL.map(lambda n: n and Decimal(n) / 4),
        max_order_notional=OPTIONAL.map(lambda n: n and Decimal(n) * 10),
        max_position_notional=OPTIONAL.map(lambda n: n and Decimal(n) * 20),
        max_leverage=OPTIONAL.map(lambda n: n and Decimal(n) / 100),
        max_daily_loss=OPTIONAL.map(lambda n: n and Decimal(n) / 10),
        max_orders=st.none() | st.integers(1, 5),
    ),
    order=st.builds(proposal, SIDES, st.integers(1, 80), st.none() | st.integers(80, 120), SYMBOLS),
)
def test_whatever_fills_of_what_was_let_through_no_limit_is_breached(
    held: dict[str, int],
    orders: list[OpenOrder],
    state: TradingState,
    equity: int,
    daily_loss: int,
    sent: int,
    limits: LimitsSpec,
    order: Proposal,
) -> None:
    stands = standing(
        held,
        orders,
        state=state,
        equity=Decimal(equity),
        daily_loss=Decimal(daily_loss),
        order_times=[0] * sent,
    )
    assume(check(limits, stands, order) is None)
    close = CLOSES[order.symbol]
    price = max(close, order.limit_price or close)
    assert state is not TradingState.HALTED
    assert limits.max_orders is None or sent + 1 <= limits.max_orders
    assert limits.max_order_notional is None or order.quantity * price <= limits.max_order_notional

    def signed(side: Side, quantity: Decimal) -> Decimal:
        return quantity if side is Side.BUY else -quantity

    before = Decimal(held.get(order.symbol, 0))
    new = signed(order.side, order.quantity)
    others = [signed(o.side, o.quantity - o.filled) for o in orders if o.symbol == order.symbol]
    same_way = [amount for amount in others if amount * new > 0]
    subsets = list(chain.from_iterable(combinations(same_way, n) for n in range(len(same_way) + 1)))
    if all(
        abs(before + sum(s) + new) < abs(before + sum(s)) and before * (before + sum(s) + new) >= 0
        for s in subsets
    ):
        return  # it reduces, whatever fills before it: only the limits above hold
    assert state is TradingState.ACTIVE
    assert limits.max_daily_loss is None or daily_loss <= limits.max_daily_loss
    reached = [abs(before + sum(s) + new) for s in subsets if (before + sum(s) + new) * new > 0]
    furthest = max(reached, default=Decimal(0))
    assert limits.max_position is None or furthest <= limits.max_position
    assert limits.max_position_notional is None or furthest * price <= limits.max_position_notional
    if limits.max_leverage is not None:
        (other,) = CLOSES.keys() - {order.symbol}
        open_ = [signed(o.side, o.quantity - o.filled) for o in orders if o.symbol == other]
        longest = held.get(other, 0) + sum(amount for amount in open_ if amount > 0)
        shortest = held.get(other, 0) + sum(amount for amount in open_ if amount < 0)
        gross = furthest * price + max(longest, -shortest) * CLOSES[other]
        assert equity > 0
        assert gross <= limits.max_leverage * equity + Decimal("0.00001")


@settings(deadline=None)
@given(st.sampled_from(sorted(TERMINAL)), st.sampled_from(list(Event)))
def test_nothing_happens_to_an_order_that_has_ended(state: OrderState, event: Event) -> None:
    order = open_order("A", Side.BUY, 1, state)
    with pytest.raises(KeyError):
        advance(order, event)
    assert order.state is state


@settings(deadline=None)
@given(st.lists(st.sampled_from(list(Event)), max_size=12))
def test_every_life_goes_by_the_table_and_ends_at_most_once(events: list[Event]) -> None:
    order = open_order("A", Side.BUY, 1, OrderState.APPROVED)
    lived = [order.state]
    for event in events:
        if (order.state, event) in TRANSITIONS:
            advance(order, event)
            lived.append(order.state)
    assert not TERMINAL.intersection(lived[:-1])
    partial = [i for i, state in enumerate(lived) if state is OrderState.PARTIALLY_FILLED]
    assert not partial or OrderState.REJECTED not in lived[partial[0] :]


def test_every_state_is_born_or_reached_and_every_open_one_can_end() -> None:
    reached = set(TRANSITIONS.values()) | {OrderState.APPROVED, OrderState.DENIED}
    assert reached == set(OrderState)
    for state in set(OrderState) - TERMINAL:
        assert {after for (before, _), after in TRANSITIONS.items() if before is state} & TERMINAL
    assert not {before for before, _ in TRANSITIONS} & TERMINAL


def test_open_orders_are_valued_at_the_close() -> None:
    cheap = msgspec.structs.replace(open_order("A", Side.BUY, 10), reference_price=Decimal("0.01"))
    limits = LimitsSpec(max_leverage=Decimal("0.19"))
    denial = check(limits, standing(orders=[cheap]), BUY_10)
    assert denial is not None
    assert denial.figure == Decimal("0.2")
