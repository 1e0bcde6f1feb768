"""Records to bytes and back: Avro bodies in Confluent's frame (a zero byte, the schema's id in four bytes, the body).

    CodecError
    ├── UnknownSchema         a registry that answers does not know the id: bad input
    └── RegistryUnavailable   the registry does not answer: our own failure, never bad input

Both are raised by the ``fetch`` that a `Codec` is given. `Codec.decode` never raises for bad input; it answers with
an `Unreadable`.
"""

from __future__ import annotations

import functools
import io
import json
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal
from importlib import resources
from typing import Any, NamedTuple, TypeVar

import fastavro
import fastavro.schema
import msgspec
from fastavro.types import AvroMessage

from schemas import records, states
from schemas.records import Reason, Record
from schemas.states import State
from schemas.topics import TOPICS, Topic
from schemas.writers import Write, compile_writer

Schema = Any
Fetch = Callable[[int], str]
T = TypeVar("T", bound=msgspec.Struct)

_FRAME = struct.Struct(">bI")
_KINDS: dict[str, type[Record] | type[State]] = {
    kind.__struct_config__.tag: kind  # type: ignore[misc]
    for module in (records, states)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in (Record, State)
}
for _kind in _KINDS.values():
    # msgspec prepares a type at its first use and crashes where two threads do so at once, as partitions that are
    # opened side by side would: so all are prepared here.
    msgspec.json.Decoder(_kind)


class CodecError(Exception):
    """Base of what a codec's ``fetch`` raises."""


class UnknownSchema(CodecError):
    """The registry answers and does not know the id."""


class RegistryUnavailable(CodecError):
    """The registry does not answer; the caller waits or ends."""


class Unreadable(NamedTuple):
    """Stands for a value that could not be decoded."""

    reason: Reason
    error: str


class Encoded(Record, frozen=True, gc=False):
    """Stands for a record that is encoded already: ``body`` is what `encode_body` would give of it."""

    body: bytes


@functools.cache
def schema_of(kind: type[msgspec.Struct]) -> Schema:
    """The parsed Avro schema of a record or state, from its .avsc file."""
    name = f"{kind.__struct_config__.tag}.avsc"
    with resources.as_file(resources.files("schemas") / "avsc") as folder:
        return fastavro.schema.load_schema(folder / name)


def raw_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The .avsc as written, with the fields that fastavro drops (``identity``)."""
    text = (resources.files("schemas") / "avsc" / f"{kind.__struct_config__.tag}.avsc").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@functools.cache
def identity_of(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Names of the fields that make a result's identity; a dot reaches into a nested record."""
    return tuple(raw_schema(kind).get("identity", ()))


@functools.cache
def topic_schema(name: str) -> Schema:
    """The value schema of a topic: its record, or the union of its records, with every named type spelled once."""
    topic = TOPICS[name]
    seen: set[str] = set()
    branches = [_spell(kind.__struct_config__.tag, seen) for kind in topic.records]  # type: ignore[arg-type]
    return branches[0] if len(branches) == 1 else branches


@functools.cache
def _parsed_topic(name: str) -> Schema:
    return fastavro.parse_schema(topic_schema(name))


def topic_schema_text(name: str) -> str:
    """The value schema of a topic as JSON, as it is registered."""
    return json.dumps(topic_schema(name))


def _spell(name: str, seen: set[str]) -> Schema:
    """The definition of a named type with its references inlined where they are met first."""
    if name in seen:
        return name
    seen.add(name)
    kind = _KINDS.get(name)
    if kind is not None and issubclass(kind, msgspec.Struct):
        return _inline(raw_schema(kind), seen)
    text = (resources.files("schemas") / "avsc" / f"{name}.avsc").read_text("utf-8")
    return _inline(json.loads(text), seen)


def _inline(node: Schema, seen: set[str]) -> Schema:
    if isinstance(node, str):
        return _spell(node, seen) if node.startswith("headrace.") else node
    if isinstance(node, list):
        return [_inline(branch, seen) for branch in node]
    spelled = dict(node)
    if spelled["type"] == "record":
        spelled["fields"] = [{**field, "type": _inline(field["type"], seen)} for field in node["fields"]]
    elif spelled["type"] == "array":
        spelled["items"] = _inline(node["items"], seen)
    elif spelled["type"] == "map":
        spelled["values"] = _inline(node["values"], seen)
    elif isinstance(spelled["type"], (dict, list)):
        spelled["type"] = _inline(node["type"], seen)
    return spelled


def to_datum(record: msgspec.Struct) -> Any:
    """A record as the plain dicts that fastavro writes."""
    return msgspec.to_builtins(record, builtin_types=(bytes, Decimal))


def encode_body(topic: str, record: msgspec.Struct) -> bytes:
    """The Avro body of a record as ``topic`` carries it, without its frame: what rule 11 compares."""
    if type(record) is Encoded:
        return record.body
    branch, write = _branch(topic, type(record))
    return branch + write(record)


