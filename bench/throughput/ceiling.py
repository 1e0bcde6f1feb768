"""What a consumer in Python can reach at best: a bare confluent-kafka loop, with or without fastavro's decoding.

It writes nothing and keeps no state. The fetch settings are chosen for throughput; librdkafka's pause when its queue
is full (1 s) would make it idle.

Run by the bench: python -m bench.throughput.ceiling JOB
"""

from __future__ import annotations

import confluent_kafka as ck

from bench.peers.job import Job, Marks, tick_reader

BATCH_RECORDS = 10_000


def main() -> None:
    """Consume for ever."""
    job = Job.read()
    consumer = ck.Consumer(
        {
            "bootstrap.servers": job.bootstrap,
            "group.id": job.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": 131_072,
        }
    )
    consumer.assign([ck.TopicPartition(job.ticks, number, 0) for number in range(job.partitions)])
    consumer.poll(1.0)  # librdkafka begins to fetch with the first poll
    read, marks = tick_reader(job.schema), Marks(job)
    decodes = job.options["decode"] == "fastavro"
    while True:
        messages = consumer.consume(BATCH_RECORDS, 0.1)
        if decodes:
            marks.add(sum(read(message.value()) is not None for message in messages))
        else:
            marks.add(sum(message.value() is not None for message in messages))


if __name__ == "__main__":
    main()
