"""Small snapshots, and what the portfolios agent makes of a sequence of events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from schemas.codec import Unreadable, encode_body
from schemas.records import (
    Command,
    Indicators,
    Label,
    Place,
    Record,
    Regime,
    Settings,
    Snapshot,
    SnapshotRow,
    TradingState,
)
from streams.agent import Input, Output
from tests import examples
from tests.examples import DAY0, MINUTE

R = TypeVar("R", bound=Record)
VARIANCE = 1e-6


def regime(symbol: str, start: int, label: Label = Label.RANGING, **over: Any) -> Regime:
    """A warm regime with bands at 98, 100 and 102; ``band_*`` among ``over`` replaces them."""
    bands = {"band_lower": 98.0, "band_middle": 100.0, "band_upper": 102.0}
    bands |= {name: over.pop(name) for name in tuple(over) if name in bands}
    rest = dict.fromkeys(("atr", "atr_slow", "adx", "plus_di", "minus_di", "band_width"), 1.0)
    base = Regime(
        symbol=symbol,
        kind="time:1m",
        start=start,
        end=start + MINUTE,
        label=label,
        bars_since_change=3,
        warm=True,
        probabilities={label: 1.0},
        indicators=Indicators(**rest, **bands),
        close=100.0,
        settings=1,
    )
    return msgspec.structs.replace(base, **over)


def snapshot(
    minute: int,
    closes: Mapping[str, float] | None = None,
    *,
    label: Label = Label.RANGING,
    stale: Sequence[str] = (),
    bars: Mapping[str, Any] | None = None,
    **over: Any,
) -> Snapshot:
    """The snapshot of the ``minute``-th bar; ``bars`` are fields that all its bars share."""
    start = DAY0 + minute * MINUTE
    closes = closes or {"A": 100.0, "B": 50.0}
    base = Snapshot(
        portfolio="alpha",
        universe="u1",
        start=start,
        end=start + MINUTE,
        kind="time:1m",
        rows=tuple(
            SnapshotRow(
                symbol=symbol,
                stale=symbol in stale,
                bar=examples.bar(symbol, start, close, **(bars or {})),
                regime=regime(symbol, start, label),
            )
            for symbol, close in sorted(closes.items())
        ),
        warm=True,
        model="ewma",
        covariance=tuple(
            VARIANCE if i == j else 0.0 for i in range(len(closes)) for j in range(i, len(closes))
        ),
        settings=1,
    )
    return msgspec.structs.replace(base, **over)


def command(id: str, state: TradingState, after: tuple[int, int] | None = None, **over: Any) -> Command:
    """A command; ``after`` is (minute, ordinal)."""
    base = Command(
        portfolio="alpha",
        id=id,
        state=state,
        issued_at=DAY0,
        after=None if after is None else Place(start=DAY0 + after[0] * MINUTE, ordinal=after[1]),
    )
    return msgspec.structs.replace(base, **over)


def item(offset: int, value: Record | Unreadable | None) -> Input:
    """``value`` as it is read from portfolio.events, under its own portfolio's key."""
    key = None if isinstance(value, Settings) else str(getattr(value, "portfolio", "alpha")).encode()
    raw = encode_body("portfolio.events", value) if isinstance(value, Record) else b"?"
    end = value.end if isinstance(value, Snapshot) else DAY0
    return Input(offset, end // 1000, key, value, raw)


def of(outputs: Sequence[Output], kind: type[R]) -> list[R]:
    """The records of one kind among ``outputs``, in order."""
    return [output.value for output in outputs if isinstance(output.value, kind)]


def walk(minute: int, symbol: str) -> float:
    """A price path of its own for each symbol, with trends and turns."""
    return 100.0 + 4.0 * math.sin(minute / (3 + ord(symbol) % 5)) + minute / 50
