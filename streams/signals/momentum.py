"""Time-series momentum with volatility targeting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from streams.signals.strategy import Strategy, Target, View


class MomentumParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Of `Momentum`."""

    lookback: Annotated[int, Meta(ge=1)] = 60
    """bars over which the return is taken"""
    target_volatility: Annotated[float, Meta(gt=0)] = 0.15
    """per year, of each position on its own"""
    bars_per_year: Annotated[float, Meta(gt=0)] = 98_280.0
    """1-minute bars of 252 sessions of 6.5 hours"""
    max_weight: Annotated[float, Meta(gt=0, le=10)] = 1.0
    """largest weight before it is shared among the symbols"""
    rebalance: Annotated[float, Meta(ge=0)] = 0.5
    """change of the weight, as a share of the wanted one, below which nothing is traded"""


class MomentumState(msgspec.Struct):
    """Of `Momentum`: the last closes of each symbol, oldest first."""

    closes: dict[str, list[float]] = {}


class Momentum(Strategy[MomentumParameters, MomentumState]):
    """Long what has risen over the lookback, short what has fallen, each sized to the same volatility.

        weight = sign(close_t / close_(t-lookback) - 1) * min(target_volatility / volatility, max_weight) / n

    with n symbols and volatility = sqrt(variance per bar * bars_per_year) from the covariance's diagonal
    (Moskowitz, Ooi and Pedersen, Time series momentum, Journal of Financial Economics 104, 2012, section 4.1,
    equation 5; there monthly with a lookback of twelve months). Bars that a symbol lacks do not count. Market
    orders, and only when the weight is off by more than ``rebalance`` of what is wanted: a change of sign
    always is.
    """

    Parameters = MomentumParameters
    State = MomentumState
    inputs = frozenset({"bars", "covariance"})

    @property
    def warm_up(self) -> int:
        """The lookback and the bar it starts from."""
        return self.parameters.lookback + 1

    def on_snapshot(self, state: MomentumState, view: View) -> tuple[MomentumState, Sequence[Target]]:
        """See `Strategy.on_snapshot`."""
        given = self.parameters
        variances = view.covariance.diagonal().tolist()
        targets = []
        for (symbol, row), variance in zip(view.rows.items(), variances, strict=True):
            if row.stale:
                continue
            closes = state.closes.setdefault(symbol, [])
            closes.append(row.close)
            if len(closes) <= given.lookback:
                continue
            past = closes.pop(0)
            if row.close == past or variance <= 0.0:
                continue
            volatility = math.sqrt(variance * given.bars_per_year)
            size = min(given.target_volatility / volatility, given.max_weight) / len(view.rows)
            weight = math.copysign(size, row.close - past)
            if abs(weight - view.weight(symbol)) <= given.rebalance * size:
                continue
            change = row.close / past - 1.0
            targets.append(
                Target(
                    symbol,
                    weight,
                    f"{'up' if change > 0 else 'down'} over {given.lookback} bars",
                    figures={"return": change, "volatility": volatility},
                )
            )
        return state, targets
