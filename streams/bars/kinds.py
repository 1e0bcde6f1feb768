"""Bar kinds: what stands in the settings, parsed.

    time:5m                  windows of UTC time          <count><s|m|h|d>
    time:5m@XNYS             windows of an exchange's sessions (ISO 10383 code); time:1d@XNYS: a bar a session
    tick:100                 every 100 ticks
    volume:10000             as soon as 10,000 units have changed hands
    dollar:1000000           as soon as price times size has come to 1,000,000
    range:0.5                as soon as high and low are 0.5 apart
    renko:0.5                bricks of 0.5
    tick-imbalance:1000:20   information-driven bars: also volume- and dollar-, -imbalance and -run. First
                             the expected ticks of a bar, then the span of the averages in bars (left out: 20)

A number has one spelling: no exponent, no leading zeros, none at the end of a fraction, at most 15 digits.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final, NamedTuple

from streams.errors import UnknownKind

DEFAULT_SPAN: Final = 20
DAY_US: Final = 86_400_000_000
MOST_KINDS: Final = 64
"""That can be built at once: bits in a row of late ticks."""

_UNITS_US: Final = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": DAY_US}
_EXPECTED: Final = {
    "time": "time:<count><s|m|h|d>, for example time:1m, or with an exchange's code time:5m@XNYS, time:1d@XNYS",
    "tick": "tick:<ticks>, for example tick:100",
    "volume": "volume:<units>, for example volume:10000",
    "dollar": "dollar:<price times size>, for example dollar:1000000",
    "range": "range:<price difference>, for example range:0.5",
    "renko": "renko:<price difference>, for example renko:0.5",
    **{
        f"{measure}-{rule}": f"{measure}-{rule}:<ticks expected in a bar>, for example {measure}-{rule}:1000, or "
        f"with a span of the averages other than {DEFAULT_SPAN} bars {measure}-{rule}:1000:50"
        for measure in ("tick", "volume", "dollar")
        for rule in ("imbalance", "run")
    },
}


class Family(IntEnum):
    """What closes a bar."""

    TIME = 0
    SESSION = 1
    THRESHOLD = 2
    RANGE = 3
    RENKO = 4
    IMBALANCE = 5
    RUN = 6


class Measure(IntEnum):
    """What a tick weighs: one, its size, or its price times its size."""

    TICKS = 0
    VOLUME = 1
    DOLLARS = 2


class Kind(NamedTuple):
    """A parsed kind; fields that its family does not use are zero."""

    name: str
    """As in the settings."""
    family: Family
    size_us: int = 0
    """Length of a window (TIME, SESSION), µs."""
    exchange: str = ""
    """Whose sessions (SESSION)."""
    measure: Measure = Measure.TICKS
    """What is counted (THRESHOLD, IMBALANCE, RUN)."""
    size: float = 0.0
    """The threshold in the measure's unit (THRESHOLD), or a price difference (RANGE, RENKO)."""
    ticks: int = 0
    """Ticks expected in a bar at first (IMBALANCE, RUN)."""
    span: int = 0
    """Of the averages, in bars (IMBALANCE, RUN)."""


def parse(kind: str) -> Kind:
    """Parse a kind.

    Raises:
        UnknownKind: it is none; the message says what would be right.
    """
    word, _, rest = kind.partition(":")
    parsed = None
    if word == "time":
        parsed = _time(kind, rest)
    elif word in ("tick", "volume", "dollar"):
        parsed = _threshold(kind, word, rest)
    elif word in ("range", "renko"):
        size = _decimal(rest)
        if size is not None:
            parsed = Kind(kind, Family[word.upper()], size=size)
    elif word in _EXPECTED:
        parsed = _information(kind, word, rest)
    if parsed is None:
        raise UnknownKind(kind, _EXPECTED.get(word) or "; ".join(_EXPECTED.values()))
    return parsed


def parse_utc(kind: str) -> Kind:
    """Parse a kind that must be windows of UTC time: the only one that all symbols close together.

    Raises:
        UnknownKind: it is none or of another family.
    """
    parsed = parse(kind)
    if parsed.family is not Family.TIME:
        raise UnknownKind(
            kind, "time:<count><s|m|h|d>, for example time:1m: windows of UTC time are needed here"
        )
    return parsed


def _time(kind: str, rest: str) -> Kind | None:
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])(?:@([A-Z0-9]{4}))?", rest)
    if match is None:
        return None
    count, unit, exchange = match.groups()
    size_us = int(count) * _UNITS_US[unit]
    if exchange is None:
        return Kind(kind, Family.TIME, size_us)
    if unit == "d" and count != "1":
        return None
    return Kind(kind, Family.SESSION, size_us, exchange)


def _threshold(kind: str, word: str, rest: str) -> Kind | None:
    measure = {"tick": Measure.TICKS, "volume": Measure.VOLUME, "dollar": Measure.DOLLARS}[word]
    size = _decimal(rest)
    if size is None or (measure is Measure.TICKS and not size.is_integer()):
        return None
    return Kind(kind, Family.THRESHOLD, measure=measure, size=size)


def _information(kind: str, word: str, rest: str) -> Kind | None:
    match = re.fullmatch(r"([1-9][0-9]{0,8})(?::([1-9][0-9]{0,8}))?", rest)
    if match is None or match[2] == str(DEFAULT_SPAN):
        return None
    measure = {"tick": Measure.TICKS, "volume": Measure.VOLUME, "dollar": Measure.DOLLARS}[
        word.partition("-")[0]
    ]
    family = Family.RUN if word.endswith("run") else Family.IMBALANCE
    return Kind(kind, family, measure=measure, ticks=int(match[1]), span=int(match[2] or DEFAULT_SPAN))


def _decimal(text: str) -> float | None:
    """The number in its one spelling, or None."""
    if re.fullmatch(r"(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", text) is None or len(text.replace(".", "")) > 15:
        return None
    return float(text) or None
