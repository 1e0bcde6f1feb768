"""Event times as people write and read them: ISO 8601, UTC where no zone is told."""

from __future__ import annotations

from datetime import UTC, datetime

from streams.admission import MAX_TIME_US
from streams.errors import HeadraceError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NoTime(HeadraceError):
    """Raised for a text that is no time."""


def parse(text: str) -> int:
    """Microseconds since the epoch of ``2024-01-02``, ``2024-01-02 14:30``, ``2024-01-02T14:30:00.25+01:00``."""
    try:
        told = datetime.fromisoformat(text.strip())
    except ValueError:
        raise NoTime(f"{text!r} is no time: write it like 2024-01-02T14:30:00, in UTC") from None
    since = (told if told.tzinfo else told.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def shown(time_us: int) -> str:
    """A time as `parse` reads it, without a fraction that is zero; outside the calendar in plain microseconds."""
    if not 0 <= time_us <= MAX_TIME_US:
        return f"{time_us} µs"
    seconds, micros = divmod(time_us, 1_000_000)
    whole = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
    return f"{whole}.{micros:06d}".rstrip("0") if micros else whole
