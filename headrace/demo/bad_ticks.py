"""A handful of deliberately bad records, so that the dead letters have something to show."""

from __future__ import annotations

import math

import confluent_kafka as ck

from schemas.codec import Codec
from schemas.records import Tick
from schemas.topics import physical
from streams.runtime.kafka import output_settings

TOPIC = "market.ticks"
_TIMEOUT_S = 10.0


def send(bootstrap: str, namespace: str, codec: Codec, good: Tick) -> int:
    """Spoil ``good`` in several ways and write that to market.ticks; how many records it was."""

    def spoilt(sequence: int, **over: object) -> bytes:
        told = {"session": "deliberately-bad", "sequence": sequence, **over}
        return codec.encode(TOPIC, Tick(**{**_fields(good), **told}))

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
    return len(values) - producer.flush(_TIMEOUT_S)


def _fields(tick: Tick) -> dict[str, object]:
    return {name: getattr(tick, name) for name in tick.__struct_fields__}
