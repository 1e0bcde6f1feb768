"""Ticks as columns: whatever the bytes, the kernel and the codec must read the same."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import decode
from schemas.codec import (
    Codec,
    RegistryUnavailable,
    UnknownSchema,
    Unreadable,
    raw_schema,
    to_datum,
    topic_schema_text,
)
from schemas.columns import NO_SEQUENCE, NO_TICK, TICK, Lane, Packed, Rows
from schemas.decode import MAX_KEY_BYTES, decode_ticks
from schemas.records import Settings, Side, Tick
from streams.agent import Input
from streams.ticks import TOPIC, Ticks, symbol_of
from tests.contract.kinds import instances
from tests.examples import settings as example_settings
from tests.examples import tick

Given = tuple[bytes | None, bytes | None]
"""Key and value."""
OLDER, NEWER, ALONE = 11, 12, 13


def writers() -> dict[int, Any]:
    """Schemas of others: fields that were not there yet, fields that are new and in another order, no union."""
    older, newer, alone = (json.loads(topic_schema_text(TOPIC)) for _ in range(3))
    older[0]["fields"] = [
        f for f in older[0]["fields"] if f["name"] not in ("suspicious", "session", "trade_id")
    ]
    newer[0]["fields"] = [{"name": "novelty", "type": "string"}, *reversed(newer[0]["fields"])]
    return {OLDER: older, NEWER: newer, ALONE: alone[0]}


WRITERS = {number: fastavro.parse_schema(schema) for number, schema in writers().items()}


def fetch(number: int) -> str:
    if number not in WRITERS:
        raise UnknownSchema(f"schema id {number} is not in the registry")
    return json.dumps(writers()[number])


CODEC = Codec({TOPIC: 7}, fetch)
PREFIX = CODEC.prefix(TOPIC, Tick)


def written_by(number: int, value: Tick) -> bytes:
    out = io.BytesIO()
    datum = to_datum(value) | {"novelty": "x" * 40}
    fastavro.schemaless_writer(out, WRITERS[number], datum if number == ALONE else ("headrace.Tick", datum))
    return b"\0" + number.to_bytes(4, "big") + out.getvalue()


def packed(records: Sequence[Given]) -> Packed:
    return Packed.of((100 + 2 * place, place, key, value, ()) for place, (key, value) in enumerate(records))


def inputs(records: Sequence[Given]) -> list[Input]:
    """Each record by the codec."""
    return [
        Input(100 + 2 * place, place, key, None if value is None else CODEC.decode(TOPIC, value), value)  # type: ignore[arg-type]
        for place, (key, value) in enumerate(records)
    ]


def is_row(item: Input) -> bool:
    value = item.value
    return isinstance(value, Tick) and value.symbol == symbol_of(item.key) and value.sequence != NO_SEQUENCE


def shown(items: object) -> str:
    """For comparison: NaN is itself, and an error is the same wherever in memory its buffer was."""
    return re.sub("at 0x[0-9a-f]+", "", repr(items))


def row_of(rows: Rows, lanes: Sequence[Lane], place: int) -> tuple[Any, ...]:
    event_time, price, size, sequence, conditions, lane, side, suspicious = rows[place].item()
    return (*lanes[lane], event_time, repr(price), repr(size), sequence, conditions, side, suspicious)


def as_row(value: Tick) -> tuple[Any, ...]:
    """What a row and its lane must hold of a tick; floats by their digits, since NaN is not itself."""
    return (
        value.symbol,
        value.source,
        value.session,
        value.event_time,
        repr(value.price),
        repr(value.size),
        NO_SEQUENCE if value.sequence is None else value.sequence,
        value.conditions,
        {Side.BUY: 1, Side.SELL: -1, None: 0}[value.aggressor],
        value.suspicious,
    )


def check(records: Sequence[Given]) -> int:
    """Both readers of a run hold what the codec reads, record by record; returns how many the kernel took."""
    expected = inputs(records)
    columns = decode_ticks(packed(records), PREFIX)
    taken = np.flatnonzero(columns.rows["lane"] != NO_TICK).tolist()
    for place in taken:
        value = expected[place].value
        assert isinstance(value, Tick), f"the codec refuses record {place}: {value}"
        assert is_row(expected[place])
        assert row_of(columns.rows, columns.lanes, place) == as_row(value)
    for ticks in (Ticks.read(CODEC, packed(records)), Ticks.of(expected)):
        assert shown(list(ticks)) == shown(expected)
        assert ticks.offsets.tolist() == [item.offset for item in expected]
        assert shown(ticks.others) == shown(
            [(p, item) for p, item in enumerate(expected) if not is_row(item)]
        )
        assert [place for place, _ in ticks.others] == np.flatnonzero(ticks.rows["lane"] == NO_TICK).tolist()
        for place, item in enumerate(expected):
            if is_row(item):
                assert isinstance(item.value, Tick)
                assert row_of(ticks.rows, ticks.lanes, place) == as_row(item.value)
        given = [number for number in ticks.rows["lane"].tolist() if number != NO_TICK]
        assert list(dict.fromkeys(given)) == list(range(len(ticks.lanes))), (
            "lanes in order of their first rows"
        )
        assert len(set(ticks.lanes)) == len(ticks.lanes)
    return len(taken)


# ---- what the kernel was written for


def test_the_kernel_reads_the_fields_of_this_schema() -> None:
    """A change of Tick.avsc is a change of `schemas.decode`: field by field in this order."""
    fields = [(field["name"], field["type"]) for field in raw_schema(Tick)["fields"]]
    assert fields == [
        ("symbol", "string"),
        ("source", "string"),
        ("session", "string"),
        ("sequence", ["null", "long"]),
        ("event_time", {"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"}),
        ("price", "double"),
        ("size", "double"),
        ("exchange", "string"),
        ("conditions", "long"),
        ("suspicious", "boolean"),
        ("trade_id", ["null", "string"]),
        ("aggressor", ["null", "headrace.Side"]),
    ]
    assert list(Side) == ["BUY", "SELL"]
    assert {name: (kind.str, place) for name, (kind, place, *_) in (TICK.fields or {}).items()} == {
        "event_time": ("<i8", 0),
        "price": ("<f8", 8),
        "size": ("<f8", 16),
        "sequence": ("<i8", 24),
        "conditions": ("<i8", 32),
        "lane": ("<i4", 40),
        "side": ("|i1", 44),
        "suspicious": ("|b1", 45),
    }


# ---- whatever a tick holds

names = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8)
longs = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 0, -1, 63, 64, -64, -65])
plain_ticks = st.builds(
    Tick,
    symbol=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=4),
    source=names | st.just("s" * 300),
    session=names,
    sequence=st.none() | st.integers(1 - 2**63, 2**63 - 1),
    event_time=longs,
    price=st.floats(),
    size=st.floats() | st.just(-0.0),
    exchange=names,
    conditions=longs,
    suspicious=st.booleans(),
    trade_id=st.none() | names,
    aggressor=st.sampled_from([None, *Side]),
)


def own(value: Tick) -> Given:
    return value.symbol.encode(), CODEC.encode(TOPIC, value)


@settings(max_examples=150, deadline=None)
@given(st.lists(plain_ticks, max_size=12))
def test_plain_ticks_are_all_read_by_the_kernel(values: list[Tick]) -> None:
    assert check([own(value) for value in values]) == len(values)


@settings(max_examples=150, deadline=None)
@given(st.lists(instances(Tick), max_size=8))
def test_any_tick_is_read_as_it_was_written(values: list[Tick]) -> None:
    check([own(value) for value in values])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([None, *WRITERS]), plain_ticks | instances(Tick)), max_size=10))
def test_other_writers_are_read_beside_our_own(values: list[tuple[int | None, Tick]]) -> None:
    records = [
        own(value) if writer is None else (value.symbol.encode(), written_by(writer, value))
        for writer, value in values
    ]
    check(records)


# ---- whatever the bytes

controls: list[Given] = [
    (None, None),
    (b"A", None),
    (None, CODEC.encode(TOPIC, tick())),
    (None, CODEC.encode(TOPIC, example_settings())),
    (b"A", CODEC.encode(TOPIC, example_settings())),
    (b"B", CODEC.encode(TOPIC, tick())),
    (b"", b""),
    (b"\xff", CODEC.encode(TOPIC, tick())),
]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_values_are_never_read_otherwise_than_by_the_codec(data: st.DataObject) -> None:
    records: list[Given] = []
    for value in data.draw(st.lists(plain_ticks, min_size=1, max_size=5)):
        key, raw = own(value)
        whole = bytearray(raw)
        for _ in range(data.draw(st.integers(0, 2))):
            whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        end = data.draw(st.just(len(whole)) | st.integers(0, len(whole)))
        more = data.draw(st.just(b"") | st.binary(max_size=12))
        records.append((key, bytes(whole[:end]) + more))
        records += data.draw(st.lists(st.sampled_from(controls), max_size=1))
    check(records)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=60)), max_size=5))
def test_garbage_behind_our_frame_is_never_read_otherwise_than_by_the_codec(
    records: list[tuple[bytes, bytes]],
) -> None:
    check([(key, PREFIX + body) for key, body in records])


def test_every_cut_and_every_flipped_bit_of_a_tick() -> None:
    full = tick(sequence=5, suspicious=True, aggressor=Side.SELL, exchange="Q", trade_id="t", conditions=300)
    key, raw = own(full)
    cuts = [(key, raw[:length]) for length in range(len(raw))]
    flips = []
    for place in range(len(raw)):
        for bit in range(8):
            flipped = bytearray(raw)
            flipped[place] ^= 1 << bit
            flips.append((key, bytes(flipped)))
    assert check(cuts) == 0
    assert 0 < check(flips) < len(flips)
    for record in flips:  # a value must not be completed by its neighbour's bytes
        check([record])


@pytest.mark.parametrize(
    "padded",
    [b"\x80\x00", b"\x82\x00", b"\x80" * 9 + b"\x03", b"\xff" * 10 + b"\x01", b"\x80" * 9 + b"\x00"],
)
def test_numbers_longer_than_they_must_be_are_left_to_the_codec(padded: bytes) -> None:
    """In the place of the sequence; some of them mean something to Avro's reader, some do not."""
    key, raw = own(tick(sequence=-1))
    before = CODEC.encode(TOPIC, tick(sequence=None))
    place = next(at for at in range(len(raw)) if raw[at] != before[at])
    assert raw[place : place + 2] == b"\x02\x01"
    assert check([(key, raw[: place + 1] + padded + raw[place + 2 :])]) == 0


