"""The four states of a simulated symbol, and the Markov chain that moves it from one to the next."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.records import Label


class Behaviour(NamedTuple):
    """How a symbol moves in a regime.

    ``volatility`` multiplies the symbol's own; ``drift`` is the mean of a one-minute return in calm standard
    deviations (its sign is drawn at the start of the regime, but for a crisis: down); ``half_life_minutes``
    is that of the way back to the price at the start of the regime; ``jump`` is how far the price falls on
    entry, in calm standard deviations of a minute; ``activity`` multiplies the rate of trades.
    """

    label: Label
    dwell_minutes: float
    volatility: float
    drift: float
    half_life_minutes: float | None
    jump: float
    activity: float


BEHAVIOURS = (
    Behaviour(Label.TRENDING, 60.0, 0.8, 0.3, None, 0.0, 1.0),
    Behaviour(Label.RANGING, 60.0, 0.7, 0.0, 2.0, 0.0, 0.8),
    Behaviour(Label.CHOPPY, 45.0, 2.0, 0.0, 5.0, 0.0, 1.2),
    Behaviour(Label.CRISIS, 30.0, 8.0, -1.0, None, 8.0, 3.0),
)
"""A trend has direction, a range is narrow, chop is wide without direction, a crisis falls and shakes."""

CRISIS = 3
NEXT = (
    (0.00, 0.45, 0.35, 0.20),
    (0.45, 0.00, 0.35, 0.20),
    (0.40, 0.40, 0.00, 0.20),
    (0.20, 0.20, 0.60, 0.00),
)
"""Where the chain goes when it leaves a state (row), in the order of `BEHAVIOURS`."""

OPENING = (0.35, 0.35, 0.20, 0.10)
"""Chances of the states at the opening."""


def transition(dwell: float) -> NDArray[np.float64]:
    """The chain's matrix for one minute, (4, 4), rows sum to one; ``dwell`` stretches the mean stays."""
    matrix = np.array(NEXT)
    for state, behaviour in enumerate(BEHAVIOURS):
        leave = min(1.0, 1.0 / (behaviour.dwell_minutes * dwell))
        matrix[state] *= leave
        matrix[state, state] = 1.0 - leave
    return matrix


def column(name: str) -> NDArray[np.float64]:
    """One figure of every behaviour, (4,)."""
    return np.array([getattr(behaviour, name) for behaviour in BEHAVIOURS], dtype=np.float64)


def reversion_per_second() -> NDArray[np.float64]:
    """What remains of the distance to the anchor after a second, (4,): one where nothing pulls back."""
    return np.array(
        [
            1.0 if b.half_life_minutes is None else 0.5 ** (1.0 / (60.0 * b.half_life_minutes))
            for b in BEHAVIOURS
        ]
    )
