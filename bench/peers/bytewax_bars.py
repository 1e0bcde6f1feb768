"""1-second bars by Bytewax: a folding tumbling window by event time, from Kafka to Kafka, without a recovery store.

Default settings, but for librdkafka's pause when its queue is full (1 s, which only makes it idle here) and batches
of 10,000 instead of 1,000 records. The event clock is told that no system time passes: otherwise it moves on while a
key's partition waits for its turn, and ticks that are in order come out as late. Windows close with a later tick of
their key. Decoding goes by whole batches; ticks of a key are in order, so they need no sorting.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax._bytewax import cli_main
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window

from bench.peers.job import SECOND_US, Datum, Job, Marks, added, opened, tick_reader, written

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BATCH_RECORDS = 10_000


def main() -> None:
    """Run until SIGTERM."""
    job = Job.read()
    read, marks = tick_reader(job.schema), Marks(job)

    def decode(messages: list[Any]) -> Iterable[tuple[str, Datum]]:
        found = [tick for message in messages if (tick := read(message.value)) is not None]
        marks.add(len(found))
        return [(tick["symbol"], tick) for tick in found]

    def time_of(tick: Datum) -> datetime:
        return datetime.fromtimestamp(tick["event_time"] / 1e6, UTC)

    def fold(bar: Datum, tick: Datum) -> Datum:
        return added(bar, tick) if bar else opened(tick)

    def merge(first: Datum, second: Datum) -> Datum:
        raise NotImplementedError("tumbling windows are never merged")

    def encode(closed: tuple[str, tuple[int, Datum]]) -> KafkaSinkMessage[bytes, bytes]:
        symbol, (window, bar) = closed
        return KafkaSinkMessage(symbol.encode(), written(symbol, window * SECOND_US, bar))

    flow = Dataflow("bars")
    source = KafkaSource(
        [job.bootstrap],
        [job.ticks],
        add_config={"fetch.queue.backoff.ms": "5"},
        batch_size=BATCH_RECORDS,
    )
    ticks = op.flat_map_batch("decode", op.input("ticks", flow, source), decode)
    clock = EventClock(
        time_of,
        wait_for_system_duration=timedelta(0),
        now_getter=lambda: EPOCH,
        to_system_utc=lambda _: None,
    )
    windower = TumblingWindower(length=SECOND, align_to=EPOCH)
    bars = fold_window("bars", ticks, clock, windower, dict, fold, merge, ordered=False)
    op.output("out", op.map("encode", bars.down, encode), KafkaSink([job.bootstrap], job.bars))
    cli_main(flow)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
