"""From a record to the row that binary COPY sends.

Binary COPY carries no types: a field is right if its bytes are what the column's type reads. So a time goes
as the ``int8`` that ``timestamptz`` is (microseconds since 2000), exact to the microsecond and without a
datetime object, and ``jsonb`` as its version byte and the text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Double, Integer, LargeBinary, Numeric, Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from schemas.records import NEVER, DeadLetter, Record
from sinks.timescale.results import Result

Row = tuple[Any, ...]

_POSTGRES_EPOCH_US = 946_684_800_000_000
_YEAR_1900_US = -2_208_988_800_000_000
_YEAR_9999_US = 253_370_764_800_000_000
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_COPY_TYPES: dict[type[Any], str] = {
    Text: "text",
    Boolean: "bool",
    Integer: "int4",
    BigInteger: "int8",
    Double: "float8",
    Numeric: "numeric",
    LargeBinary: "bytea",
    TIMESTAMP: "int8",
    JSONB: "bytea",
}


class RowMaker:
    """Makes rows of one result table for one run."""

    def __init__(self, result: Result, run: str) -> None:
        columns = result.columns
        self.copy_types = ("text", *(_copy_type(column) for column in columns))
        self._run = run
        self._read = attrgetter(*(column.info["field"] for column in columns))
        self._changes = [
            (place, change)
            for place, column in enumerate(columns, start=1)
            if (change := _change(column)) is not None
        ]

    def __call__(self, record: Record) -> Row:
        """The row of ``record``: ``run``, then the table's columns in order."""
        row = [self._run, *self._read(record)]
        for place, change in self._changes:
            row[place] = change(row[place])
        return tuple(row)


def without_nul(letter: DeadLetter) -> DeadLetter:
    """``letter`` with U+FFFD for the character NUL, which no PostgreSQL text can hold.

    Dead letters tell of broken input, so they hold it more often than others; key and value stay as they are.
    """
    texts = {name: getattr(letter, name) for name in ("stage", "error", "input", "topic", "symbol")}
    cleaned = {name: text.replace("\0", "\ufffd") for name, text in texts.items() if text and "\0" in text}
    return msgspec.structs.replace(letter, **cleaned) if cleaned else letter


def to_jsonb(value: Any) -> bytes:
    """Binary ``jsonb`` of plain or Struct values; NaN and infinities become strings that float8 reads."""
    return b"\x01" + json.dumps(_plain(value), allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else _NOT_FINITE[str(value)]
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _from_us(time_us: int) -> int:
    """An event time; NEVER becomes 1900, because hypertables take no ``-infinity``."""
    return (_YEAR_1900_US if time_us == NEVER else time_us) - _POSTGRES_EPOCH_US


def _from_ms(time_ms: int) -> int:
    """A Kafka timestamp, which may be any number: it is kept within 1900 and 9999."""
    return min(max(time_ms * 1000, _YEAR_1900_US), _YEAR_9999_US) - _POSTGRES_EPOCH_US


def _copy_type(column: Column[Any]) -> str:
    if isinstance(column.type, ARRAY):
        return f"{_COPY_TYPES[type(column.type.item_type)]}[]"
    return _COPY_TYPES[type(column.type)]


def _change(column: Column[Any]) -> Callable[[Any], Any] | None:
    """What a field's value goes through on its way into ``column``; None: it goes as it is."""
    if isinstance(column.type, TIMESTAMP):
        return _from_ms if column.info["field"].endswith("_ms") else _from_us
    if isinstance(column.type, JSONB):
        return to_jsonb
    if isinstance(column.type, ARRAY):
        return list
    return None
