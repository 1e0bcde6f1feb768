"""Average-cost accounting: everything adds up to the last place, through zero and back."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Side
from schemas.states import HoldingState
from streams.positions import apply_fill, average_cost, equity, holding_of, mark, unrealised
from streams.positions.money import ARITHMETIC, from_float, rounded, shown, to_lots

Fill = tuple[str, Side, Decimal, Decimal, Decimal]

FILLS: st.SearchStrategy[list[Fill]] = st.lists(
    st.tuples(
        st.sampled_from("AB"),
        st.sampled_from(list(Side)),
        st.sampled_from([Decimal(1), Decimal("1.5"), Decimal(2)]) | st.decimals("0.001", "20000", places=3),
        st.decimals("0.000001", "90000", places=6),
        st.decimals("0", "99", places=4),
    ),
    max_size=30,
)
PRICES = st.fixed_dictionaries({symbol: st.decimals("0.01", "99999", places=2) for symbol in "AB"})


@settings(deadline=None)
@given(FILLS, PRICES)
def test_cash_positions_and_profit_add_up_exactly(fills: list[Fill], closes: dict[str, Decimal]) -> None:
    opening = Decimal("1000000.01")
    with localcontext(ARITHMETIC):
        holdings: list[HoldingState] = []
        cash = opening
        flows = Decimal(0)
        for symbol, side, quantity, price, fee in fills:
            cash += apply_fill(holding_of(holdings, symbol), side, quantity, price, fee)
            flows += (-1 if side is Side.BUY else 1) * rounded(quantity * price) - fee
        mark(holdings, closes)
        worth = equity(cash, holdings)
        realised = sum(holding.realised for holding in holdings)
        fees = sum(holding.fees for holding in holdings)
        assert cash == opening + flows
        assert worth == cash + sum(rounded(h.quantity * closes[h.symbol]) for h in holdings)
        assert worth == opening + realised + sum(map(unrealised, holdings)) - fees
        assert [h.symbol for h in holdings] == sorted({symbol for symbol, *_ in fills})
        for holding in holdings:
            if holding.quantity == 0:
                assert holding.cost == 0


@settings(deadline=None)
@given(FILLS)
def test_average_cost_and_realised_profit_equal_exact_fractions(fills: list[Fill]) -> None:
    with localcontext(ARITHMETIC):
        holding = holding_of([], "A")
        held, average, realised = Fraction(0), Fraction(0), Fraction(0)
        for _, side, quantity, price, _ in fills:
            apply_fill(holding, side, quantity, price, Decimal(0))
            signed = Fraction(quantity) * (1 if side is Side.BUY else -1)
            if held * signed >= 0:
                average = (held * average + signed * Fraction(price)) / (held + signed)
            else:
                closed = min(abs(signed), abs(held))
                realised += closed * (Fraction(price) - average) * (1 if held > 0 else -1)
                if abs(signed) > abs(held):
                    average = Fraction(price)
            held += signed
        assert holding.quantity == held
        assert abs(Fraction(holding.realised) - realised) < Fraction(1, 10**6)
        if held:
            assert abs(Fraction(holding.cost) - held * average) < Fraction(1, 10**6)


def test_a_fill_through_zero_realises_the_old_and_opens_the_new() -> None:
    holding = holding_of([], "A")
    apply_fill(holding, Side.BUY, Decimal(10), Decimal(100), Decimal(1))
    apply_fill(holding, Side.BUY, Decimal(10), Decimal(110), Decimal(1))
    assert average_cost(holding) == 105
    assert apply_fill(holding, Side.SELL, Decimal(30), Decimal(115), Decimal(2)) == 3450 - 2
    assert (holding.quantity, average_cost(holding), holding.realised) == (-10, 115, 200)
    mark([holding], {"A": Decimal(111)})
    assert (unrealised(holding), holding.fees) == (40, 4)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.1, "0.1"), (167.41, "167.41"), (1e-9, "1E-9"), (2.5e-10, "0"), (12345678.5, "12345678.5")],
)
def test_a_float_enters_as_its_shortest_text(value: float, expected: str) -> None:
    assert from_float(value) == Decimal(expected)


def test_lots_are_cut_towards_zero() -> None:
    assert [to_lots(Decimal(x), Decimal("0.5")) for x in ("1.7", "-1.7", "0.4")] == [
        Decimal("1.5"),
        Decimal("-1.5"),
        0,
    ]


def test_the_same_amount_is_shown_the_same() -> None:
    assert {shown(Decimal(text)) for text in ("5E+4", "50000", "50000.000000000")} == {"50000"}
