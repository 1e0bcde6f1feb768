"""A strategy's own state in Avro, with a schema derived from its Struct, so that anyone can read a changelog.

| field type                     | Avro             |
|--------------------------------|------------------|
| bool, int, float, str, bytes   | boolean, long, double, string, bytes |
| list[T], tuple[T, ...]         | array            |
| dict[str, T]                   | map              |
| T or None                      | null or T        |
| another Struct                 | record           |
"""

from __future__ import annotations

import io
import json
from typing import Any, Generic, TypeVar

import fastavro
import msgspec
from msgspec import inspect

from schemas.states import StrategyState
from streams.errors import StateMismatch, StrategyInvalid

S = TypeVar("S", bound=msgspec.Struct)
Schema = Any

_SCALARS: dict[type[inspect.Type], str] = {
    inspect.BoolType: "boolean",
    inspect.IntType: "long",
    inspect.FloatType: "double",
    inspect.StrType: "string",
    inspect.BytesType: "bytes",
}


class StateCodec(Generic[S]):
    """Writes a strategy's state into its envelope and reads it back.

    Raises StrategyInvalid where the Struct has a field that cannot be stored, or cannot be made without
    arguments.
    """

    def __init__(self, name: str, state_type: type[S]) -> None:
        self._name = name
        self._type = state_type
        schema = avro_schema(state_type)
        self.schema = json.dumps(schema)
        try:
            self._parsed = fastavro.parse_schema(schema)
            self._fresh = self._encode(state_type())
        except Exception as error:
            raise StrategyInvalid(
                f"{state_type.__qualname__}() cannot be made and stored: {error}"
            ) from error

    def new(self, name: str) -> StrategyState:
        """The envelope of a strategy that has seen nothing yet."""
        return StrategyState(name=name, schema=self.schema, body=self._fresh, snapshots=0)

    def read(self, envelope: StrategyState) -> S:
        """A copy of the state in ``envelope``, which a former version of the class may have written.

        Fields that the class has dropped are ignored, new ones get their defaults. Raises StateMismatch where
        a field's type has changed or a new one has no default.
        """
        try:
            own = envelope.schema == self.schema
            writer = self._parsed if own else fastavro.parse_schema(json.loads(envelope.schema))
            return msgspec.convert(
                fastavro.schemaless_reader(io.BytesIO(envelope.body), writer, None), self._type
            )
        except Exception as error:
            raise StateMismatch(self._name, str(error)) from error

    def write(self, envelope: StrategyState, state: S) -> None:
        """Put ``state`` into ``envelope``, which is left alone where that raises (a value of the wrong
        type).
        """
        envelope.body = self._encode(state)
        envelope.schema = self.schema

    def _encode(self, state: S) -> bytes:
        datum = msgspec.to_builtins(state, builtin_types=(bytes,))
        msgspec.convert(datum, self._type)  # fastavro would silently cut 3.5 to 3 for a long
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._parsed, datum)
        return out.getvalue()


def avro_schema(state_type: type[msgspec.Struct]) -> Schema:
    """The Avro schema of a Struct. Raises StrategyInvalid, naming the field, for a type that has none."""
    return _record(state_type, set())


def _record(struct: type[msgspec.Struct], named: set[type]) -> Schema:
    name = struct.__qualname__.replace(".<locals>", "").replace(".", "_")
    if struct in named:
        return name
    named.add(struct)
    fields = []
    described = inspect.type_info(struct)
    assert isinstance(described, inspect.StructType)
    for field in described.fields:
        where = f"{struct.__qualname__}.{field.name}"
        fields.append({"name": field.name, "type": _avro(field.type, where, named)})
    return {"type": "record", "name": name, "fields": fields}


def _avro(kind: inspect.Type, where: str, named: set[type]) -> Schema:
    scalar = _SCALARS.get(type(kind))
    if scalar is not None:
        return scalar
    match kind:
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return {"type": "array", "items": _avro(item, where, named)}
        case inspect.DictType(key_type=inspect.StrType(), value_type=value):
            return {"type": "map", "values": _avro(value, where, named)}
        case (
            inspect.UnionType(types=(inspect.NoneType(), other))
            | inspect.UnionType(types=(other, inspect.NoneType()))
        ):
            return ["null", _avro(other, where, named)]
        case inspect.StructType(cls=struct):
            return _record(struct, named)
    raise StrategyInvalid(
        f"{where} cannot be stored: a state's fields are bool, int, float, str, bytes, lists and tuples of "
        f"those, dicts by str, other Structs, or one of these or None"
    )
