"""A backtest: the topology inline, without Kafka or registry, over the ticks of a file or of the simulator."""

from __future__ import annotations

import gc
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from connectors import columns
from connectors.files import FilesSettings, TradesFile
from connectors.messages import QUOTES, Message
from connectors.simulator import Simulation, SimulatorSettings
from headrace.pipeline import (
    MarketPart,
    PipelineSettings,
    PortfolioPart,
    QuotesPart,
    SourcePart,
    StrategyPart,
    UniversePart,
)
from schemas import records
from schemas.records import DeadLetter
from streams import topology
from streams.agent import DEAD_LETTERS, Output
from streams.errors import HeadraceError
from streams.runtime.inline import Inline, Stretch
from streams.runtime.runs import record_time_ms

UNIVERSE, PORTFOLIO = "all", "backtest"
BOTH = (StrategyPart(name="momentum", uses="momentum"), StrategyPart(name="reversion", uses="reversion"))
"""The strategies that ship, with their defaults."""

_REPORT_EVERY = 4096
_COLLECT_EVERY = 200_000


class NothingToTrade(HeadraceError):
    """Raised where a file has no row that could be read."""


class NotQuotes(HeadraceError):
    """Raised where a file that should hold quotes has no bid and ask, or holds trades."""


class Read(NamedTuple):
    """How far a backtest is: ticks taken, the event time of the last message (µs), and quotes taken."""

    ticks: int
    time_us: int
    quotes: int = 0


Part = Message | columns.Stretch
"""What a feed says: one thing, or a stretch of ticks and clocks as columns."""


class Feed(NamedTuple):
    """Ticks to run over. ``symbols`` are asked for only where they are needed; ``fraction`` is 0 to 1.

    ``quotes`` is the source of the quotes among the messages, where there are any.
    """

    source: str
    title: str
    symbols: Callable[[], tuple[str, ...]]
    parts: Callable[[], Iterator[Part]]
    fraction: Callable[[Read], float]
    quotes: str | None = None


def file_feed(path: Path, settings: FilesSettings, market: MarketPart, quotes: Path | None = None) -> Feed:
    """The trades of a file, with the ``quotes`` of another.

    Raises ConnectorError where one cannot be read, `NothingToTrade` and `NotQuotes` where one is the other.
    """
    clocks = market.clocks(settings.clocks)
    file = TradesFile(path, settings.model_copy(update={"clocks": clocks}))
    if file.layout.holds_quotes:
        raise NothingToTrade(f"{path.name} holds quotes: name a file of trades, and this one as --quotes")
    title = f"{path.name} ({file.layout.describe()})"
    trades = Feed(file.source, title, lambda: symbols_of(file), file.columns, lambda _: file.fraction())
    if quotes is None:
        return trades
    other = TradesFile(quotes, settings.model_copy(update={"clocks": clocks, "limit": None}))
    if not other.layout.holds_quotes:
        raise NotQuotes(f"{quotes.name} holds no quotes ({other.layout.describe()})")

    title = f"{title}; {quotes.name} ({other.layout.describe()})"
    return trades._replace(title=title, parts=lambda: _merged(file, other), quotes=other.source)


def _merged(*files: TradesFile) -> Iterator[Message]:
    """The messages of all files by time; at the end the clock of each as far as that of the last.

    Each file keeps its own order: between them only how far one runs ahead depends on it, no result. But a universe
    waits for the clocks of all, so one that ends early must not hold back the rest of the others.
    """
    last: dict[tuple[str, str], int] = {}
    for message in heapq.merge(*(file.messages() for file in files), key=attrgetter("time_us")):
        if message.is_clock:
            last[message.topic, message.source] = message.time_us
        yield message
    end = max(last.values(), default=0)
    for (topic, source), clock in last.items():
        if clock < end:
            yield Message(None, None, end, source, topic)


def simulated_feed(settings: SimulatorSettings, market: MarketPart) -> Feed:
    """A simulated session."""
    clocks = market.clocks(settings.clocks)
    session = Simulation(settings.model_copy(update={"clocks": clocks}))
    length_us = settings.minutes * 60_000_000

    def fraction(read: Read) -> float:
        return min(max((read.time_us - settings.start_us) / length_us, 0.0), 1.0)

    title = f"simulated session, seed {settings.seed}, {settings.minutes} minutes"
    quotes = session.source if settings.quotes else None
    return Feed(session.source, title, lambda: settings.symbols, session.messages, fraction, quotes)


