"""Imbalance bars: a bar is closed when buys and sells differ by more than was expected.

López de Prado, Advances in Financial Machine Learning (Wiley 2018), section 2.3.2.1 and 2.3.2.2. With b_t the side of
tick t (1, −1; 0 before the first change of price), and w_t its weight (1; its size; its price times its size):

    θ = Σ w_t [b_t = 1] − Σ w_t [b_t = −1]                      over the T ticks of the bar so far
    closed when  |θ| ≥ E₀[T] · |E₀[bw]|  and  θ ≠ 0,   or  T ≥ 10·T₀

The expectations are exponential averages over the closed bars; with α = 2 / (span + 1), after each bar

    E₀[T]  ← E₀[T] + α (T − E₀[T]),  then held within T₀/10 … 10·T₀
    E₀[bw] ← E₀[bw] + α (θ/T − E₀[bw])

The first bar is closed by its T₀-th tick and sets E₀[T] = T₀, E₀[bw] = θ/T₀.

The book leaves open what E₀[T] may become and averages b_t w_t over ticks. Both are decided here. Its rule feeds on
itself: short bars lower the expectation until every tick is a bar; one block trade raises it until no bar closes
again. Hence the bounds on E₀[T] and the longest bar.
"""

from __future__ import annotations

from typing import Any, Final

from schemas.compiled import kernel
from streams.bars.kinds import Measure

Row = Any

BOUND: Final = 10.0
"""Most that a bar, and what is expected of one, may be longer than T₀; the expectation also shorter."""

_TICKS: Final = int(Measure.TICKS)
_VOLUME: Final = int(Measure.VOLUME)


@kernel
def weigh(kind: Row, builder: Row, side: int, size: float, notional: float) -> None:
    """Add a tick to the sums of its side; imbalance and run bars share them."""
    weight = 1.0 if kind.measure == _TICKS else size if kind.measure == _VOLUME else notional
    if side > 0:
        builder.buys += 1
        builder.bought += weight
    elif side < 0:
        builder.sells += 1
        builder.sold += weight


@kernel
def complete(kind: Row, builder: Row, ticks: int, theta: float, expected: float) -> bool:
    """Whether a bar of so many ticks ends: ``theta`` (≥ 0) against what is expected. For run bars too."""
    if builder.bars == 0:
        return bool(ticks >= kind.ticks)
    return (theta > 0.0 and theta >= expected) or ticks >= BOUND * kind.ticks


@kernel
def expect_ticks(kind: Row, builder: Row, ticks: int) -> None:
    """Learn from the length of a closed bar. For run bars too."""
    if builder.bars == 0:
        builder.expected_ticks = kind.ticks
    else:
        moved = builder.expected_ticks + kind.alpha * (ticks - builder.expected_ticks)
        builder.expected_ticks = min(max(moved, kind.ticks / BOUND), BOUND * kind.ticks)


@kernel
def reached(kind: Row, builder: Row, ticks: int) -> bool:
    """Whether the bar is complete."""
    theta = abs(builder.bought - builder.sold)
    return complete(kind, builder, ticks, theta, builder.expected_ticks * abs(builder.expected_imbalance))


@kernel
def learn(kind: Row, builder: Row, ticks: int) -> None:
    """Take a closed bar into the expectations, and begin the sums anew."""
    expect_ticks(kind, builder, ticks)
    mean = (builder.bought - builder.sold) / ticks
    if builder.bars == 0:
        builder.expected_imbalance = mean
    else:
        builder.expected_imbalance += kind.alpha * (mean - builder.expected_imbalance)
    builder.buys = builder.sells = 0
    builder.bought = builder.sold = 0.0
