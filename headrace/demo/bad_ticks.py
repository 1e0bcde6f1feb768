"""A handful of deliberately bad records, so that the dead letters have something to show."""

from __future__ import annotations

import math
from typing import Any

import confluent_kafka as ck
import msgspec

from schemas.codec import Codec
from schemas.records import Tick
from schemas.topics import physical
from streams.runtime.kafka import output_settings

TOPIC = "market.ticks"
_TIMEOUT_S = 10.0


def send(bootstrap: str, namespace: str, codec: Codec, good: Tick) -> int:
    """Spoil ``good`` in several ways and write that to market.ticks; how many records it was."""

    def spoilt(sequence: int, **over: Any) -> bytes:
        named = {"session": "deliberately-bad", "sequence": sequence}
        return codec.encode(TOPIC, msgspec.structs.replace(good, **named, **over))

    values = (
        b"this is no Avro",
        b"\0" + bytes.fromhex("7fffffff") + b"a schema id that nobody registered",
        spoilt(1)[:-3],
        spoilt(2, price=math.nan),
        spoilt(3, size=-100.0),
        spoilt(4, symbol="ANOTHER"),
    )
    producer = ck.Producer(output_settings(bootstrap))
    for value in values:
        producer.produce(
            physical(namespace, TOPIC), value, good.symbol, timestamp=max(good.event_time // 1000, 1)
        )
    producer.flush(_TIMEOUT_S)
    return len(values)
