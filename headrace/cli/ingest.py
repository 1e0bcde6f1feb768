"""`headrace ingest`: bring ticks and quotes in, from a file or from the simulator."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from connectors.clocks import ClockSettings
from connectors.messages import TICKS, Message, Position
from connectors.progress import ProgressFile
from headrace import settings
from headrace.settings import Settings
from streams.errors import HeadraceError

if TYPE_CHECKING:
    from connectors.sender import Counts, Pace, Progress

app = typer.Typer(no_args_is_help=True, help="Bring ticks and quotes in: from a file, or simulated.")

PLAIN_EVERY_S = 5.0
"""Without a terminal, a line this often."""

_Speed = Annotated[
    float | None, typer.Option(min=0.0, help="Times real speed: 1, 60, …  Left out: as fast as possible.")
]
_Rate = Annotated[float | None, typer.Option(min=0.0, help="At most this many ticks a second, on average.")]
_Open = Annotated[
    bool, typer.Option("--open", help="Leave the last windows open: more ticks of this source will follow.")
]
_Restart = Annotated[bool, typer.Option("--restart", help="Send all again, not from where it stopped.")]


class SourceUndeclared(HeadraceError):
    """Raised where ticks, or quotes, of this source would all be refused."""


class _Connector(Protocol):
    @property
    def source(self) -> str: ...
    @property
    def session(self) -> str: ...
    @property
    def topics(self) -> tuple[str, ...]: ...
    def messages(self, position: Position) -> Iterator[Message]: ...


@app.command()
def files(
    path: Annotated[
        Path,
        typer.Argument(help="CSV (also .csv.gz) or Parquet, a trade or a quote in a row, in time order."),
    ],
    speed: _Speed = None,
    rate: _Rate = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows.")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Name of the feed, as declared in market.sources or market.quotes.sources."),
    ] = None,
    open_end: _Open = False,
    restart: _Restart = False,
) -> None:
    """Send a file of trades, or of quotes. Stopped, it goes on where it was; what is sent twice is dropped by its name.

    A file with a bid and an ask and without a price is one of quotes: they go to market.quotes. Columns are recognised
    by usual names; the section files of headrace.toml tells others, the time format, its zone, and the scale of prices.
    Rows that cannot be read go to the dead letters with their line.

    Exit status: 0 when all is sent and acknowledged, 130 or 143 when it was interrupted.

    Examples:

        headrace ingest files trades.csv.gz

        headrace ingest files trades.parquet --speed 60

        headrace ingest files quotes.csv
    """
    from connectors.files import TradesFile
    from connectors.sender import Pace

    loaded = settings.load()
    clocks = _clocks(loaded, loaded.files.clocks, speed, open_end)
    over = {"clocks": clocks, "limit": limit or loaded.files.limit, "source": source or loaded.files.source}
    file = TradesFile(path, loaded.files.model_copy(update=over))
    typer.echo(f"{path.name} ({file.layout.describe()})")
    _run(loaded, file, Pace(speed=speed, rate=rate), restart, lambda _: file.fraction())


@app.command()
def simulator(
    speed: _Speed = None,
    rate: _Rate = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed, another day.")] = None,
    minutes: Annotated[int | None, typer.Option(min=1, help="Length of the session.")] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="Write regimes, volatilities and correlations as they are into this folder."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Name of the feed, as declared in market.sources.")
    ] = None,
    open_end: _Open = False,
    restart: _Restart = False,
) -> None:
    """Send a simulated session: many symbols, known correlation, volatility that clusters, labelled regimes.

    The same settings (section simulator of headrace.toml) and seed give the same ticks, byte for byte.

    Exit status: 0 when all is sent and acknowledged, 130 or 143 when it was interrupted.

    Examples:

        headrace ingest simulator --speed 60

        headrace ingest simulator --seed 11 --truth truth/
    """
    from connectors.sender import Pace
    from connectors.simulator import Simulation, export_truth

    loaded = settings.load()
    clocks = _clocks(loaded, loaded.simulator.clocks, speed, open_end)
    told = {"seed": seed, "minutes": minutes, "source": source}
    over = {name: value for name, value in told.items() if value is not None}
    chosen = loaded.simulator.model_copy(update={"clocks": clocks, **over})
    simulation = Simulation(chosen)
    if truth is not None:
        export_truth(simulation, truth)
    length_us = chosen.minutes * 60_000_000

    def fraction(progress: Progress) -> float:
        reached_us = progress.counts.time_us or chosen.start_us
        return min((reached_us - chosen.start_us) / length_us, 1.0)

    _run(loaded, simulation, Pace(speed=speed, rate=rate), restart, fraction)


def _clocks(loaded: Settings, given: ClockSettings, speed: float | None, open_end: bool) -> ClockSettings:
    """The clocks as the pipeline needs them: its largest window decides how far the last one reaches."""
    over = {"every_step": given.every_step or bool(speed), "open_end": given.open_end or open_end}
    return loaded.pipeline.market.clocks(given.model_copy(update=over))


def _run(
    loaded: Settings, connector: _Connector, pace: Pace, restart: bool, fraction: Callable[[Progress], float]
) -> None:
    from connectors.sender import Sender
    from streams.runtime import registry

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for topic in connector.topics:
        _check_source(loaded, topic, connector.source)
    found = loaded.endpoints()
    codec = registry.codec(found.registry, loaded.namespace)
    sender = Sender(found.kafka, loaded.namespace, codec.encode, topics=connector.topics)
    file = ProgressFile(
        loaded.stack.data_dir / "ingest",
        topic=sender.topic,
        topic_id=sender.topic_id,
        source=connector.source,
        session=connector.session,
    )
    if restart:
        file.forget()
    start = file.load()
    if start.finished:
        typer.echo("all of it was sent before; --restart sends it again")
        return
    if start.sequence:
        typer.echo(f"goes on behind {start.sequence:,}")
    received = 0
    stop = threading.Event()

    def interrupt(number: int, _: object) -> None:
        nonlocal received
        received = number
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
    with _shown(connector.source, fraction) as show:

        def report(progress: Progress) -> None:
            file.save(progress.acknowledged)
            show(progress)

        counts = sender.run(connector.messages(start), pace=pace, start=start, report=report, stop=stop)
    late = f", {counts.late:,} behind the clock" if counts.late else ""
    bad = f", {counts.dead_letters:,} rows to the dead letters" if counts.dead_letters else ""
    finished = file.load().finished
    typer.echo(
        f"{_told(counts)}{late}{bad}, {counts.clocks:,} clocks" + ("" if finished else ": interrupted")
    )
    if not finished:
        raise typer.Exit(128 + received)


def _check_source(loaded: Settings, topic: str, source: str) -> None:
    market = loaded.pipeline.market
    ticks = market.sources, "sources", "ticks"
    parts, where, what = ticks if topic == TICKS else (market.quote_sources, "quotes", "quotes")
    declared = [part.name for part in parts]
    if source not in declared:
        raise SourceUndeclared(
            f"source {source!r} is not declared, its {what} would all be refused. Declare it in "
            f"pipeline.market.{where} before the topics are made, or apply that: `headrace settings apply`"
            + (f", or say --source ({', '.join(declared)})" if declared else "")
        )


def _told(counts: Counts) -> str:
    """Ticks and quotes, those that there are."""
    quotes = f"{counts.quotes:,} quotes"
    if counts.quotes and not counts.ticks:
        return quotes
    return f"{counts.ticks:,} ticks" + (f", {quotes}" if counts.quotes else "")


@contextmanager
def _shown(name: str, fraction: Callable[[Progress], float]) -> Iterator[Callable[[Progress], None]]:
    """Where a run stands: a bar on a terminal, else a line every few seconds."""
    if not sys.stdout.isatty():
        last_s = time.monotonic()

        def line(progress: Progress) -> None:
            nonlocal last_s
            if time.monotonic() - last_s >= PLAIN_EVERY_S:
                last_s = time.monotonic()
                told = f"{_told(progress.counts)}, {progress.outstanding:,} on their way"
                typer.echo(f"{name}: {fraction(progress):.0%}, {told}")

        yield line
        return
    columns = (TextColumn(name), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[told]}"))
    with Bar(*columns, TimeElapsedColumn(), console=Console()) as bar:
        task = bar.add_task(name, total=1.0, told="")

        def draw(progress: Progress) -> None:
            told = _told(progress.counts)
            bar.update(task, completed=fraction(progress), told=told)

        yield draw