@pytest.mark.parametrize(
    ("symbol", "taken"),
    [("A" * MAX_KEY_BYTES, 1), ("A" * (MAX_KEY_BYTES + 1), 0), ("Ä", 0), ("A\x7f", 0), ("A\n", 0), ("", 0)],
)
def test_which_symbols_the_kernel_is_sure_of(symbol: str, taken: int) -> None:
    assert check([own(tick(symbol=symbol))]) == taken


def test_a_tick_whose_sequence_stands_for_none_is_no_row() -> None:
    records = [own(tick(sequence=NO_SEQUENCE)), own(tick(sequence=NO_SEQUENCE + 1))]
    assert check(records) == 1
    assert [place for place, _ in Ticks.read(CODEC, packed(records)).others] == [0]


def test_special_floats_keep_their_place() -> None:
    values = [tick(price=price) for price in (math.nan, math.inf, -math.inf, -0.0, 5e-324)]
    assert check([own(value) for value in values]) == len(values)


# ---- lanes


def test_thousands_of_lanes_stay_apart() -> None:
    values = [
        tick(symbol=f"S{number % 700}", source="ab"[number % 3 % 2], session="" if number % 5 else "x")
        for number in range(3_000)
    ]
    assert check([own(value) for value in values]) == len(values)


def test_names_that_join_to_the_same_bytes_are_other_lanes() -> None:
    values = [
        tick(symbol="A", source=a, session=b) for a, b in (("xy", "z"), ("x", "yz"), ("xyz", ""), ("", "xyz"))
    ]
    assert check([own(value) for value in values * 3]) == 12
    assert len(Ticks.read(CODEC, packed([own(value) for value in values * 3])).lanes) == 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 2)), min_size=1, max_size=60))
