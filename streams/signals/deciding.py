"""The signals stage: shows a strategy its view and checks what it answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal, localcontext
from types import MappingProxyType
from typing import Any, TypeGuard

from schemas.records import OrderType, Snapshot
from schemas.states import StrategyState
from streams.correlations import packed
from streams.errors import BadDecision
from streams.positions.money import MAX_PRICE
from streams.signals.envelope import StateCodec
from streams.signals.strategy import Row, Strategy, Target, View

MAX_WEIGHT = 100.0
"""A wish for more than this many times the equity is taken for a mistake."""
_SMALLEST_PRICE = 1e-9


class Views:
    """The views of one snapshot; strategies with the same inputs share what they may not change anyway."""

    def __init__(self, snapshot: Snapshot, equity: Decimal) -> None:
        self._snapshot = snapshot
        self._equity = float(equity)
        self._rows: dict[frozenset[str], Mapping[str, Row]] = {}
        self._covariance = packed.unpack(snapshot.covariance, len(snapshot.rows))
        self._covariance.flags.writeable = False

    def of(self, inputs: frozenset[str], held: Mapping[str, Decimal], pending: Mapping[str, Decimal]) -> View:
        """What a strategy with ``inputs`` sees that holds and waits for so many units by symbol."""
        rows = self._rows.get(inputs)
        if rows is None:
            rows = self._rows[inputs] = MappingProxyType(
                {
                    row.symbol: Row(row.symbol, row.stale, row.bar.close, row.bar, row.regime, inputs)
                    for row in self._snapshot.rows
                }
            )
        return View(
            self._snapshot.start,
            self._snapshot.end,
            rows,
            self._equity,
            MappingProxyType({symbol: float(units) for symbol, units in held.items()}),
            MappingProxyType({symbol: float(units) for symbol, units in pending.items()}),
            self._covariance,
            inputs,
        )


class Decider:
    """One strategy of a portfolio and the codec of its state."""

    def __init__(self, name: str, strategy: Strategy[Any, Any]) -> None:
        self.name = name
        self.inputs = frozenset(strategy.inputs)
        self._strategy = strategy
        self._codec: StateCodec[Any] = StateCodec(name, strategy.State)

    def new_state(self) -> StrategyState:
        """The envelope of a strategy that has seen nothing yet."""
        return self._codec.new(self.name)

    def step(self, envelope: StrategyState, view: View, *, warm: bool) -> tuple[Target, ...]:
        """What the strategy wants after ``view``; nothing as long as it, or the covariance it reads, is not
        warm.

        The strategy gets a copy of its state, which replaces that in ``envelope`` only once all of the answer
        has been checked: whatever is raised here, the envelope is as it was. Raises what the strategy raises,
        BadDecision for an answer that cannot be used, and StateMismatch.
        """
        state_before = self._codec.read(envelope)
        with localcontext():  # a strategy that sets its precision does not set ours
            answer = self._strategy.on_snapshot(state_before, view)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise BadDecision(f"on_snapshot must return (state, targets), not {type(answer).__name__}")
        state, wanted = answer
        if type(state) is not self._strategy.State:
            raise BadDecision(f"the state returned is a {type(state).__name__}, not the strategy's State")
        targets = tuple(_checked(target, view) for target in wanted)
        if len({target.symbol for target in targets}) < len(targets):
            raise BadDecision("more than one target for a symbol")
        ready = envelope.snapshots + 1 >= self._strategy.warm_up and (warm or "covariance" not in self.inputs)
        self._codec.write(envelope, state)
        envelope.snapshots += 1
        return targets if ready else ()


def _checked(target: Any, view: View) -> Target:
    """``target`` with plain floats; raises BadDecision where it cannot be carried out."""
    if not isinstance(target, Target):
        raise BadDecision(f"a target must be a headrace.Target, not {type(target).__name__}")
    symbol = target.symbol
    if symbol not in view.rows:
        raise BadDecision(f"target for {symbol!r}, which is not in the snapshot")
    if not (_is_number(target.weight) and abs(target.weight) <= MAX_WEIGHT):
        raise BadDecision(f"{symbol}: weight {target.weight!r} is not a number within ±{MAX_WEIGHT:g}")
    if target.order_type is OrderType.LIMIT:
        if not (_is_number(target.limit_price) and _SMALLEST_PRICE <= target.limit_price <= MAX_PRICE):
            raise BadDecision(
                f"{symbol}: a limit order needs a positive limit_price, not {target.limit_price!r}"
            )
    elif target.order_type is not OrderType.MARKET or target.limit_price is not None:
        raise BadDecision(f"{symbol}: a limit_price is for order_type=LIMIT")
    if not (isinstance(target.good_for, int) and 1 <= target.good_for < 2**31):
        raise BadDecision(f"{symbol}: good_for must be a whole number from 1 on, not {target.good_for!r}")
    if not isinstance(target.reason, str):
        raise BadDecision(f"{symbol}: the reason must be a text, not {target.reason!r}")
    figures = {str(name): float(value) for name, value in target.figures.items()}
    limit = None if target.limit_price is None else float(target.limit_price)
    return Target(
        symbol, float(target.weight), target.reason, target.order_type, limit, target.good_for, figures
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
