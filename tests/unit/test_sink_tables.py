"""The sink's tables against the contract."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from schemas.codec import identity_of
from schemas.records import NEVER, DeadLetter
from schemas.topics import TOPICS
from sinks.timescale.results import RESULTS, Result
from sinks.timescale.rows import RowMaker, to_jsonb, without_nul
from sinks.timescale.tables import LIVE, run_of
from tests.any_record import any_record

each_result = pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.table.name)


def leaves(kind: Any, prefix: str = "") -> Iterator[str]:
    """Paths of all fields of a record, through the records inside it."""
    for field in msgspec.structs.fields(kind):
        path = f"{prefix}{field.name}"
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from leaves(field.type, f"{path}.")
        else:
            yield path


def test_every_topic_that_sinks_read_has_its_tables() -> None:
    read = {name for name, topic in TOPICS.items() if "sinks" in topic.read_by}
    compared = {(name, kind) for name in read for kind in TOPICS[name].compared}
    assert {(result.topic, result.record) for result in RESULTS} == compared


@each_result
def test_every_field_has_its_column(result: Result) -> None:
    # A late tick's symbol is also its tick's, so the table holds it once.
    fields = [path for path in leaves(result.record) if path != "tick.symbol"]
    assert [column.info["field"] for column in result.columns] == fields


@each_result
def test_unique_is_the_identity_and_the_time_that_timescale_wants(result: Result) -> None:
    assert result.identity == identity_of(result.record) != ()
    extra = () if result.time in result.identity else (result.time,)
    assert result.unique == (*result.identity, *extra)


@each_result
def test_a_row_begins_with_the_run_and_fills_every_column(result: Result) -> None:
    maker = RowMaker(result, "night")
    row = maker(any_record(result.record, 3))
    assert row[0] == "night"
    assert len(row) == len(maker.copy_types) == len(result.table.columns)
    assert None not in row


def test_times_are_the_microseconds_that_postgres_counts_from_2000() -> None:
    bars = RESULTS[0]
    place = [column.name for column in bars.table.columns].index("start")
    microsecond = any_record(bars.record, start=946_684_800_000_001)
    never = any_record(bars.record, start=NEVER)
    make = RowMaker(bars, LIVE)
    assert make(microsecond)[place] == 1
    assert make(never)[place] == -36_524 * 86_400 * 1_000_000  # 1900


def test_json_spells_what_it_cannot_say() -> None:
    binary = to_jsonb({"a": (math.nan, math.inf, 1.5), "b": {"c": -math.inf}})
    assert binary == b'\x01{"a":["NaN","Infinity",1.5],"b":{"c":"-Infinity"}}'


def test_a_dead_letter_loses_no_evidence_to_nul() -> None:
    letter = any_record(DeadLetter, symbol="A\0B", error="bad \0 byte")
    clean = without_nul(letter)
    assert (clean.symbol, clean.error) == ("A\ufffdB", "bad \ufffd byte")
    assert (clean.key, clean.value) == (letter.key, letter.value)
    assert b"\0" in (letter.key or b"")
    assert clean.input == letter.input


def test_the_empty_namespace_is_the_live_run() -> None:
    assert (run_of(""), run_of("demo")) == ("live", "demo")