def test_keys_that_share_a_slot_are_other_lanes(drawn: list[tuple[int, int]]) -> None:
    """Fifteen keys in a table of sixteen places: nearly all collide."""
    values = [tick(symbol=f"K{key}", session=f"s{session}") for key, session in drawn]
    records = packed([own(value) for value in values])
    rows, lanes = np.zeros(len(values), TICK), np.empty(len(values), decode._LANE)
    heads = np.full(16, -1, np.int64)
    data, prefix = np.frombuffer(records.data, np.uint8), np.frombuffer(PREFIX, np.uint8)
    bits = rows.view(np.int64).reshape(len(values), -1)
    found = decode._decode(data, records.places, prefix, rows, bits, lanes, heads)
    first = list(dict.fromkeys(drawn))
    assert found == len(first)
    assert rows["lane"].tolist() == [first.index(pair) for pair in drawn]


# ---- a run as a sequence


def test_an_empty_run() -> None:
    for ticks in (Ticks.read(CODEC, packed([])), Ticks.of([])):
        assert (len(ticks), list(ticks), ticks.lanes, ticks.others) == (0, [], [], [])
        with pytest.raises(IndexError):
            ticks[0]


def test_records_are_made_when_they_are_asked_for() -> None:
    values = [tick(symbol="A", exchange="Q", trade_id="1"), tick(symbol="B"), tick(symbol="A")]
    records = Packed.of(
        [(7, 1_000, None, None, (("source", b"files"),))]
        + [(8 + n, 2_000 + n, *own(value), (("trace", b"1"),)) for n, value in enumerate(values)]
    )
    ticks = Ticks.read(CODEC, records)
    assert ticks.others == []
    assert ticks.clocks is not None
    assert (ticks.clocks.source, *ticks.clocks.places, *ticks.clocks.times) == ("files", 0, 1_000_000)
    assert ticks[0] == Input(7, 1_000, None, None, None, (("source", b"files"),))
    assert ticks[-1] == Input(10, 2_002, *as_input(values[2]), (("trace", b"1"),))
    assert ticks[1:3] == [
        Input(8, 2_000, *as_input(values[0]), (("trace", b"1"),)),
        Input(9, 2_001, *as_input(values[1]), (("trace", b"1"),)),
    ]


