"""The portfolios agent on any wishes, walks and commands: limits hold, sums add up, and a cut changes nothing."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import encode_body
from schemas.records import (
    Equity,
    Execution,
    LimitsSpec,
    OrderState,
    Record,
    RiskAlert,
    RiskMetrics,
    Side,
    TradingState,
)
from streams.pretrade.lifecycle import TERMINAL
from tests.examples import MINUTE
from tests.scripted import CHANGELOG, Book, bodies, plan
from tests.snapshots import command, snapshot

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
