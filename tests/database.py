"""Compares the database with records, without the sink's own code for making rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
import sqlalchemy as sa

from headrace.compare import Results
from schemas.codec import decode_body
from sinks.timescale.results import RESULTS, Result
from sinks.timescale.settings import sqlalchemy_url
from sinks.timescale.tables import run_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def mismatches(database_url: str, namespace: str, expected: Results) -> list[str]:
    """Every table whose rows for this run are not exactly ``expected``'s records; dead letters by their number."""
    found = []
    for result in RESULTS:
        if result.topic == "system.dead_letters":
            held = len(_rows(database_url, namespace, result))
            if held != len(expected.dead_letters):
                found.append(f"dead letters: {held} rows, {len(expected.dead_letters)} expected")
            continue
        records = [
            record
            for (topic, _), records in expected.sequences.items()
            if topic == result.topic
            for body, _ in records.values()
            if isinstance(record := decode_body(topic, body), result.record)
        ]
        found += differences(database_url, namespace, result, records)
    return found


def differences(
    database_url: str, namespace: str, result: Result, records: Sequence[msgspec.Struct]
) -> list[str]:
    """What a result's rows for this run have and ``records`` have not, or the other way round; empty where nothing."""
    held = _rows(database_url, namespace, result)
    wanted = [tuple(_expected(column, record) for column in result.columns) for record in records]
    ours, theirs = Counter(map(repr, held)), Counter(map(repr, wanted))
    if ours == theirs:
        return []
    extra, missing = list((ours - theirs).elements()), list((theirs - ours).elements())
    return [
        f"{result.table.name}: {len(held)} rows, {len(wanted)} expected;\n"
        f"  {len(extra)} extra: {extra[:1]}\n  {len(missing)} missing: {missing[:1]}"
    ]


def _rows(database_url: str, namespace: str, result: Result) -> list[tuple[Any, ...]]:
    query = sa.select(*result.columns).where(result.table.c.run == run_of(namespace))
    engine = sa.create_engine(sqlalchemy_url(database_url))
    try:
        with engine.connect() as connection:
            return [tuple(_plain(value) for value in row) for row in connection.execute(query)]
    finally:
        engine.dispose()


def _expected(column: sa.Column[Any], record: Any) -> Any:
    value: Any = record
    for name in column.info["field"].split("."):
        value = getattr(value, name)
    if isinstance(column.type, sa.DateTime) and value is not None:
        return _plain(EPOCH + timedelta(microseconds=value))
    return _plain(value)


def _plain(value: Any) -> Any:
    """One form for what the database and the records hold; not-a-number equals itself here."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value
    if isinstance(value, Decimal):
        return f"{value:.9f}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in sorted(value.items()) if k != "-type"}
    if isinstance(value, list | tuple):
        return tuple(_plain(v) for v in value)
    return value