def as_input(value: Tick) -> tuple[bytes, Tick, bytes]:
    """Key, record and raw value, as an `Input` has them."""
    key, raw = value.symbol.encode(), CODEC.encode(TOPIC, value)
    return key, value, raw


def test_a_registry_that_does_not_answer_is_told() -> None:
    def away(number: int) -> str:
        raise RegistryUnavailable("no answer")

    records = packed([own(tick()), (b"A", written_by(OLDER, tick()))])
    with pytest.raises(RegistryUnavailable):
        Ticks.read(Codec({TOPIC: 7}, away), records)


def test_what_cannot_be_read_is_beside_the_rows() -> None:
    records = packed([own(tick()), (b"A", b"\0\0\0\0\x63"), (None, CODEC.encode(TOPIC, example_settings()))])
    ticks = Ticks.read(CODEC, records)
    (_, unknown), (_, control) = ticks.others
    assert isinstance(unknown.value, Unreadable)
    assert isinstance(control.value, Settings)


def test_packed_records_come_out_as_they_went_in() -> None:
    records = [
        (5, 1, b"k", b"value", (("h", b"1"),)),
        (6, 2, None, b"", ()),
        (9, 3, b"", None, ()),
        (10, 4, b"key", b"v", (("h", b""), ("i", b"2"))),
    ]
    whole = Packed.of(records)
    assert list(whole) == records
    assert [whole[place] for place in range(4)] == records
    assert [whole.index_of(offset) for offset in (0, 5, 7, 9, 10, 11)] == [0, 0, 2, 2, 3, 4]
    for cut in range(1, 4):
        parts = [whole.part(0, cut), whole.part(cut, 4)]
        assert [*parts[0], *parts[1]] == records
