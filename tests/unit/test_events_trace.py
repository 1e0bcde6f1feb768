"""docs/events.md shows two traces, input by input; this runs them and compares every line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from headrace.pipeline import (
    MarketPart,
    PipelineSettings,
    PortfolioPart,
    QuotesPart,
    RegimesPart,
    SourcePart,
    StrategyPart,
    UniversePart,
)
from schemas.partitioner import partition_of
from schemas.records import (
    Bar,
    Clock,
    Correlations,
    DeadLetter,
    Equity,
    Execution,
    LateTick,
    Position,
    Quote,
    QuoteBar,
    Record,
    Regime,
    RiskMetrics,
    Signal,
    Snapshot,
    Tick,
    UniverseBar,
)
from schemas.topics import TOPICS
from streams import topology
from streams.agent import Output
from streams.runtime.inline import Inline

EVENTS = (Path(__file__).parents[2] / "docs" / "events.md").read_text("utf-8")
DAY = datetime(2024, 1, 2, tzinfo=UTC)
IN, OUT = "▶ ", "◀ "


def block(language: str) -> str:
    """The one code block of a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", EVENTS, re.M | re.S)
    assert len(found) == 1
    return str(found[0])


def micros(time: str) -> int:
    """HH:MM:SS[.fff] of the day, in µs since the epoch."""
    hours, minutes, seconds = time.split(":")
    return int((DAY.timestamp() + int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1e6)


def clock(time_us: int) -> str:
    """The time of day, without a fraction that is zero."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%H:%M:%S.%f")[:-3].removesuffix(".000")


def number(value: Decimal | float | None) -> str:
    return f"{float(value or 0):.10g}"


def described(record: Record) -> str:
    """The fields that the trace is about."""
    match record:
        case Bar():
            prices = " ".join(number(p) for p in (record.open, record.high, record.low, record.close))
            rest = f"volume {number(record.volume)} count {record.count}"
            return f"Bar {record.kind} {clock(record.start)} ohlc {prices} {rest}"
        case Regime():
            return f"Regime {record.kind} {clock(record.start)} {record.label} warm {record.warm}"
        case UniverseBar():
            return f"UniverseBar {record.bar.symbol} {clock(record.bar.start)}"
        case QuoteBar():
            prices = " ".join(number(p) for p in (record.open, record.high, record.low, record.close))
            rest = f"microprice {number(record.microprice)} count {record.count}"
            spread = f"spread {number(record.spread)} ({number(record.spread_bps)} bps)"
            return f"QuoteBar {record.symbol} {clock(record.start)} mid {prices} {spread} {rest}"
        case Clock():
            return f"Clock {record.topic}/{record.partition} through {clock(record.through)}"
        case Correlations():
            return f"Correlations {clock(record.start)} {' '.join(record.symbols)}"
        case Snapshot():
            rows = " ".join(
                row.symbol + (" (stale)" if row.stale else "") + (" (quoted)" if row.quote else "")
                for row in record.rows
            )
            return f"Snapshot {clock(record.start)} {rows}"
        case RiskMetrics():
            return f"RiskMetrics {clock(record.start)} equity {number(record.equity)} gross {number(record.gross)}"
        case Signal():
            return (
                f"Signal {record.strategy} {record.symbol} weight {number(record.weight)} “{record.reason}”"
            )
        case Execution():
            event = f"Execution {record.order_id} #{record.sequence} {record.state}"
            if record.last_price is None:
                return f"{event} {record.side} {number(record.quantity)}"
            return f"{event} {number(record.last_quantity)} at {number(record.last_price)} fee {number(record.fee)}"
        case Position():
            return f"Position {record.symbol} {number(record.quantity)} cost {number(record.average_cost)}"
        case Equity():
            return f"Equity {clock(record.start)} cash {number(record.cash)} equity {number(record.equity)}"
        case LateTick():
            return f"LateTick {record.name} {' '.join(record.kinds)} “{record.reason}”"
        case DeadLetter():
            return f"DeadLetter {record.stage} {record.reason} {record.input}"
    raise AssertionError(f"{type(record).__name__} is not in the trace")


def line(output: Output) -> str:
    """``topic/partition key  record``."""
    partition = partition_of(output.key, TOPICS[output.topic].partitions)
    return f"{OUT}{output.topic}/{partition} {output.key}: {described(output.value)}"


def feed(runner: Inline, words: list[str]) -> None:
    """``[quotes] clock time``, ``SYMBOL time price × size #sequence`` or ``SYMBOL time bid × size – ask × size #…``."""
    if words[-2] == "clock":
        topic = "market.quotes" if words[0] == "quotes" else "market.ticks"
        runner.clock("desk", micros(words[-1]) // 1000, topic)
        return
    if len(words) == 10:
        symbol, time, bid, _, bid_size, _, ask, _, ask_size, sequence = words
        quote = Quote(
            symbol=symbol,
            source="desk",
            session="s1",
            sequence=int(sequence.removeprefix("#")),
            event_time=micros(time),
            bid=float(bid),
            bid_size=float(bid_size),
            ask=float(ask),
            ask_size=float(ask_size),
        )
        runner.tick(symbol, quote, quote.event_time // 1000, "market.quotes")
        return
    symbol, time, price, _, size, sequence = words
    tick = Tick(
        symbol=symbol,
        source="desk",
        session="s1",
        sequence=int(sequence.removeprefix("#")),
        event_time=micros(time),
        price=float(price),
        size=float(size),
    )
    runner.tick(symbol, tick, tick.event_time // 1000)


def inputs(language: str) -> Iterator[str]:
    return (text for text in block(language).splitlines() if text.startswith(IN))


@pytest.fixture
def pipeline(tmp_path: Path) -> PipelineSettings:
    """The settings that docs/events.md describes, with its strategy in a file."""
    strategy = tmp_path / "hold.py"
    strategy.write_text(block("python"))
    return PipelineSettings(
        market=MarketPart(
            bars=("1m",),
            lateness_ms=2_000,
            sources=(SourcePart(name="desk"),),
            regimes=RegimesPart(bars=("1m",)),
        ),
        universes=(UniversePart(name="pair", symbols=("ACME", "BOLT")),),
        portfolios=(
            PortfolioPart(
                name="book",
                universe="pair",
                strategies=(StrategyPart(name="hold", uses=f"{strategy}:Hold"),),
            ),
        ),
    )


def trace(pipeline: PipelineSettings, language: str, left_out: tuple[type[Record], ...] = ()) -> str:
    """Every input of the document, each followed by what it brings about."""
    outputs: list[Output] = []
    runner = Inline(topology.agents(), pipeline.record(), outputs.append, run_records=1)
    lines = []
    for text in inputs(language):
        lines.append(text)
        feed(runner, re.sub(r"\s+\(.*\)$", "", text.removeprefix(IN)).split())
        lines += [line(output) for output in outputs if not isinstance(output.value, left_out)]
        outputs.clear()
    return "\n".join(lines) + "\n"


def shown(language: str) -> list[str]:
    return [text for text in block(language).splitlines() if text and not text.startswith("—")]


def test_the_trace_in_the_document_is_what_happens(pipeline: PipelineSettings) -> None:
    assert shown("trace") == trace(pipeline, "trace").splitlines()


def test_so_is_the_one_with_quotes(pipeline: PipelineSettings) -> None:
    quotes = QuotesPart(sources=(SourcePart(name="desk"),))
    market = pipeline.market.model_copy(update={"quotes": quotes})
    quoted = pipeline.model_copy(update={"market": market})
    left_out = (Clock, Regime, RiskMetrics, Signal, Equity)
    assert shown("quotes") == trace(quoted, "quotes", left_out).splitlines()
