"""Mean reversion within Bollinger bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.records import Label, OrderType, Regime
from streams.signals.strategy import Row, Strategy, Target, View

_STAND_ASIDE = frozenset({Label.TRENDING, Label.CRISIS})


class ReversionParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Of `Reversion`."""

    gross: Annotated[float, Meta(gt=0, le=10)] = 0.5
    """sum of the absolute weights when every symbol is held"""
    rests_for: Annotated[int, Meta(ge=1)] = 2
    """snapshots for which a limit order rests"""
    max_hold: Annotated[int, Meta(ge=1)] = 60
    """bars after which a position that has not come back is left"""


class ReversionState(msgspec.Struct):
    """Of `Reversion`: for how many bars each symbol has been held."""

    held_for: dict[str, int] = {}


class Reversion(Strategy[ReversionParameters, ReversionState]):
    """Buys below the lower band, sells above the upper, and leaves at the middle.

    The bands are those of the regime record (Bollinger, *Bollinger on Bollinger Bands*, 2001: a moving
    average and two standard deviations about it). Entries and exits are limit orders at the close, so they
    fill only if the next bars trade through it. In a TRENDING or CRISIS regime, where prices run away from
    their average, it stands aside: nothing is entered, and what is held is left by a market order, as is what
    has not come back in time.
    """

    Parameters = ReversionParameters
    State = ReversionState
    inputs = frozenset({"bars", "regimes"})

    def on_snapshot(self, state: ReversionState, view: View) -> tuple[ReversionState, Sequence[Target]]:
        """See `Strategy.on_snapshot`."""
        targets = []
        size = self.parameters.gross / len(view.rows)
        for symbol, row in view.rows.items():
            if row.stale:
                continue
            held = view.positions.get(symbol, 0.0)
            held_for = state.held_for[symbol] = state.held_for.get(symbol, 0) + 1 if held else 0
            regime = row.regime
            if regime is None or not regime.warm:
                continue
            if held and (regime.label in _STAND_ASIDE or held_for > self.parameters.max_hold):
                why = f"the market is {regime.label}" if regime.label in _STAND_ASIDE else "held for too long"
                targets.append(Target(symbol, 0.0, why, figures=_figures(regime)))
            elif regime.label not in _STAND_ASIDE:
                targets.extend(self._within_bands(symbol, row, regime, held, size))
        return state, targets

    def _within_bands(
        self, symbol: str, row: Row, regime: Regime, held: float, size: float
    ) -> Sequence[Target]:
        bands = regime.indicators
        close = row.close
        if close <= bands.band_lower and held <= 0:
            weight, why = size, "below the lower band"
        elif close >= bands.band_upper and held >= 0:
            weight, why = -size, "above the upper band"
        elif (held > 0 and close >= bands.band_middle) or (held < 0 and close <= bands.band_middle):
            weight, why = 0.0, "back at the middle"
        else:
            return ()
        return (
            Target(
                symbol,
                weight,
                why,
                order_type=OrderType.LIMIT,
                limit_price=close,
                good_for=self.parameters.rests_for,
                figures=_figures(regime),
            ),
        )


def _figures(regime: Regime) -> dict[str, float]:
    bands = regime.indicators
    return {"lower": bands.band_lower, "middle": bands.band_middle, "upper": bands.band_upper}