@functools.cache
def _branch(topic: str, kind: type[msgspec.Struct]) -> tuple[bytes, Write]:
    """The index of a kind in its topic's union, as Avro writes it, and the kind's own writer."""
    kinds = TOPICS[topic].records
    index = kinds.index(kind)
    return (bytes([index << 1]) if len(kinds) > 1 else b""), _writer(kind)


@functools.cache
def _writer(kind: type[msgspec.Struct]) -> Write:
    return compile_writer(_inline(raw_schema(kind), {kind.__struct_config__.tag}))  # type: ignore[arg-type]


class Codec:
    """Encodes and decodes the values of all topics.

    ``ids`` maps a topic's logical name to the id of its registered schema; ``fetch`` answers with the JSON text of a
    schema id that is not among them (an older or a user's own writer) and raises `UnknownSchema` or
    `RegistryUnavailable`.
    """

    def __init__(self, ids: Mapping[str, int], fetch: Fetch) -> None:
        self._fetch = fetch
        self._own = dict(ids)
        self._frames = {name: _FRAME.pack(0, number) for name, number in ids.items()}
        self._writers: dict[int, Schema | Unreadable] = {}

    def encode(self, topic: str, record: msgspec.Struct) -> bytes:
        """The framed value of ``record`` in ``topic``."""
        return self._frames[topic] + encode_body(topic, record)

    def prefix(self, topic: str, kind: type[msgspec.Struct]) -> bytes:
        """What every value of a kind that we write to ``topic`` begins with: the frame and the union's branch."""
        return self._frames[topic] + _branch(topic, kind)[0]

    def decode(self, topic: str, value: bytes) -> Record | State | Unreadable:
        """The record in a framed value, read with our schema whatever the writer's was.

        Raises `RegistryUnavailable` where the writer's schema is not at hand and the registry does not answer.
        """
        if len(value) < _FRAME.size or value[0] != 0:
            return Unreadable(Reason.UNREADABLE, "no Confluent frame: expected a zero byte and a schema id")
        number = int.from_bytes(value[1:5], "big")
        reader = _parsed_topic(topic)
        writer = reader if self._own.get(topic) == number else self._writer(number)
        if isinstance(writer, Unreadable):
            return writer
        body = io.BytesIO(value)
        body.seek(_FRAME.size)
        try:
            datum = _read(body, writer, reader)
        except fastavro.read.SchemaResolutionError as error:
            return Unreadable(
                Reason.WRONG_SCHEMA, f"schema {number} cannot be read as {topic}: {error!s:.200}"
            )
        except (
            Exception
        ) as error:  # whatever random bytes make of Avro's reader is bad input, not a fault of ours
            return Unreadable(Reason.UNREADABLE, f"{type(error).__name__}: {error}")
        if body.tell() != len(value):
            return Unreadable(
                Reason.UNREADABLE, f"{len(value) - body.tell()} bytes after the end of the record"
            )
        try:
            return _convert(TOPICS[topic], datum)
        except msgspec.ValidationError as error:
            return Unreadable(Reason.UNREADABLE, str(error))

    def body(self, topic: str, value: bytes) -> bytes:
        """The unframed body of a value as this build would write it, whatever schema it was written with.

        Raises `ValueError` where it cannot be read, `RegistryUnavailable` as `decode` does.
        """
        if value[:1] == b"\0" and int.from_bytes(value[1 : _FRAME.size], "big") == self._own.get(topic):
            return value[_FRAME.size :]
        record = self.decode(topic, value)
        if isinstance(record, Unreadable):
            raise ValueError(f"{topic}: {record.error}")
        return encode_body(topic, record)

    def _writer(self, number: int) -> Schema | Unreadable:
        known = self._writers.get(number)
        if known is None:
            try:
                text = self._fetch(number)
            except UnknownSchema as error:  # asked again each time: it may be registered a moment later
                return Unreadable(Reason.UNKNOWN_SCHEMA, str(error))
            try:
                known = fastavro.parse_schema(json.loads(text))
            except (
                Exception
            ) as error:  # JSON Schema, Protobuf, Avro with references: a registry may hold them all
                known = Unreadable(Reason.WRONG_SCHEMA, f"schema {number} is no Avro schema: {error!s:.200}")
            self._writers[number] = known
        return known


def _read(body: io.BytesIO, writer: Schema, reader: Schema) -> AvroMessage:
    return fastavro.schemaless_reader(
        body,
        writer,
        None if writer is reader else reader,
        return_record_name=True,
        return_record_name_override=True,
    )


def _convert(topic: Topic, datum: Any) -> Record | State:
    if isinstance(datum, tuple):
        return msgspec.convert(datum[1], _KINDS[datum[0]])
    return msgspec.convert(datum, topic.records[0])


def decode_body(topic: str, body: bytes) -> Record | State:
    """The record in an unframed body written with our own schema."""
    schema = _parsed_topic(topic)
    return _convert(TOPICS[topic], _read(io.BytesIO(body), schema, schema))
