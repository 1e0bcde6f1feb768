"""Range bars: a bar is closed by the tick with which its high and low are the range apart.

    high − low ≥ range − slack,   slack = min(2⁻⁵¹ · high, range / 4)

The slack takes back what rounding decimals to doubles may have cost: 100.3 − 100.0 is 0.29999999999999716, and closes a
bar of ``range:0.3``. A jump makes one bar, however far.
"""

from __future__ import annotations

from typing import Any, Final

from schemas.compiled import kernel

Row = Any

ROUNDING: Final = 2.0**-51
"""Two prices and a size, each half a unit in the last place off, and the same once more for the subtraction."""


@kernel
def slack(price: float, size: float) -> float:
    """What a difference of prices up to ``price`` may fall short of ``size`` and count as it."""
    return min(ROUNDING * price, size / 4.0)


@kernel
def reached(kind: Row, bar: Row) -> bool:
    """Whether ``bar`` is complete."""
    return bool(bar.high - bar.low >= kind.size - slack(bar.high, kind.size))
