"""The same 1-second bars as a stock Faust agent would make them: the yardstick of `bench.throughput`.

Faust as its documentation shows it: its own aiokafka transport, an event at a time, a table with a changelog, and
default settings (but for a cure: aiokafka builds no debug records). The ticks and bars are Headrace's own records,
read and written with fastavro. A bar closes with the first tick of its symbol behind it; there are no clocks, and
nothing is said about a crash.

Run by the bench: python -m bench.stock_faust BOOTSTRAP NAMESPACE RECORDS RESULT_FILE
"""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import fastavro
import faust

from schemas.codec import schema_of, topic_schema
from schemas.records import Bar
from schemas.topics import SYMBOL_PARTITIONS, physical

SECOND_US = 1_000_000
WARM_UP_RECORDS = 1_000
"""The clock starts behind these: imports, first fetches and the assignment are not measured."""
FRAME_BYTES = 5
NO_FRAME = bytes(FRAME_BYTES)

Datum = dict[str, Any]


def bars_topic(namespace: str) -> str:
    """Where this agent writes its bars; made beforehand, since Faust declares only what it reads."""
    return physical(namespace, "stock-faust.bars")


def new_bar(tick: Datum) -> Datum:
    """A bar that a tick opens; the tick is counted by `add`."""
    start = tick["event_time"] // SECOND_US * SECOND_US
    price, name = tick["price"], _name(tick)
    return {
        "symbol": tick["symbol"],
        "kind": "time:1s",
        "start": start,
        "end": start + SECOND_US,
        "ordinal": 0,
        **dict.fromkeys(("open", "high", "low", "close"), price),
        **dict.fromkeys(("volume", "notional", "buy_volume", "sell_volume"), 0.0),
        "count": 0,
        **dict.fromkeys(("first_tick", "last_tick"), name),
        "settings": 1,
    }


def add(bar: Datum, tick: Datum) -> None:
    """Count a tick, in order of event time, in the bar it belongs to."""
    price, size = tick["price"], tick["size"]
    bar["high"] = max(bar["high"], price)
    bar["low"] = min(bar["low"], price)
    bar["close"] = price
    bar["volume"] += size
    bar["notional"] += price * size
    bar["count"] += 1
    bar["buy_volume" if tick["aggressor"] == "BUY" else "sell_volume"] += size
    bar["last_tick"] = _name(tick)


def _name(tick: Datum) -> str:
    return f"{tick['source']}/{tick['session']}/{tick['sequence']}"


def _app(bootstrap: str, namespace: str, records: int, result: Path) -> faust.App:
    app = faust.App(
        physical(namespace, "stock-faust"),
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=str(result.with_suffix("")),
        topic_partitions=SYMBOL_PARTITIONS,
        topic_replication_factor=1,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    ticks = app.topic(physical(namespace, "market.ticks"), **raw)
    bars = app.topic(bars_topic(namespace), **raw)
    open_bars = app.Table("open-bars", partitions=SYMBOL_PARTITIONS)
    tick_schema = fastavro.parse_schema(topic_schema("market.ticks"))
    bar_schema = schema_of(Bar)
    seen, began_s = 0, 0.0

    @app.agent(ticks)  # type: ignore[untyped-decorator]
    async def fold(stream: Any) -> None:
        nonlocal seen, began_s
        async for event in stream.events():
            if event.key is not None:
                body = io.BytesIO(event.value)
                body.seek(FRAME_BYTES)
                tick = fastavro.schemaless_reader(body, tick_schema, None)
                symbol = tick["symbol"]
                bar = open_bars.get(symbol)
                if bar is not None and tick["event_time"] >= bar["end"]:
                    await _send(bar)
                    bar = None
                if bar is None:
                    bar = new_bar(tick)
                add(bar, tick)
                open_bars[symbol] = bar
            seen += 1
            if seen == WARM_UP_RECORDS:
                began_s = time.time()
            elif seen == records:
                told = {"records": records - WARM_UP_RECORDS, "began_s": began_s, "ended_s": time.time()}
                draft = result.with_suffix(".new")
                draft.write_text(json.dumps(told), encoding="utf-8")
                draft.replace(result)

    async def _send(bar: Datum) -> None:
        notional = bar.pop("notional")
        body = io.BytesIO()
        body.write(NO_FRAME)
        fastavro.schemaless_writer(body, bar_schema, {**bar, "vwap": notional / bar["volume"]})
        await bars.send(key=bar["symbol"].encode(), value=body.getvalue())

    return app


if __name__ == "__main__":
    bootstrap, namespace, records, result = sys.argv[1:]
    app = _app(bootstrap, namespace, int(records), Path(result))
    logging.getLogger("aiokafka").setLevel(logging.WARNING)  # it would build debug records to drop them
    sys.argv = ["stock-faust", "worker", "--loglevel", "warn"]
    app.main()
