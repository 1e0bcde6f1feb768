"""How a run becomes what an agent is given: columns for ticks, records one by one elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from schemas.codec import Codec, Unreadable
from schemas.columns import Packed
from schemas.records import Record
from streams.agent import Input

TICKS: Final = "market.ticks"


def read(codec: Codec, topic: str, records: Packed) -> Sequence[Input]:
    """The decoded records of a run of ``topic``.

    Raises `schemas.codec.RegistryUnavailable` where a writer's schema is not at hand and the registry does not answer.
    """
    if topic == TICKS:
        from streams.ticks import Ticks  # who reads no ticks need not import the kernels' compiler

        return Ticks.read(codec, records)
    return [
        Input(
            offset,
            timestamp_ms,
            key,
            None if value is None else cast("Record | Unreadable", codec.decode(topic, value)),
            value,
            headers,
        )
        for offset, timestamp_ms, key, value, headers in records
    ]
