"""Quotes from a file, over Kafka, beside the trades: into the snapshots, and into what a market order pays."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain
from pathlib import Path

import pytest

from connectors.files import FilesSettings, TradesFile
from connectors.messages import Message
from connectors.simulator import Simulation, SimulatorSettings
from headrace import compare
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints
from schemas.records import DeadLetter, Execution, OrderType, Quote, QuoteBar, Reason, Snapshot, Tick
from streams.agent import Output
from streams.positions.money import from_float
from streams.venue.costs import market_price
from tests import database
from tests.pipeline import KafkaRun, inline

SYMBOLS = ("SIM01", "SIM02", "SIM03", "SIM04")
MARKET = SimulatorSettings(
    seed=3, symbols=SYMBOLS, minutes=90, ticks_per_minute=30.0, half_spread_bps=8.0, quotes=True
)
SETTINGS = PipelineSettings.model_validate(
    {
        "market": {"sources": [{"name": "files"}], "quotes": {"sources": [{"name": "files"}]}},
        "universes": [
            {"name": "north", "symbols": SYMBOLS, "warm_up": 10},
            {"name": "south", "symbols": SYMBOLS[:2], "warm_up": 10, "bar": "5m"},
        ],
        "portfolios": [
            {
                "name": "alpha",
                "universe": "north",
                "strategies": [{"name": "momentum", "uses": "momentum", "parameters": {"lookback": 10}}],
            }
        ],
    }
)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Trades and quotes of a session as two CSV files; the quotes lack a stretch and have rows that are none."""
    folder = tmp_path_factory.mktemp("market")
    trades, quotes = folder / "trades.csv", folder / "quotes.csv"
    with trades.open("w", newline="") as t, quotes.open("w", newline="") as q:
        tick_rows, quote_rows = csv.writer(t), csv.writer(q)
        tick_rows.writerow(["ts_us", "symbol", "price", "size"])
        quote_rows.writerow(["ts_us", "symbol", "bid", "bid_size", "ask", "ask_size"])
        for message in Simulation(MARKET).messages():
            match message.record:
                case Tick() as tick:
                    tick_rows.writerow([tick.event_time, tick.symbol, tick.price, tick.size])
                case Quote() as quote if not 40 <= _minute(quote.event_time) < 45:
                    figures = [quote.bid, quote.bid_size, quote.ask, quote.ask_size]
                    quote_rows.writerow([quote.event_time, quote.symbol, *figures])
                    if quote.sequence == 300:
                        quote_rows.writerow([quote.event_time, quote.symbol, "none", 1, 1, 1])
                        quote_rows.writerow([quote.event_time, quote.symbol, 2.0, 1, 1.0, 1])
    return trades, quotes


def _minute(time_us: int) -> int:
    return (time_us - MARKET.start_us) // 60_000_000


def messages(market: tuple[Path, Path]) -> Iterator[Message]:
    """The trades, and only then the quotes: what comes of them must not depend on it."""
    clocks = SETTINGS.market.clocks(FilesSettings().clocks)
    return chain.from_iterable(TradesFile(path, FilesSettings(clocks=clocks)).messages() for path in market)


def test_quotes_through_kafka(
    stack: Endpoints, namespace: str, tmp_path: Path, market: tuple[Path, Path]
) -> None:
    outputs: list[Output] = []
    oracle = inline(SETTINGS, messages(market), outputs=outputs)
    check_that_it_shows_something(outputs)
    with KafkaRun(stack, namespace, SETTINGS, tmp_path) as run:
        run.start(["files", str(market[0]), "--rate", "1500"])
        run.ingest("files", str(market[1]), "--rate", "1500", name="ingest-quotes")
        run.kill_when_reached("quotes-0", 3_000)
        run.kill_when_reached("universes-0", 6_000)
        run.wait_for_ingest()
        run.wait_for_ingest("ingest-quotes")
        run.settle()
        found = compare.differences(oracle, run.results())
        assert not found, "\n".join(f"{d.topic} {d.key}: {d.what}" for d in found[:5])
        assert all(kill.lag for kill in run.kills)
    assert database.mismatches(stack.database, namespace, oracle) == []


def check_that_it_shows_something(outputs: list[Output]) -> None:
    """Fills in windows with quotes paid their spread, those in windows without paid that of the settings."""
    snapshots = {o.value.start: o.value for o in outputs if isinstance(o.value, Snapshot)}
    quotes = {
        (start, row.symbol): row.quote for start, snapshot in snapshots.items() for row in snapshot.rows
    }
    bars = {(start, row.symbol): row.bar for start, snapshot in snapshots.items() for row in snapshot.rows}
    venue = SETTINGS.record().portfolios[0].venue
    paid_quoted = 0
    for output in outputs:
        fill = output.value
        if not isinstance(fill, Execution) or fill.last_price is None:
            continue
        assert fill.order_type is OrderType.MARKET
        bar, quote = bars[fill.start, fill.symbol], quotes[fill.start, fill.symbol]
        half = venue.half_spread_bps if quote is None else from_float(quote.spread_bps) / 2
        volume = from_float(bar.volume)
        expected = market_price(venue, fill.side, from_float(bar.open), fill.last_quantity, volume, half)
        assert fill.last_price == expected
        if quote is not None:
            assert half > Decimal(4) * venue.half_spread_bps
            paid_quoted += 1
    assert paid_quoted > 10
    silent = [quote for (start, _), quote in quotes.items() if 40 <= _minute(start) < 45]
    assert silent
    assert set(silent) == {None}
    assert sum(isinstance(quote, QuoteBar) for quote in quotes.values()) > 300
    reasons = [(o.value.stage, o.value.reason) for o in outputs if isinstance(o.value, DeadLetter)]
    assert reasons == [("files", Reason.BAD_ROW), ("quotes", Reason.BAD_PRICE)]
