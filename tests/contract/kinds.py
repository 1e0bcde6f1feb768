"""Every record and state: its fields beside its schema's, values of it for hypothesis, and a complete example."""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec
from hypothesis import strategies as st

from schemas import records, states
from schemas.codec import raw_schema
from schemas.records import Record
from schemas.states import State
from schemas.topics import TOPICS
from tests.examples import bar, settings, tick

Struct = type[msgspec.Struct]

STRUCTS: tuple[Struct, ...] = tuple(
    kind
    for module in (records, states)
    for kind in vars(module).values()
    if isinstance(kind, type)
    and issubclass(kind, msgspec.Struct)
    and kind.__module__.startswith(module.__name__)
    if kind not in (Record, State)
)
CARRIED = [(topic.name, kind) for topic in TOPICS.values() for kind in topic.records]
IDS = {name: number for number, name in enumerate(TOPICS, 1)}
BOUNDS = {"int": 2**31 - 1, "long": 2**63 - 1}


def name_of(kind: type) -> str:
    """Avro's full name of a record or enum."""
    return f"headrace.{kind.__name__}"


def fields(kind: Struct) -> Iterator[tuple[msgspec.structs.FieldInfo, Any, dict[str, Any]]]:
    """Each field of a struct, its type, and the field of the same place in its .avsc."""
    hints = typing.get_type_hints(kind)
    pairs = zip(msgspec.structs.fields(kind), raw_schema(kind)["fields"], strict=True)
    return ((field, hints[field.name], declared) for field, declared in pairs)


def values(avro: Any, hint: Any) -> st.SearchStrategy[Any]:
    """Values of a Python type, within what its Avro type can hold."""
    arguments = typing.get_args(hint)
    if isinstance(avro, list):
        return st.none() | values(avro[1], arguments[0])
    if isinstance(avro, dict) and avro["type"] == "array":
        items = st.lists(values(avro["items"], arguments[0]), max_size=2)
        return items if typing.get_origin(hint) is list else items.map(tuple)
    if isinstance(avro, dict) and avro["type"] == "map":
        return st.dictionaries(st.text(max_size=5), values(avro["values"], arguments[1]), max_size=2)
    if hint is int:
        limit = BOUNDS[avro["type"] if isinstance(avro, dict) else avro]
        return st.integers(-limit - 1, limit)
    if hint is Decimal:
        return st.integers(1 - 10**28, 10**28 - 1).map(lambda unscaled: Decimal(unscaled).scaleb(-9))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return instances(hint)
    plain: dict[Any, st.SearchStrategy[Any]] = {
        float: st.floats(allow_nan=False),
        str: st.text(max_size=10),
        bool: st.booleans(),
        bytes: st.binary(max_size=10),
    }
    return plain[hint]


@functools.cache
def instances(kind: Struct) -> st.SearchStrategy[Any]:
    return st.builds(
        kind, **{field.name: values(declared["type"], hint) for field, hint, declared in fields(kind)}
    )


def example(kind: Struct) -> Any:
    """One complete instance of any kind, the same each time."""
    if kind is records.Settings:
        return settings()
    if kind in (records.Bar, records.Tick):
        return bar() if kind is records.Bar else tick()
    return kind(**{field.name: sample(declared["type"], hint) for field, hint, declared in fields(kind)})


def sample(avro: Any, hint: Any) -> Any:
    """A value that is not the type's zero, with something in every array and map."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(avro, list):
        return sample(avro[1], arguments[0])
    if origin in (tuple, list):
        return origin([sample(avro["items"], arguments[0])])
    if origin is dict:
        return {"key": sample(avro["values"], arguments[1])}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return list(hint)[-1]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return example(hint)
    return {int: 300, float: 1.5, str: "text", bool: True, bytes: b"bytes", Decimal: Decimal("1.5")}[hint]
