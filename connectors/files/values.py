"""Cells to values: text of a CSV file, or typed values of a Parquet column. Each raises ValueError for what
it is not.

Numbers are read exactly: a price is the double nearest to the decimal quotient, a time is rounded to the
nearest microsecond only where the cell holds finer digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from connectors.files.settings import TIME_UNITS_PER_SECOND
from schemas.records import Side

Convert = Callable[[Any], Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TRUE = frozenset(("1", "true", "t", "yes", "y"))
_FALSE = frozenset(("0", "false", "f", "no", "n", ""))
_SIDES = {
    **dict.fromkeys(("buy", "b", "bid", "1"), Side.BUY),
    **dict.fromkeys(("sell", "s", "ask", "-1"), Side.SELL),
    **dict.fromkeys(("", "n", "none", "0", "unknown"), None),
}


def text(cell: Any) -> str:
    """The cell as text, without blanks around it; what cannot be written as UTF-8 is an error."""
    plain = str(cell).strip()
    plain.encode()
    return plain


def symbol(cell: Any) -> str:
    """As `text`, but not empty."""
    name = text(cell)
    if not name:
        raise ValueError("empty")
    return name


def number(scale: int) -> Convert:
    """A float, divided by ``scale`` with one rounding."""
    if scale == 1:
        return float

    def scaled(cell: Any) -> float:
        if isinstance(cell, str):
            try:
                return int(cell) / scale
            except ValueError:
                cell = float(cell) if not math.isfinite(float(cell)) else Decimal(cell.strip())
        return float(Fraction(cell) / scale) if isinstance(cell, Decimal) else float(cell / scale)

    return scaled


def bits(base: int) -> Convert:
    """A bit mask, spelled in ``base`` where it is text."""

    def mask(cell: Any) -> int:
        value = int(cell or "0", base) if isinstance(cell, str) else int(cell)
        if not 0 <= value < 2**63:
            raise ValueError("not a mask of 63 bits")
        return value

    return mask


def flag(cell: Any) -> bool:
    """A truth value: 0 or 1, true or false, yes or no."""
    word = str(cell).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("neither true nor false")


def side(cell: Any) -> Side | None:
    """The aggressor: buy or sell; empty, none and unknown are None."""
    try:
        return _SIDES[str(cell).strip().lower()]
    except KeyError:
        raise ValueError("neither buy nor sell") from None


def epoch(units_per_second: int) -> Convert:
    """Microseconds since the epoch from a count of seconds, or parts of one, since the epoch."""
    if units_per_second <= 1_000_000:
        factor = 1_000_000 // units_per_second

        def whole(cell: Any) -> int:
            if isinstance(cell, str):
                try:
                    return int(cell) * factor
                except ValueError:
                    pass
            return _round(_decimal(cell) * factor)

        return whole
    divisor = units_per_second // 1_000_000
    return lambda cell: _round(_decimal(cell) / divisor)


def iso(zone: ZoneInfo) -> Convert:
    """Microseconds since the epoch from an ISO 8601 time; finer digits are cut off."""
    return lambda cell: moment(datetime.fromisoformat(cell.strip()), zone)


def pattern(form: str, zone: ZoneInfo) -> Convert:
    """Microseconds since the epoch from a time as `datetime.strptime` reads it."""
    return lambda cell: moment(datetime.strptime(cell.strip(), form), zone)


def moment(time: datetime, zone: ZoneInfo) -> int:
    """Microseconds since the epoch; ``zone`` holds where the time does not say its own."""
    if time.tzinfo is None:
        time = time.replace(tzinfo=zone)
    return (time - _EPOCH) // _MICROSECOND


def guess_time_format(sample: str) -> str:
    """iso, or the unit since the epoch that puts a number into this age (years 1973 to 5138)."""
    try:
        value = abs(Decimal(sample.strip()))
    except InvalidOperation:
        return "iso"
    for unit, units_per_second in TIME_UNITS_PER_SECOND.items():
        if value < Decimal(10) ** 11 * units_per_second:
            return unit
    return "ns"


def _decimal(cell: Any) -> Decimal:
    try:
        return Decimal(cell.strip() if isinstance(cell, str) else cell)
    except InvalidOperation:
        raise ValueError(f"invalid time: {cell!r}") from None


def _round(value: Decimal) -> int:
    if not value.is_finite():
        raise ValueError("not a finite time")
    return round(value)
