"""A backtest: the topology inline, without Kafka or registry, over the ticks of a file or of the simulator."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from connectors.files import FilesSettings, TradesFile
from connectors.messages import Message
from connectors.simulator import Simulation, SimulatorSettings
from headrace.pipeline import (
    MarketPart,
    PipelineSettings,
    PortfolioPart,
    SourcePart,
    StrategyPart,
    UniversePart,
)
from schemas import records
from schemas.records import DeadLetter, Tick
from streams import topology
from streams.agent import DEAD_LETTERS, Output
from streams.errors import HeadraceError
from streams.runtime.inline import Inline

UNIVERSE, PORTFOLIO = "all", "backtest"
BOTH = (StrategyPart(name="momentum", uses="momentum"), StrategyPart(name="reversion", uses="reversion"))
"""The strategies that ship, with their defaults."""

_REPORT_EVERY = 4096
_COLLECT_EVERY = 200_000


class NothingToTrade(HeadraceError):
    """Raised where a file has no row that could be read."""


class Read(NamedTuple):
    """How far a backtest is: ticks taken, and the event time of the last message (µs)."""

    ticks: int
    time_us: int


class Feed(NamedTuple):
    """Ticks to run over. ``symbols`` are asked for only where they are needed; ``fraction`` is 0 to 1."""

    source: str
    title: str
    symbols: Callable[[], tuple[str, ...]]
    messages: Callable[[], Iterator[Message]]
    fraction: Callable[[Read], float]


def file_feed(path: Path, settings: FilesSettings, market: MarketPart) -> Feed:
    """The trades of a file. Raises ConnectorError where it cannot be read."""
    clocks = market.clocks(settings.clocks)
    file = TradesFile(path, settings.model_copy(update={"clocks": clocks}))
    title = f"{path.name} ({file.layout.describe()})"
    return Feed(file.source, title, lambda: symbols_of(file), file.messages, lambda _: file.fraction())


def simulated_feed(settings: SimulatorSettings, market: MarketPart) -> Feed:
    """A simulated session."""
    clocks = market.clocks(settings.clocks)
    session = Simulation(settings.model_copy(update={"clocks": clocks}))
    length_us = settings.minutes * 60_000_000

    def fraction(read: Read) -> float:
        return min(max((read.time_us - settings.start_us) / length_us, 0.0), 1.0)

    title = f"simulated session, seed {settings.seed}, {settings.minutes} minutes"
    return Feed(session.source, title, lambda: settings.symbols, session.messages, fraction)


def symbols_of(file: TradesFile) -> tuple[str, ...]:
    """The symbols that a file's readable rows name, sorted. Reads all of it; raises `NothingToTrade`."""
    found = {row.symbol for row in file.rows() if isinstance(row, Tick)}
    if not found:
        raise NothingToTrade("the file has no row that could be read as a trade")
    return tuple(sorted(found))


def pipeline_for(
    declared: PipelineSettings, source: str, symbols: Callable[[], Sequence[str]]
) -> tuple[PipelineSettings, bool]:
    """``declared`` with ``source`` as its only feed, and whether defaults stand in for what it does not declare.

    Without a portfolio there is one, `PORTFOLIO`, with both strategies, over one universe, `UNIVERSE`, of all
    ``symbols`` (asked only then).
    """
    known = {part.name: part for part in declared.market.sources}
    market = declared.market.model_copy(update={"sources": (known.get(source, SourcePart(name=source)),)})
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
    messages: Iterable[Message],
    settings: records.Settings,
    takers: Sequence[Callable[[Output], None]],
    report: Callable[[Read], None] = lambda _: None,
) -> Read:
    """Send ``messages`` through the topology; every output goes to each of ``takers``, bad rows of a file too.

    ``report`` is called every few thousand messages. Raises StrategyError where a strategy cannot be loaded.
    """

    def collect(output: Output) -> None:
        for take in takers:
            take(output)

    inline = Inline(topology.agents(), settings, takers[0] if len(takers) == 1 else collect)
    tick, clock = inline.tick, inline.clock
    ticks = time_us = 0
    with _few_collections():
        for count, message in enumerate(messages, 1):
            record, time_us = message.record, message.time_us
            if record is None:
                clock(message.source, max(time_us // 1000, 1))
            elif isinstance(record, DeadLetter):
                collect(Output(DEAD_LETTERS, message.key or "", record, time_us))
            else:
                tick(message.key or "", record, max(time_us // 1000, 1))
                ticks += 1
            if not count % _REPORT_EVERY:
                report(Read(ticks, time_us))
        inline.flush()
    done = Read(ticks, time_us)
    report(done)
    return done


@contextmanager
def _few_collections() -> Iterator[None]:
    """Records in flight live long enough to be walked by the collector again and again, and hold no cycles."""
    before = gc.get_threshold()
    gc.set_threshold(_COLLECT_EVERY, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
