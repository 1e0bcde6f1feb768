"""What a contender is told, what all of them compute, and the marks by which each is timed.

Every contender reads its job from a JSON file, counts the records that it decodes, and when it has come to the last
one leaves its marks in another: ``{"records": …, "began_s": …, "ended_s": …}``, moments of the wall clock. It then
goes on until it is stopped, so that its last bars go out.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import fastavro

Datum = dict[str, Any]

SECOND_US = 1_000_000
FRAME_BYTES = 5
"""Before the Avro body: a zero byte and the schema's id."""

BAR_SCHEMA: Datum = {
    "type": "record",
    "name": "bench.Bar",
    "fields": [
        {"name": "symbol", "type": "string"},
        {"name": "start", "type": "long", "doc": "µs since the epoch"},
        *({"name": name, "type": "double"} for name in ("open", "high", "low", "close", "volume")),
        {"name": "count", "type": "long"},
    ],
}
"""A bar as the contenders write it, without a frame; less than Headrace's own, in their favour."""

_BAR = fastavro.parse_schema(BAR_SCHEMA)


class Job(NamedTuple):
    """One run of one contender.

    ``ticks`` and ``bars`` are topics, ``schema`` that of the values of ``ticks``, ``records`` how many to time from
    behind the first ``warm_up`` (both counted in ticks as they come), ``group`` a name for consumer groups and
    whatever else must not meet another run's, ``folder`` a place for local state, ``marks`` the file to leave;
    ``options`` are the contender's own.
    """

    bootstrap: str
    ticks: str
    bars: str
    partitions: int
    schema: Any
    warm_up: int
    records: int
    group: str
    folder: str
    marks: str
    options: dict[str, str]

    @classmethod
    def read(cls) -> Job:
        """The job in the file that the command line names."""
        return cls(**json.loads(Path(sys.argv[1]).read_text("utf-8")))


class Marks:
    """Counts ticks and leaves the marks when it has come to the last."""

    def __init__(self, job: Job) -> None:
        self._first, self._last = job.warm_up, job.warm_up + job.records
        self._job = job
        self._seen = 0
        self._began_s = 0.0

    def add(self, count: int = 1) -> None:
        """Count ticks."""
        before = self._seen
        self._seen += count
        if before < self._first <= self._seen:
            self._first = self._seen
            self._began_s = time.time()
        elif before < self._last <= self._seen:
            told = {"records": self._seen - self._first, "began_s": self._began_s, "ended_s": time.time()}
            draft = Path(self._job.marks).with_suffix(".new")
            draft.write_text(json.dumps(told), encoding="utf-8")
            draft.replace(self._job.marks)


def tick_reader(schema: Any) -> Any:
    """A function from the value of a record of market.ticks to the tick, as plain fields, or None: it is no tick."""
    parsed = fastavro.parse_schema(schema)
    read = fastavro.schemaless_reader

    def tick(value: bytes | None) -> Datum | None:
        if value is None:
            return None
        body = io.BytesIO(value)
        body.seek(FRAME_BYTES)
        datum: Any = read(body, parsed, None)
        return datum if "price" in datum else None

    return tick


def opened(tick: Datum) -> Datum:
    """A bar with its first tick."""
    price = tick["price"]
    return {
        "open": price,
        "high": price,
        "low": price,
        "close": price,
        "volume": tick["size"],
        "count": 1,
    }


def added(bar: Datum, tick: Datum) -> Datum:
    """The bar with one more tick, in order of event time."""
    price = tick["price"]
    if price > bar["high"]:
        bar["high"] = price
    elif price < bar["low"]:
        bar["low"] = price
    bar["close"] = price
    bar["volume"] += tick["size"]
    bar["count"] += 1
    return bar


def written(symbol: str, start_us: int, bar: Datum) -> bytes:
    """A closed bar as Avro."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, _BAR, {"symbol": symbol, "start": start_us, **bar})
    return body.getvalue()
