"""A complete record of any kind, made from its types: for tests of what treats all kinds alike."""

from __future__ import annotations

import typing
from decimal import Decimal
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, TypeVar

import msgspec

from schemas.records import Record
from tests.examples import DAY0, MINUTE

R = TypeVar("R", bound=Record)

_TIMES = {"start", "end", "event_time", "mark", "decided_on"}


def any_record(kind: type[R], number: int = 0, **over: Any) -> R:
    """The ``number``-th record of ``kind``, each of another identity, with every optional field."""
    fields = {f.name: over.get(f.name, _value(f.type, f.name, number)) for f in msgspec.structs.fields(kind)}
    return kind(**fields)


def _value(kind: Any, name: str, number: int) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (UnionType, typing.Union):
        return _value(next(one for one in arguments if one is not NoneType), name, number)
    if origin is tuple:
        return tuple(_value(arguments[0], f"{name}{place}", number) for place in range(2))
    if origin is dict:
        return {f"{name}{place}": _value(arguments[1], name, number + place) for place in range(2)}
    if issubclass(kind, msgspec.Struct):
        return any_record(kind, number)
    if issubclass(kind, StrEnum):
        return list(kind)[number % len(kind)]
    if kind is str:
        return f"{name}-{number}"
    if kind is bytes:
        return f"\0{name}-{number}".encode()
    if kind is bool:
        return number % 2 == 0
    if kind is Decimal:
        return Decimal(f"-{number}.123456789")
    if kind is float:
        return number + 0.1
    if name in _TIMES:
        return DAY0 + number * MINUTE + 1  # a microsecond that milliseconds and floats of seconds would lose
    return DAY0 // 1000 + number if name.endswith("_ms") else number
