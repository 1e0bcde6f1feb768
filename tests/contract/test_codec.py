"""The codec: round trips, values of other writers, and everything else that may come in a value."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import records
from schemas.codec import (
    Codec,
    RegistryUnavailable,
    UnknownSchema,
    Unreadable,
    decode_body,
    encode_body,
    to_datum,
    topic_schema,
    topic_schema_text,
)
from schemas.records import Reason, Record
from schemas.states import State
from schemas.topics import TOPICS
from tests.conftest import REPO
from tests.contract.kinds import CARRIED, IDS, Struct, example, fields, instances, name_of
from tests.examples import bar, tick


def fetch_nothing(number: int) -> str:
    raise AssertionError(f"schema {number} is our own: nobody should be asked for it")


carried = pytest.mark.parametrize(("topic", "kind"), CARRIED, ids=[f"{t}-{k.__name__}" for t, k in CARRIED])
few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@carried
@few
@given(data=st.data())
def test_round_trip(topic: str, kind: Struct, data: st.DataObject) -> None:
    record = data.draw(instances(kind))
    codec = Codec(IDS, fetch_nothing)
    value = codec.encode(topic, record)
    assert value == b"\0" + IDS[topic].to_bytes(4, "big") + as_avro_writes(topic, record)
    read = codec.decode(topic, value)
    assert read == record
    assert isinstance(read, kind)
    assert codec.encode(topic, read) == value
    assert decode_body(topic, encode_body(topic, record)) == record


def as_avro_writes(topic: str, record: msgspec.Struct) -> bytes:
    """The body where fastavro itself looks for the branch of the union."""
    out, schema, datum = io.BytesIO(), fastavro.parse_schema(topic_schema(topic)), to_datum(record)
    fastavro.schemaless_writer(
        out, schema, (name_of(type(record)), datum) if isinstance(schema, list) else datum
    )
    return out.getvalue()


def test_special_floats_keep_their_place() -> None:
    for special in (math.nan, math.inf, -math.inf):
        back = decode_body("market.bars", encode_body("market.bars", bar(close=special)))
        assert isinstance(back, records.Bar)
        assert repr(back.close) == repr(special)


def test_a_decimal_of_more_places_is_not_rounded_in_silence() -> None:
    equity = msgspec.structs.replace(example(records.Equity), cash=Decimal("0.0000000001"))
    with pytest.raises(ValueError, match="more than 9 places"):
        encode_body("trade.equity", equity)


FIRST_USE = """
import sys, threading
from schemas.codec import Codec
from schemas.states import SymbolsPartition
from tests.contract.kinds import IDS
from tests.examples import settings

codec, together = Codec(IDS, str), threading.Barrier(8)
value = codec.encode("symbols.changelog", SymbolsPartition(settings=settings()))
sys.setswitchinterval(1e-5)

def first_use():
    together.wait()
    codec.decode("symbols.changelog", value)

threads = [threading.Thread(target=first_use) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_threads_may_decode_at_once_from_the_first_value_on() -> None:
    """Partitions are opened side by side; where types were prepared at first use, every third process crashed."""
    processes = [subprocess.Popen([sys.executable, "-c", FIRST_USE], cwd=REPO) for _ in range(8)]
    assert [process.wait() for process in processes] == [0] * 8


# ---- other writers


def other_writer(
    topic: str, kind: Struct, change: Callable[[dict[str, Any]], None], datum: dict[str, Any]
) -> Record | State | Unreadable:
    """What is read of ``datum`` from a writer whose schema of ``kind`` was changed."""
    schema = json.loads(topic_schema_text(topic))
    branches = schema if isinstance(schema, list) else [schema]
    mine = next(branch for branch in branches if f"{branch['namespace']}.{branch['name']}" == name_of(kind))
    change(mine)
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out, fastavro.parse_schema(schema), (name_of(kind), datum) if isinstance(schema, list) else datum
    )
    codec = Codec({topic: 1}, lambda number: json.dumps(schema))
    return codec.decode(topic, b"\0" + (77).to_bytes(4, "big") + out.getvalue())


