"""Whether the contenders of `bench.throughput` have made the same bars as Headrace: who has not gives no figures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import fastavro

from bench.peers.job import BAR_SCHEMA
from bench.rig import BenchError
from headrace.compare import FRAME_BYTES, messages
from schemas.codec import schema_of
from schemas.records import Bar
from schemas.topics import physical

Bars = dict[tuple[str, int], tuple[Any, ...]]
"""By symbol and start (µs): open, high, low, close, volume, count."""

_FIELDS = ("open", "high", "low", "close", "volume", "count")
_LEAST_COVERED = 0.25


class Disagreement(BenchError):
    """Raised where a contender's bars are not Headrace's."""


def ours(kafka: str, namespace: str) -> Bars:
    """Headrace's bars."""
    return _by_name(_read(kafka, physical(namespace, "market.bars"), schema_of(Bar), FRAME_BYTES))


def theirs(kafka: str, topic: str) -> Bars:
    """The bars that a contender wrote to ``topic``. Raises `Disagreement` where it wrote two different ones as one."""
    return _by_name(_read(kafka, topic, fastavro.parse_schema(BAR_SCHEMA), 0))


def compare(reference: Bars, bars: Bars, records: int) -> None:
    """Hold a contender's ``bars`` against ``reference``.

    Each must be a bar of the reference, and of each symbol every bar up to its last must be there: none is lost.
    Raises `Disagreement`; also where the bars hold less than a quarter of the ``records`` that it was timed over.
    """
    last: dict[str, int] = {}
    for (symbol, start), bar in bars.items():
        if reference.get((symbol, start)) != bar:
            raise Disagreement(f"{symbol} at {start}: {bar}, not {reference.get((symbol, start))}")
        last[symbol] = max(start, last.get(symbol, start))
    for symbol, start in reference:
        if start <= last.get(symbol, -1) and (symbol, start) not in bars:
            raise Disagreement(f"{symbol} at {start}: no bar, though there are later ones")
    covered = sum(bar[-1] for bar in bars.values())
    if covered < _LEAST_COVERED * records:
        raise Disagreement(f"its {len(bars):,} bars hold {covered:,} ticks of {records:,}")


def _by_name(bars: Iterator[dict[str, Any]]) -> Bars:
    found: Bars = {}
    for bar in bars:
        name, content = (bar["symbol"], bar["start"]), tuple(bar[field] for field in _FIELDS)
        if found.setdefault(name, content) != content:
            raise Disagreement(f"two bars of {name[0]} at {name[1]}: {found[name]} and {content}")
    return found


def _read(kafka: str, topic: str, schema: Any, frame: int) -> Iterator[dict[str, Any]]:
    for message in messages(kafka, topic):
        body = io.BytesIO(message.value())
        body.seek(frame)
        bar: Any = fastavro.schemaless_reader(body, schema, None)
        yield bar
