"""Writers of Avro bodies, compiled once per record from its schema.

fastavro walks the schema for every value that it writes, and wants records as dicts: 10 µs for a bar. The writers made
here read a Struct's attributes by themselves and write the same bytes in a third of that; the tests hold them equal to
fastavro for every record and state. Reading stays fastavro's.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

Schema = Any
Write = Callable[[Any], bytes]

_INT64: Final = 1 << 63
_INFINITE: Final = ("n", "N", "F")


def compile_writer(schema: Schema) -> Write:
    """A function from a Struct to its Avro body.

    ``schema`` is the parsed schema of its record; named types are spelled where they come first. The function raises
    ValueError where a decimal does not fit its scale and precision, OverflowError where an integer has no 64 bits.
    """
    return _Compiler().record(schema)


class _Compiler:
    """Turns a schema into Python source, an expression of bytes per field, and that into a function."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {"long": long, "text": text, "raw": _raw, "join": b"".join}
        self._records: dict[str, str] = {}

    def record(self, schema: Schema) -> Write:
        name = self._record(schema)
        found: Write = self._names[name]
        return found

    def _record(self, schema: Schema) -> str:
        """The name of the function that writes a record."""
        parts: list[str] = []
        doubles: list[str] = []

        def flush() -> None:
            if doubles:
                pack = self._keep(struct.Struct(f"<{len(doubles)}d").pack)
                parts.append(f"{pack}({', '.join(doubles)})")
                doubles.clear()

        for field in schema["fields"]:
            value = f"r.{field['name']}"
            if field["type"] == "double":
                doubles.append(value)
            else:
                flush()
                parts.append(self._expression(field["type"], value))
        flush()
        source = f"lambda r: join(({', '.join(parts)},))" if parts else "lambda r: b''"
        return self._records.setdefault(_full_name(schema), self._keep(eval(source, self._names)))

    def _expression(self, schema: Schema, value: str) -> str:
        """Source of the bytes of ``value``."""
        if isinstance(schema, list):
            inner = schema[1]
            return f'(b"\\0" if {value} is None else b"\\2" + {self._expression(inner, value)})'
        if isinstance(schema, str):
            return self._named(schema, value)
        kind = schema["type"]
        if schema.get("logicalType") == "decimal":
            write = self._keep(
                functools.partial(decimal, precision=schema["precision"], scale=schema["scale"])
            )
            return f"{write}({value})"
        if kind == "array":
            items = schema["items"]
            if items == "double":
                return f"{self._keep(_doubles)}({value})"
            each = self._keep(eval(f"lambda v: {self._expression(items, 'v')}", self._names))
            return f"({self._keep(_array)}({value}, {each}))"
        if kind == "map":
            each = self._keep(eval(f"lambda v: {self._expression(schema['values'], 'v')}", self._names))
            return f"({self._keep(_map)}({value}, {each}))"
        if kind == "record":
            return f"{self._record(schema)}({value})"
        if kind == "enum":
            words = self._keep({word: long(place) for place, word in enumerate(schema["symbols"])})
            self._records[_full_name(schema)] = f"{words}.__getitem__"
            return f"{words}[{value}]"
        return self._named(kind, value)

    def _named(self, name: str, value: str) -> str:
        match name:
            case "string":
                return f"text({value})"
            case "long" | "int":
                return f"long({value})"
            case "double":
                return f"{self._keep(struct.Struct('<d').pack)}({value})"
            case "boolean":
                return f'(b"\\1" if {value} else b"\\0")'
            case "bytes":
                return f"raw({value})"
            case _:
                return f"{self._records[name]}({value})"

    def _keep(self, thing: object) -> str:
        """A name under which the generated source finds ``thing``."""
        name = f"_{len(self._names)}"
        self._names[name] = thing
        return name


def _full_name(schema: Schema) -> str:
    return f"{schema['namespace']}.{schema['name']}"


@functools.lru_cache(maxsize=8_192)
def long(value: int) -> bytes:
    """Zigzag and base 128. Counts, versions, and the times that many records share come again and again."""
    if not -_INT64 <= value < _INT64:
        raise OverflowError(f"{value} does not fit into 64 bits")
    rest = (int(value) << 1) ^ (int(value) >> 63)  # int: one of numpy would overflow
    found = bytearray()
    while rest > 127:
        found.append(rest & 127 | 128)
        rest >>= 7
    found.append(rest)
    return bytes(found)


def text(value: str) -> bytes:
    """Length and UTF-8."""
    body = value.encode()
    return long(len(body)) + body


def _raw(value: bytes) -> bytes:
    return long(len(value)) + value


def decimal(value: Decimal, precision: int, scale: int) -> bytes:
    """Length and the unscaled number, big-endian two's complement."""
    sign, digits, exponent = value.as_tuple()
    if exponent in _INFINITE or len(digits) > precision:
        raise ValueError(f"{value} has more than {precision} digits")
    shift = int(exponent) + scale
    if shift < 0:
        raise ValueError(f"{value} has more than {scale} places")
    unscaled: int = int("".join(map(str, digits))) * 10**shift
    body = (-unscaled if sign else unscaled).to_bytes((unscaled.bit_length() + 8) // 8, "big", signed=True)
    return long(len(body)) + body


def _array(values: Any, each: Write) -> bytes:
    return b"".join((long(len(values)), *map(each, values), b"\0")) if values else b"\0"


def _doubles(values: Any) -> bytes:
    count = len(values)
    return long(count) + struct.pack(f"<{count}d", *values) + b"\0" if count else b"\0"


def _map(values: Mapping[str, Any], each: Write) -> bytes:
    if not values:
        return b"\0"
    pairs = (text(key) + each(value) for key, value in values.items())
    return b"".join((long(len(values)), *pairs, b"\0"))