@pytest.mark.parametrize(
    ("topic", "kind", "name"),
    [
        (topic, kind, field.name)
        for topic, kind in CARRIED
        for field, _, declared in fields(kind)
        if not field.required
        and "headrace." not in json.dumps(declared["type"])  # names are used elsewhere too
    ],
)
def test_an_older_writer_is_read_with_our_defaults(topic: str, kind: Struct, name: str) -> None:
    def without(schema: dict[str, Any]) -> None:
        schema["fields"] = [field for field in schema["fields"] if field["name"] != name]

    record = example(kind)
    default = getattr(
        kind(**{f.name: getattr(record, f.name) for f, _, _ in fields(kind) if f.required}), name
    )
    expected = msgspec.structs.replace(record, **{name: default})
    assert other_writer(topic, kind, without, to_datum(record)) == expected


def test_a_field_that_the_writer_did_not_have_gets_our_default() -> None:
    def without(schema: dict[str, Any]) -> None:
        schema["fields"] = [
            f for f in schema["fields"] if f["name"] not in ("suspicious", "aggressor", "sequence")
        ]

    full = tick(sequence=5, suspicious=True, aggressor=records.Side.SELL, exchange="Q")
    read = other_writer("market.ticks", records.Tick, without, to_datum(full))
    assert read == tick(sequence=None, exchange="Q")


def test_a_field_that_we_do_not_have_is_passed_over() -> None:
    def more(schema: dict[str, Any]) -> None:
        schema["fields"].insert(3, {"name": "novelty", "type": {"type": "array", "items": "string"}})

    datum = {**to_datum(tick()), "novelty": ["a", "b"]}
    assert other_writer("market.ticks", records.Tick, more, datum) == tick()


def test_the_body_of_another_build_is_as_ours_would_be() -> None:
    """What compares bodies compares those of two builds too, where one has a field more with a default."""
    schema = json.loads(topic_schema_text("market.bars"))
    schema["fields"].append({"name": "novelty", "type": "long", "default": 0})
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {**to_datum(bar()), "novelty": 5})
    codec = Codec({"market.bars": 1}, lambda number: json.dumps(schema))
    ours = encode_body("market.bars", bar())
    assert out.getvalue() != ours
    assert codec.body("market.bars", b"\0" + (77).to_bytes(4, "big") + out.getvalue()) == ours
    assert codec.body("market.bars", codec.encode("market.bars", bar())) == ours
    with pytest.raises(ValueError, match="no Confluent frame"):
        codec.body("market.bars", b"else")


def test_a_writer_of_one_kind_alone_is_read_where_the_topic_has_several() -> None:
    """As it was before the second kind was appended, and as a producer of one's own may write."""
    alone = json.loads(topic_schema_text("market.ticks"))[0]
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(alone), to_datum(tick()))
    codec = Codec(IDS, lambda number: json.dumps(alone))
    assert codec.decode("market.ticks", b"\0" + (99).to_bytes(4, "big") + out.getvalue()) == tick()


# ---- bad input


def codec_that_knows_all() -> Codec:
    texts = {number: topic_schema_text(name) for name, number in IDS.items()}

    def fetch(number: int) -> str:
        if number not in texts:
            raise UnknownSchema(f"schema id {number} is not in the registry")
        return texts[number]

    return Codec(IDS, fetch)


@carried
def test_a_value_cut_short_or_with_more_behind_is_unreadable(topic: str, kind: Struct) -> None:
    codec = codec_that_knows_all()
    value = codec.encode(topic, example(kind))
    for length in range(len(value)):
        result = codec.decode(topic, value[:length])
        assert isinstance(result, Unreadable), f"cut at {length} of {len(value)}: {result}"
        assert result.reason is Reason.UNREADABLE
        assert result.error
    for more in (b"\0", value):
        result = codec.decode(topic, value + more)
        assert isinstance(result, Unreadable)
        assert result == (Reason.UNREADABLE, f"{len(more)} bytes after the end of the record")