def symbols_of(file: TradesFile) -> tuple[str, ...]:
    """The symbols that a file's readable rows name, sorted. Reads all of it; raises `NothingToTrade`."""
    found = file.symbols()
    if not found:
        raise NothingToTrade("the file has no row that could be read as a trade")
    return found


def pipeline_for(
    declared: PipelineSettings,
    source: str,
    symbols: Callable[[], Sequence[str]],
    quotes: str | None = None,
) -> tuple[PipelineSettings, bool]:
    """``declared`` with ``source`` as its only feed, and whether defaults stand in for what it does not declare.

    ``quotes`` is the only feed of quotes; None: there are none, whatever is declared.

    Without a portfolio there is one, `PORTFOLIO`, with both strategies, over one universe, `UNIVERSE`, of all
    ``symbols`` (asked only then).
    """
    known = {part.name: part for part in declared.market.sources}
    known_quotes = {part.name: part for part in declared.market.quote_sources}
    feeds: dict[str, object] = {"sources": (known.get(source, SourcePart(name=source)),), "quotes": None}
    if quotes is not None:
        feeds["quotes"] = QuotesPart(sources=(known_quotes.get(quotes, SourcePart(name=quotes)),))
    market = declared.market.model_copy(update=feeds)
    over: dict[str, object] = {"market": market}
    missing = not declared.portfolios
    if missing:
        bar = "1m" if "1m" in market.bars else market.bars[0]
        over["universes"] = (UniversePart(name=UNIVERSE, symbols=tuple(symbols()), bar=bar),)
        over["portfolios"] = (PortfolioPart(name=PORTFOLIO, universe=UNIVERSE, strategies=BOTH),)
    return PipelineSettings.model_validate({**_parts(declared), **over}), missing


def with_strategy(pipeline: PipelineSettings, uses: str) -> PipelineSettings:
    """``pipeline`` with one strategy, with its default parameters, in every portfolio."""
    name = uses.rpartition(":")[2]
    only = (StrategyPart(name=name, uses=uses),)
    changed = tuple(part.model_copy(update={"strategies": only}) for part in pipeline.portfolios)
    return PipelineSettings.model_validate({**_parts(pipeline), "portfolios": changed})


def _parts(pipeline: PipelineSettings) -> dict[str, object]:
    return {name: getattr(pipeline, name) for name in PipelineSettings.model_fields}


def run(
    parts: Iterable[Part],
    settings: records.Settings,
    takers: Sequence[Callable[[Output], None]],
    report: Callable[[Read], None] = lambda _: None,
) -> Read:
    """Send ``parts`` through the topology; every output goes to each of ``takers``, bad rows of a file too.

    ``report`` is called every few thousand ticks. Raises StrategyError where a strategy cannot be loaded.
    """

    def collect(output: Output) -> None:
        for take in takers:
            take(output)

    inline = Inline(topology.needed(settings), settings, takers[0] if len(takers) == 1 else collect)
    tick, clock = inline.tick, inline.clock
    ticks = quotes = time_us = 0
    with _few_collections():
        for count, part in enumerate(parts, 1):
            if isinstance(part, columns.Stretch):
                for _, message in part.letters:
                    collect(_letter(message))
                inline.columns(Stretch(part.rows, part.lanes, part.clocks, part.source, part.tick))
                ticks += len(part.rows)
                time_us = part.time_us
                report(Read(ticks, time_us))
                continue
            record, time_us = part.record, part.time_us
            if record is None:
                clock(part.source, record_time_ms(time_us), part.topic)
            elif isinstance(record, DeadLetter):
                collect(_letter(part))
            else:
                tick(part.key or "", record, record_time_ms(time_us), part.topic)
                if part.topic == QUOTES:
                    quotes += 1
                else:
                    ticks += 1
            if not count % _REPORT_EVERY:
                report(Read(ticks, time_us, quotes))
        inline.flush()
    done = Read(ticks, time_us, quotes)
    report(done)
    return done


def _letter(message: Message) -> Output:
    assert isinstance(message.record, DeadLetter)
    return Output(DEAD_LETTERS, message.key or "", message.record, message.time_us)


@contextmanager
def _few_collections() -> Iterator[None]:
    """Records in flight live long enough to be walked by the collector again and again, and hold no cycles."""
    before = gc.get_threshold()
    gc.set_threshold(_COLLECT_EVERY, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
