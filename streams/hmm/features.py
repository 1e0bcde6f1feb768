"""What the hidden Markov model sees of a bar: three numbers, each from the bar and a state of three floats."""

from __future__ import annotations

import math

from schemas.states import HmmState

FEATURES = ("log return", "log volatility", "efficiency")
_DECAY = 0.9
"""Of the drift and of its yardstick: a memory of some ten bars."""
_LEAST = 1e-12
"""Of a squared log range and of a mean absolute return, where nothing moves."""


def follow(state: HmmState, high: float, low: float, close: float) -> tuple[float, float, float] | None:
    """The features of the next bar, whose prices are > 0; None for the first, which has no return.

    - *log return*: ln(close / close before);
    - *log volatility*: the logarithm of Parkinson's (1980) estimate from the bar's range, sqrt(ln(H/L)^2 / (4 ln 2));
    - *efficiency*: |m| / s, in [0, 1], of m the exponentially weighted mean of the log returns and s that of their
      absolute values: 1 where every move goes one way, near 0 where they cancel out (after Kaufman 1995).

    ``state`` moves on in place.
    """
    before, state.close = state.close, close
    if before is None:
        return None
    moved = math.log(close / before)
    state.drift = _DECAY * state.drift + (1.0 - _DECAY) * moved
    state.pace = _DECAY * state.pace + (1.0 - _DECAY) * abs(moved)
    spread = math.log(high / low)
    volatility = 0.5 * math.log(max(spread * spread, _LEAST) / (4.0 * math.log(2.0)))
    return moved, volatility, abs(state.drift) / max(state.pace, _LEAST)
