"""Equity curves as pictures: a PNG file, and characters for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np

Curve = Sequence[tuple[datetime, Decimal]]
"""Equity at the end of each snapshot, in order."""

_BLOCKS = "▁▂▃▄▅▆▇█"
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character's dots, from the top row down, left and right."""


def sparkline(values: Sequence[float], width: int) -> str:
    """``values`` in at most ``width`` characters of one line, from the lowest to the highest."""
    shown = _thinned([value for value in values if math.isfinite(value)], width)
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high == low:
        return _BLOCKS[3] * len(shown)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((value - low) / (high - low) * top)] for value in shown)


def braille(values: Sequence[float], width: int, height: int) -> list[str]:
    """``values`` as a line of dots, (2 × width) by (4 × height), in ``height`` rows of characters."""
    columns, rows = 2 * width, 4 * height
    shown = _thinned([value for value in values if math.isfinite(value)], columns)
    cells = [[0] * width for _ in range(height)]
    if shown:
        low, high = min(shown), max(shown)
        scale = (rows - 1) / (high - low) if high > low else 0.0
        before = None
        for column, value in enumerate(shown):
            level = round((value - low) * scale) if scale else rows // 2
            first, last = sorted((level, level if before is None else before))
            for dot in range(first, last + 1):
                row = rows - 1 - dot
                cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
            before = level
    return ["".join(chr(0x2800 + cell) for cell in row) for row in cells]


def _thinned(values: Sequence[float], count: int) -> list[float]:
    """At most ``count`` values: the last of each of ``count`` equal stretches."""
    if len(values) <= count:
        return list(values)
    return [values[(i + 1) * len(values) // count - 1] for i in range(count)]


def equity_png(curves: Mapping[str, Curve], path: Path, title: str) -> None:
    """A plot of the equity of each portfolio over event time (UTC), as change against its first value in percent."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 5), layout="constrained")
    for name, curve in curves.items():
        first = float(curve[0][1]) if curve else 1.0
        times = np.array([end.replace(tzinfo=None) for end, _ in curve], "datetime64[us]")
        change = [100.0 * (float(equity) / first - 1.0) for _, equity in curve]
        axes.plot(times, change, label=name, linewidth=1.2)
    axes.axhline(0.0, color="0.6", linewidth=0.8)
    axes.set(title=title, xlabel="event time (UTC)", ylabel="equity, % of its first value")
    axes.grid(alpha=0.25)
    if curves:
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
