"""The same 1-second bars as a stock Faust agent would make them: a contender of `bench.throughput`.

Faust as its documentation shows it: its own aiokafka transport, an event at a time, a table with a changelog, and
default settings (but for a cure: aiokafka builds no debug records). A bar closes with the first tick of its symbol
behind it; there are no clocks, and nothing is said about a crash.

Run by the bench: python -m bench.throughput.stock_faust JOB
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import faust

from bench.peers.job import SECOND_US, Job, Marks, added, opened, tick_reader, written


def _app(job: Job) -> faust.App:
    app = faust.App(
        job.group,
        broker=f"kafka://{job.bootstrap}",
        store="memory://",
        datadir=job.folder,
        topic_partitions=job.partitions,
        topic_replication_factor=1,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    ticks = app.topic(job.ticks, **raw)
    bars = app.topic(job.bars, **raw)
    open_bars = app.Table("open-bars", partitions=job.partitions)
    read, marks = tick_reader(job.schema), Marks(job)

    @app.agent(ticks)  # type: ignore[untyped-decorator]
    async def fold(stream: Any) -> None:
        async for event in stream.events():
            tick = read(event.value)
            if tick is None:
                continue
            symbol, start = tick["symbol"], tick["event_time"] // SECOND_US * SECOND_US
            held = open_bars.get(symbol)
            if held is not None and start > held[0]:
                await bars.send(key=symbol.encode(), value=written(symbol, *held))
                held = None
            open_bars[symbol] = (start, opened(tick) if held is None else added(held[1], tick))
            marks.add()

    return app


if __name__ == "__main__":
    app = _app(Job.read())
    logging.getLogger("aiokafka").setLevel(logging.WARNING)  # it would build debug records to drop them
    sys.argv = ["stock-faust", "worker", "--loglevel", "warn"]
    app.main()
