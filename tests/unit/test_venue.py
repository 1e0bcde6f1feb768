"""The paper venue: at what price, how much, for what fee, and for how long."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import OrderState, OrderType, Side
from schemas.states import OpenOrder
from streams.positions.money import PLACES, rounded
from streams.venue import PaperBar, expires, match
from streams.venue.costs import fee_due
from tests import examples

LOT = Decimal(1)


def order(**over: Any) -> OpenOrder:
    base = OpenOrder(
        order_id="alpha/1/0/s/A/0",
        strategy="s",
        symbol="A",
        side=Side.BUY,
        order_type=OrderType.MARKET,
        quantity=Decimal(50),
        reference_price=Decimal(99),
        filled=Decimal(0),
        cost=Decimal(0),
        fees=Decimal(0),
        events=3,
        state=OrderState.ACCEPTED,
        decided_on=examples.DAY0,
        rests_for=2,
    )
    return msgspec.structs.replace(base, **over)


def limit(price: str, **over: Any) -> OpenOrder:
    return order(order_type=OrderType.LIMIT, limit_price=Decimal(price), **over)


def paper_bar(lot: Decimal = LOT, **over: Any) -> PaperBar:
    return PaperBar(examples.bar(**over), examples.venue(), lot)


def test_a_market_order_pays_half_the_spread_and_its_share_of_slippage() -> None:
    resting = order()
    fill = match(resting, paper_bar(open=100.0, volume=1000.0), examples.venue())
    assert fill is not None
    # 1 bp of half spread and 5 bp at a share of 50 / 1000
    assert fill.price == Decimal("100.0125")
    assert fill.slippage == Decimal("50.625")
    assert (resting.filled, resting.cost) == (50, Decimal("5000.625"))


def test_a_market_order_pays_half_the_spread_of_the_bars_quotes() -> None:
    bar = examples.bar(open=100.0, volume=1000.0)
    quotes = examples.quote_bar(spread_bps=30.0)
    fill = match(order(), PaperBar(bar, examples.venue(), LOT, quotes), examples.venue())
    assert fill is not None
    # 15 bp of half spread and 5 bp at a share of 50 / 1000
    assert fill.price == Decimal("100.1525")


def test_a_limit_order_knows_no_quotes() -> None:
    bar = PaperBar(examples.bar(low=98.0), examples.venue(), LOT, examples.quote_bar(spread_bps=500.0))
    fill = match(limit("99"), bar, examples.venue())
    assert fill is not None
    assert fill.price == 99


def test_the_widest_quotes_still_give_a_price() -> None:
    bar = PaperBar(examples.bar(open=100.0), examples.venue(), LOT, examples.quote_bar(spread_bps=20_000.0))
    fill = match(order(side=Side.SELL), bar, examples.venue())
    assert fill is not None
    assert fill.price == PLACES


def test_a_market_sell_is_worsened_downwards() -> None:
    fill = match(order(side=Side.SELL), paper_bar(open=100.0, volume=1000.0), examples.venue())
    assert fill is not None
    assert fill.price == Decimal("99.9875")
    assert fill.slippage == Decimal("-49.375")


def test_orders_share_a_tenth_of_the_volume_in_their_order_and_whole_lots() -> None:
    bar = paper_bar(lot=Decimal(10), volume=1290.0)
    first, second, third = order(quantity=Decimal(90)), order(quantity=Decimal(70)), order()
    assert match(first, bar, examples.venue()) is not None
    assert match(second, bar, examples.venue()) is not None
    assert match(third, bar, examples.venue()) is None
    assert (first.filled, second.filled) == (90, 30)
    assert match(second, paper_bar(), examples.venue()) is not None
    assert second.filled == 70


@pytest.mark.parametrize(
    ("side", "limit_price", "prices", "expected"),
    [
        (Side.BUY, "99", {"open": 100.0, "low": 98.5, "high": 101.0}, "99"),
        (Side.BUY, "99", {"open": 98.0, "low": 97.0, "high": 98.5}, "98"),
        (Side.BUY, "99", {"open": 100.0, "low": 99.0, "high": 101.0}, None),
        (Side.SELL, "101", {"open": 100.0, "low": 98.5, "high": 101.5}, "101"),
        (Side.SELL, "101", {"open": 102.0, "low": 101.5, "high": 103.0}, "102"),
        (Side.SELL, "101", {"open": 100.0, "low": 99.0, "high": 101.0}, None),
    ],
)
def test_a_limit_order_fills_when_the_bar_trades_through_it(
    side: Side, limit_price: str, prices: dict[str, float], expected: str | None
) -> None:
    fill = match(limit(limit_price, side=side), paper_bar(**prices), examples.venue())
    assert (fill and fill.price) == (expected and Decimal(expected))


def test_only_limit_orders_expire_and_only_what_is_left_of_them() -> None:
    resting = limit("1")
    assert [expires(resting) for _ in range(2)] == [False, True]
    assert not expires(limit("1", rests_for=1, filled=Decimal(50)))
    assert not any(expires(order(rests_for=1)) for _ in range(3))


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=8),
    st.decimals("0.01", "500", places=2),
    st.decimals("0", "20", places=2),
)
def test_the_fees_of_the_parts_are_the_fee_of_the_whole(
    parts: list[int], price: Decimal, minimum: Decimal
) -> None:
    spec = examples.venue(minimum_fee=minimum, fee_bps=Decimal("1.5"), participation=Decimal(1))
    resting = order(quantity=Decimal(sum(parts)))
    fees = []
    for part in parts:
        fill = match(resting, PaperBar(examples.bar(open=float(price), volume=float(part)), spec, LOT), spec)
        assert fill is not None
        fees.append(fill.fee)
    assert min(fees) >= 0
    assert fees[0] >= minimum
    assert sum(fees) == resting.fees == fee_due(spec, resting.quantity, resting.cost)
    exact = Decimal("0.00015") * resting.cost + Decimal("0.005") * resting.quantity
    assert resting.fees == max(minimum, rounded(exact))
