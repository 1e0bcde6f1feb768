"""Stock Faust for `bench.latency`: ticks to 1-second bars, and in a second process bars to orders.

As Faust's documentation shows it: its own transport, an event at a time, a table with a changelog, default settings
(but for a cure: aiokafka builds no debug records). A bar closes with the first tick of its symbol behind it.

Run by the bench: python -m bench.peers.latency_faust BOOTSTRAP NAMESPACE bars|orders FOLDER
"""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

import fastavro
import faust

from schemas.codec import topic_schema
from schemas.topics import SYMBOL_PARTITIONS, physical

SECOND_US = 1_000_000
FRAME_BYTES = 5
BARS, ORDERS = "stock-faust.bars", "stock-faust.orders"


class Bar(faust.Record, serializer="json"):  # type: ignore[call-arg, misc]
    """A bar, or an order on it: what latency needs is its name."""

    symbol: str
    start: int
    open: float
    high: float
    low: float
    close: float
    volume: float


def _app(bootstrap: str, namespace: str, hop: str, folder: str) -> faust.App:
    app = faust.App(
        physical(namespace, f"stock-faust-{hop}"),
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=folder,
        topic_partitions=SYMBOL_PARTITIONS,
        topic_replication_factor=1,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    bars = app.topic(physical(namespace, BARS), value_type=Bar, key_type=str)
    if hop == "orders":
        orders = app.topic(physical(namespace, ORDERS), value_type=Bar, key_type=str)

        @app.agent(bars)  # type: ignore[untyped-decorator]
        async def decide(stream: Any) -> None:
            async for bar in stream:
                await orders.send(key=bar.symbol, value=bar)

        return app

    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    ticks = app.topic(physical(namespace, "market.ticks"), **raw)
    open_bars = app.Table("open-bars", partitions=SYMBOL_PARTITIONS)
    schema = fastavro.parse_schema(topic_schema("market.ticks"))

    @app.agent(ticks)  # type: ignore[untyped-decorator]
    async def fold(stream: Any) -> None:
        async for event in stream.events():
            if event.key is None:
                continue
            body = io.BytesIO(event.value)
            body.seek(FRAME_BYTES)
            tick: Any = fastavro.schemaless_reader(body, schema, None)
            symbol, price, size = tick["symbol"], tick["price"], tick["size"]
            start = tick["event_time"] // SECOND_US * SECOND_US
            bar = open_bars.get(symbol)
            if bar is None or start > bar["start"]:
                if bar is not None:
                    await bars.send(key=symbol, value=Bar(**bar))
                prices = dict.fromkeys(("open", "high", "low", "close"), price)
                bar = {"symbol": symbol, "start": start, **prices, "volume": 0.0}
            bar["high"] = max(bar["high"], price)
            bar["low"] = min(bar["low"], price)
            bar["close"] = price
            bar["volume"] += size
            open_bars[symbol] = bar

    return app


if __name__ == "__main__":
    bootstrap, namespace, hop, folder = sys.argv[1:]
    app = _app(bootstrap, namespace, hop, folder)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)  # it would build debug records to drop them
    sys.argv = ["stock-faust", "worker", "--loglevel", "warn", "--without-web"]
    app.main()
