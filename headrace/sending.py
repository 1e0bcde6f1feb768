"""A few records into a topic, with the certainty that Kafka has them: what commands write, not what flows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import confluent_kafka as ck

from streams.runtime.kafka import output_settings

TIMEOUT_S = 30.0


class Outgoing(NamedTuple):
    """One record; ``topic`` is its name on the broker, ``partition`` None where the key decides."""

    topic: str
    value: bytes | None
    key: str | None = None
    timestamp_ms: int | None = None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def send(bootstrap: str, records: Iterable[Outgoing]) -> str | None:
    """Write records in order and wait for them. What went wrong, in words; None: Kafka has all of them."""
    producer = ck.Producer(output_settings(bootstrap))
    failed: list[str] = []

    def delivered(error: ck.KafkaError | None, _: ck.Message) -> None:
        if error is not None:
            failed.append(error.str())

    for topic, value, key, timestamp_ms, partition, headers in records:
        told: dict[str, Any] = {
            "timestamp": timestamp_ms,
            "partition": partition,
            "headers": list(headers) or None,
        }
        given = {name: value for name, value in told.items() if value is not None}
        producer.produce(topic, value, key, on_delivery=delivered, **given)
    if producer.flush(TIMEOUT_S):
        return "the broker does not answer"
    return "; ".join(dict.fromkeys(failed)) or None
