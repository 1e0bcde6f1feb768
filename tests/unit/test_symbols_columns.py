"""A run of market.ticks read as columns and record by record: the symbols agent makes the same of both."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.codec import Unreadable
from schemas.columns import Headers, Packed, PackedRecord
from schemas.records import Record
from streams.agent import Input
from streams.ticks import TOPIC, Ticks
from tests.simulation.world import CODEC
from tests.unit.test_symbols import partitions, run_all

HEADERS: tuple[Headers, ...] = (
    (("source", b"test"),),
    (("source", b"test"),),
    (("source", b"two"),),
    (("source", b"none"),),
    (("source", b"\xff"),),
    (("source", b"test"), ("trace", b"1")),
    (("trace", b"1"), ("source", b"two")),
    (("origin", b"test"),),
    (),
)
ODD_TIMES_MS = (-1, 0, 2**62, 2**63 // 1000 + 1)


def bytes_of(item: Input) -> bytes | None:
    if item.value is None:
        return None
    return b"torn" if isinstance(item.value, Unreadable) else CODEC.encode(TOPIC, item.value)


@st.composite
def records(draw: st.DrawFn) -> list[PackedRecord]:
    """Records as Kafka has them; clocks of several sources, some with other headers or impossible times."""
    found: list[PackedRecord] = []
    for item in draw(partitions()):
        headers, time_ms = item.headers, item.timestamp_ms
        if item.value is None and draw(st.integers(0, 3)) == 0:
            headers = draw(st.sampled_from(HEADERS))
            time_ms = draw(st.sampled_from((time_ms, time_ms, *ODD_TIMES_MS)))
        found.append((item.offset, time_ms, item.key, bytes_of(item), headers))
    return found


def one_by_one(given_records: list[PackedRecord]) -> list[Input]:
    def decoded(value: bytes | None) -> Any:
        return None if value is None else cast("Record | Unreadable", CODEC.decode(TOPIC, value))

    return [
        Input(offset, ms, key, decoded(value), value, own) for offset, ms, key, value, own in given_records
    ]


@hypothesis_settings(max_examples=150, deadline=None)
@given(drawn=records(), data=st.data())
def test_columns_and_records_give_the_same(drawn: list[PackedRecord], data: st.DataObject) -> None:
    expected = run_all([one_by_one(drawn)])
    assert run_all([Ticks.read(CODEC, Packed.of(drawn))]) == expected
    cut = data.draw(st.integers(1, len(drawn)))
    halves = [part for part in (drawn[:cut], drawn[cut:]) if part]
    assert run_all(Ticks.read(CODEC, Packed.of(half)) for half in halves) == expected
