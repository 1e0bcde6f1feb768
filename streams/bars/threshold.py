"""Tick, volume and dollar bars: a bar is closed by the tick with which its sum reaches the threshold.

    tick:N      Σ 1              ≥ N
    volume:V    Σ size           ≥ V
    dollar:D    Σ price · size   ≥ D

The tick belongs to the bar that it closes, whole: none is split (López de Prado, Advances in Financial Machine
Learning, Wiley 2018, section 2.3.1). Sums are of doubles, in order of arrival: ten times 0.1 are a little less than 1.
"""

from __future__ import annotations

from typing import Any, Final

from schemas.compiled import kernel
from streams.bars.kinds import Measure

Row = Any

_TICKS: Final = int(Measure.TICKS)
_VOLUME: Final = int(Measure.VOLUME)


@kernel
def reached(kind: Row, bar: Row) -> bool:
    """Whether ``bar`` is complete."""
    if kind.measure == _TICKS:
        return bool(bar.count >= kind.size)
    if kind.measure == _VOLUME:
        return bool(bar.volume >= kind.size)
    return bool(bar.notional >= kind.size)
