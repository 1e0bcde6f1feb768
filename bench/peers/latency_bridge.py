"""The floor of `bench.latency`: one hop of a bare confluent-kafka bridge, from a topic to the next.

Every tick is read and the clocks alone are passed on, as an agent passes on its bars alone. Nothing is decoded,
computed or kept, and nothing is said about a crash.

Run by the bench: python -m bench.peers.latency_bridge BOOTSTRAP SOURCE TARGET
"""

from __future__ import annotations

import sys

import confluent_kafka as ck

from streams.runtime.kafka import output_settings


def bridge(bootstrap: str, source: str, target: str) -> None:
    """Pass clocks on, partition by partition, until the process is ended."""
    reader = ck.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": target,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 5,
        }
    )
    writer = ck.Producer(output_settings(bootstrap, linger_ms=0))
    reader.subscribe([source])
    while True:
        writer.poll(0)
        first = reader.poll(0.1)
        if first is None:
            continue
        for message in [first, *reader.consume(5_000, 0)]:
            if message.error() is not None or message.key() is not None or message.value() is not None:
                continue
            _, stamp = message.timestamp()
            writer.produce(target, partition=message.partition(), timestamp=stamp)


if __name__ == "__main__":
    bridge(*sys.argv[1:])