@pytest.mark.parametrize("topic", TOPICS)
@few
@given(data=st.data())
def test_random_bytes_never_raise(topic: str, data: st.DataObject) -> None:
    codec = codec_that_knows_all()
    body = data.draw(st.binary(max_size=60))
    frame = data.draw(st.sampled_from([b"", *(b"\0" + n.to_bytes(4, "big") for n in (0, *IDS.values()))]))
    result = codec.decode(topic, frame + body)
    assert isinstance(result, (Unreadable, *TOPICS[topic].records))  # chance may write a record


@carried
@few
@given(data=st.data())
def test_a_flipped_byte_never_raises(topic: str, kind: Struct, data: st.DataObject) -> None:
    codec = codec_that_knows_all()
    value = bytearray(codec.encode(topic, example(kind)))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    assert isinstance(codec.decode(topic, bytes(value)), (Unreadable, *TOPICS[topic].records))


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\0\0\0", b"\1\0\0\0\1", b"plain text, no frame"])
def test_a_value_without_frame_is_unreadable(value: bytes) -> None:
    result = codec_that_knows_all().decode("market.ticks", value)
    assert isinstance(result, Unreadable)
    assert (result.reason, "frame" in result.error) == (Reason.UNREADABLE, True)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_value_of_another_topic_has_the_wrong_schema(topic: str) -> None:
    codec = codec_that_knows_all()
    other = "trade.equity" if topic != "trade.equity" else "market.bars"
    value = codec.encode(other, example(TOPICS[other].records[0]))
    result = codec.decode(topic, value)
    assert isinstance(result, Unreadable)
    assert result.reason is Reason.WRONG_SCHEMA
    assert result.error.startswith(f"schema {IDS[other]} cannot be read as {topic}: ")
    assert len(result.error) < 300


@pytest.mark.parametrize(
    "text",
    ['{"type": "object", "properties": {}}', 'syntax = "proto3"; message M {}', "", '{"type": "record"}'],
)
def test_a_schema_that_is_not_avro_is_the_wrong_schema(text: str) -> None:
    """One registry may serve JSON Schema and Protobuf too; their values have the same frame."""
    codec = Codec(IDS, lambda number: text)
    result = codec.decode("market.ticks", b"\0\0\0\xff\xff{}")
    assert isinstance(result, Unreadable)
    assert result.reason is Reason.WRONG_SCHEMA
    assert "schema 65535" in result.error


def test_an_unknown_id_is_bad_input_until_it_is_registered() -> None:
    registered: dict[int, str] = {}
    asked = []

    def fetch(number: int) -> str:
        asked.append(number)
        if number not in registered:
            raise UnknownSchema(f"schema id {number} is not in the registry")
        return registered[number]

    value = b"\0" + (500).to_bytes(4, "big") + encode_body("market.ticks", tick())
    codec = Codec(IDS, fetch)
    assert codec.decode("market.ticks", value) == (
        Reason.UNKNOWN_SCHEMA,
        "schema id 500 is not in the registry",
    )
    registered[500] = topic_schema_text("market.ticks")
    assert codec.decode("market.ticks", value) == tick()
    assert codec.decode("market.ticks", value) == tick()
    assert asked == [500, 500], "what is known is not asked for again"


def test_a_registry_that_does_not_answer_is_no_bad_input() -> None:
    away = [True]

    def fetch(number: int) -> str:
        if away:
            raise RegistryUnavailable("no answer")
        return topic_schema_text("market.ticks")

    value = b"\0" + (500).to_bytes(4, "big") + encode_body("market.ticks", tick())
    codec = Codec(IDS, fetch)
    with pytest.raises(RegistryUnavailable):
        codec.decode("market.ticks", value)
    away.clear()
    assert codec.decode("market.ticks", value) == tick()
