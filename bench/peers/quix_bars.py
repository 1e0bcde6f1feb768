"""1-second bars by Quix Streams: a tumbling window by event time with its state in RocksDB and its changelog.

Default settings, but for librdkafka's pause when its queue is full (1 s, which only makes it idle here). Windows
close with a later tick of their key.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from quixstreams import Application
from quixstreams.models import IgnoreMessage, SerializationContext
from quixstreams.models.serializers import Deserializer

from bench.peers.job import Job, Marks, added, opened, tick_reader, written


class Ticks(Deserializer):  # type: ignore[misc]
    """Values of market.ticks; what is no tick is passed over."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._tick = tick_reader(job.schema)
        self._marks = Marks(job)

    def __call__(self, value: bytes, ctx: SerializationContext) -> Any:
        tick = self._tick(value)
        if tick is None:
            raise IgnoreMessage
        self._marks.add()
        return tick


def main() -> None:
    """Run until SIGTERM."""
    job = Job.read()
    app = Application(
        job.bootstrap,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        state_dir=job.folder,
        loglevel="WARNING",
        consumer_extra_config={"fetch.queue.backoff.ms": 5},
    )
    ticks = app.topic(job.ticks, key_deserializer="str", value_deserializer=Ticks(job))
    bars = app.topic(job.bars, key_serializer="str", value_serializer="bytes")
    frame = app.dataframe(ticks)
    frame = frame[frame.apply(lambda tick: tick is not None)]  # a clock has no value and is not deserialized
    frame = frame.tumbling_window(timedelta(seconds=1)).reduce(initializer=opened, reducer=added).final()
    frame = frame.apply(
        lambda closed, key, *_: written(key, closed["start"] * 1_000, closed["value"]), metadata=True
    )
    frame.to_topic(bars)
    app.run()


if __name__ == "__main__":
    main()
