"""The interface of a strategy: parameters and state declared as Structs, and a pure ``on_snapshot``.

A strategy in full:

    class Dip(Strategy):
        class Parameters(msgspec.Struct, frozen=True):
            fall: float = 0.002

        class State(msgspec.Struct):
            highs: dict[str, float] = {}

        inputs = frozenset({"bars"})

        def on_snapshot(self, state, view):
            targets = []
            for symbol, row in view.rows.items():
                high = max(state.highs.get(symbol, 0.0), row.close)
                state.highs[symbol] = high
                if row.close < high * (1 - self.parameters.fall):
                    targets.append(Target(symbol, weight=0.1, reason="dip"))
            return state, targets

What it is given and gives back is checked; one that raises or answers rubbish keeps its state of before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.records import Bar, OrderType, Regime
from streams.errors import UndeclaredInput

INPUTS = frozenset({"bars", "regimes", "covariance"})
"""What a strategy may ask to see."""

P = TypeVar("P", bound=msgspec.Struct)
S = TypeVar("S", bound=msgspec.Struct)


class Target(msgspec.Struct, frozen=True):
    """What a strategy wants to hold of one symbol. A symbol without a target is left as it is.

    ``weight`` is the wanted notional over the portfolio's equity, negative for a short position; it counts
    what this strategy holds, not what its portfolio holds. ``good_for`` is the number of snapshots for which
    a limit order may rest. ``figures`` are recorded with the signal.
    """

    symbol: str
    weight: float
    reason: str
    order_type: OrderType = OrderType.MARKET
    limit_price: float | None = None
    good_for: int = 1
    figures: Mapping[str, float] = {}


class Row(msgspec.Struct, frozen=True):
    """One symbol in a view. ``stale``: it had no bar of its own in this snapshot, its last one is carried."""

    symbol: str
    stale: bool
    close: float
    _bar: Bar
    _regime: Regime | None
    _inputs: frozenset[str]

    @property
    def bar(self) -> Bar:
        """The latest bar; UndeclaredInput without "bars" among the strategy's inputs."""
        _require("bars", self._inputs)
        return self._bar

    @property
    def regime(self) -> Regime | None:
        """The regime on that bar, if one is computed for its kind; UndeclaredInput without "regimes"."""
        _require("regimes", self._inputs)
        return self._regime


class View(msgspec.Struct, frozen=True):
    """What a strategy sees of a snapshot, and of itself.

    ``rows`` are in the order of their symbols. ``equity`` is the portfolio's, in its currency; ``positions``
    are what this strategy holds and ``pending`` what its open orders would add, both signed and in units.
    """

    start: int
    end: int
    rows: Mapping[str, Row]
    equity: float
    positions: Mapping[str, float]
    pending: Mapping[str, float]
    _covariance: NDArray[np.float64]
    _inputs: frozenset[str]

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Of log returns per bar, shape (n, n) in the order of ``rows``; UndeclaredInput without
        "covariance".
        """
        _require("covariance", self._inputs)
        return self._covariance

    def weight(self, symbol: str) -> float:
        """What this strategy will hold of ``symbol`` once its open orders are filled, as a share of
        equity.
        """
        if self.equity <= 0.0:
            return 0.0
        units = self.positions.get(symbol, 0.0) + self.pending.get(symbol, 0.0)
        return units * self.rows[symbol].close / self.equity


class Strategy(ABC, Generic[P, S]):
    """Base of all strategies; an instance holds its parameters and nothing else.

    ``Parameters`` is a frozen Struct whose fields all have defaults; the settings override them. ``State`` is
    a Struct that can be made without arguments, of the field types that `streams.signals.envelope` lists.
    ``inputs`` are a subset of `INPUTS`: nothing else can be read.
    """

    Parameters: type[P]
    State: type[S]
    inputs: ClassVar[frozenset[str]] = frozenset({"bars"})

    def __init__(self, parameters: P) -> None:
        self.parameters = parameters

    @property
    def warm_up(self) -> int:
        """Snapshots that the state needs: before, ``on_snapshot`` is called and its targets are not acted
        upon.
        """
        return 0

    @abstractmethod
    def on_snapshot(self, state: S, view: View) -> tuple[S, Sequence[Target]]:
        """The state after ``view`` and what is wanted now.

        A function of its arguments and the parameters alone: no clock, randomness, I/O or globals. ``state``
        is the strategy's own copy and may be changed in place.
        """


def _require(name: str, inputs: frozenset[str]) -> None:
    if name not in inputs:
        raise UndeclaredInput(
            f"{name!r} is not among the strategy's inputs ({', '.join(sorted(inputs)) or 'none'})"
        )
