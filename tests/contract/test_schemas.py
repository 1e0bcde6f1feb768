"""Every record and state against its schema, and the schemas against their topics."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from importlib import resources
from typing import Any

import msgspec
import pytest

from schemas import records
from schemas.codec import identity_of, raw_schema, topic_schema
from schemas.records import Snapshot
from schemas.states import State
from schemas.topics import TOPICS
from tests.contract.kinds import STRUCTS, Struct, fields, name_of

MICROS = {"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 9}
TIMES = {
    *("start", "end", "event_time", "first_time", "last_time", "last_start", "last_end", "decided_on"),
    *("issued_at", "effective_from", "holds_from", "due", "data_through", "mark", "clock", "forwarded"),
    *("through", "watermark", "weighed_from", "data_from", "created_at"),
}
"""Names of fields that hold a point in event time; durations end in _us, Kafka's own timestamps in _ms."""


def avro_types(hint: Any, name: str = "") -> list[Any]:
    """The Avro types that may stand for a Python type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        assert arguments[1:] == (types.NoneType,), hint
        return [["null", inner] for inner in avro_types(arguments[0], name)]
    if origin in (tuple, list):
        return [{"type": "array", "items": inner} for inner in avro_types(arguments[0])]
    if origin is dict:
        assert arguments[0] is str, hint
        return [{"type": "map", "values": inner} for inner in avro_types(arguments[1])]
    if hint is int:
        return [MICROS] if name in TIMES else ["long", "int"]
    plain = {float: "double", str: "string", bool: "boolean", bytes: "bytes", Decimal: DECIMAL}
    return [plain[hint]] if hint in plain else [name_of(hint)]


def test_there_are_as_many_structs_as_record_schemas() -> None:
    names = {name_of(kind) for kind in STRUCTS}
    assert len(names) == len(STRUCTS) > 40


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_a_struct_is_its_schema(kind: Struct) -> None:
    schema = raw_schema(kind)
    assert (schema["type"], f"{schema['namespace']}.{schema['name']}") == ("record", name_of(kind))
    assert schema["doc"].strip()
    assert [field.name for field in msgspec.structs.fields(kind)] == [f["name"] for f in schema["fields"]]
    for field, hint, declared in fields(kind):
        where = f"{kind.__name__}.{field.name}"
        assert set(declared) <= {"name", "type", "doc", "default"}, where
        assert declared["type"] in avro_types(hint, field.name), where
        assert declared["doc"].strip(), where
        assert field.required == ("default" not in declared), where
        if not field.required:
            default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            assert msgspec.json.decode(msgspec.json.encode(default)) == declared["default"], where
    mutable = issubclass(kind, State)
    assert kind.__struct_config__.frozen is not mutable


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_only_states_hold_lists(kind: Struct) -> None:
    """A record is handed from stage to stage: nothing in it may be changed in place but a map."""
    sequences = {typing.get_origin(hint) for _, hint, _ in fields(kind)} & {list, tuple}
    assert sequences <= ({list} if issubclass(kind, State) else {tuple})


ENUMS: tuple[type[StrEnum], ...] = tuple(
    kind
    for kind in vars(records).values()
    if isinstance(kind, type) and issubclass(kind, StrEnum) and kind is not StrEnum
)


@pytest.mark.parametrize("kind", ENUMS, ids=lambda kind: kind.__name__)
def test_an_enum_is_its_schema(kind: type[StrEnum]) -> None:
    schema = json.loads((resources.files("schemas") / "avsc" / f"{name_of(kind)}.avsc").read_text("utf-8"))
    assert (schema["type"], f"{schema['namespace']}.{schema['name']}") == ("enum", name_of(kind))
    assert schema["symbols"] == [member.value for member in kind]
    assert [member.name for member in kind] == schema["symbols"]
    assert schema["doc"].strip()


def test_every_schema_file_is_carried_by_a_topic() -> None:
    def names(node: Any) -> Iterator[str]:
        if isinstance(node, list):
            for branch in node:
                yield from names(branch)
        elif isinstance(node, dict):
            if node["type"] in ("record", "enum"):
                yield f"{node['namespace']}.{node['name']}"
            for field in node.get("fields", ()):
                yield from names(field["type"])
            yield from names([node.get("items"), node.get("values"), node["type"]])

    used = {name for topic in TOPICS for name in names(topic_schema(topic))}
    files = {path.name.removesuffix(".avsc") for path in (resources.files("schemas") / "avsc").iterdir()}
    assert files == used == {name_of(kind) for kind in (*STRUCTS, *ENUMS)}


RESULTS = {*(kind for topic in TOPICS.values() if topic.role == "result" for kind in topic.records), Snapshot}


@pytest.mark.parametrize(
    "kind", [kind for kind in STRUCTS if kind in RESULTS], ids=lambda kind: kind.__name__
)
def test_a_result_has_an_identity(kind: Struct) -> None:
    assert identity_of(kind)


@pytest.mark.parametrize("kind", [k for k in STRUCTS if identity_of(k)], ids=lambda kind: kind.__name__)
def test_an_identity_is_made_of_fields_and_told(kind: Struct) -> None:
    for path in identity_of(kind):
        inner: Any = kind
        for part in path.split("."):
            inner = typing.get_type_hints(inner)[part]
        assert inner not in (float, Decimal), "an identity must compare exactly"
    told = re.search(r"Identity: \((.*?)\)\.", kind.__doc__ or "")
    assert told is not None
    assert tuple(told[1].split(", ")) == identity_of(kind)
