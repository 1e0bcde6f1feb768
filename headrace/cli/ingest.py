"""`headrace ingest`: bring ticks in, from a file of trades or from the simulator."""

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
from connectors.messages import Message, Position
from connectors.progress import ProgressFile
from headrace import settings
from headrace.settings import Settings
from streams.errors import HeadraceError

if TYPE_CHECKING:
    from connectors.sender import Pace, Progress

app = typer.Typer(no_args_is_help=True, help="Bring ticks in: from a file of trades, or simulated.")

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
    """Raised where ticks of this source would all be refused."""


class _Connector(Protocol):
    @property
    def source(self) -> str: ...
    @property
    def session(self) -> str: ...
    def messages(self, position: Position) -> Iterator[Message]: ...


@app.command()
def files(
    path: Annotated[
        Path, typer.Argument(help="CSV (also .csv.gz) or Parquet, a trade in a row, in time order.")
    ],
    speed: _Speed = None,
    rate: _Rate = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Name of the feed, as declared in market.sources.")
    ] = None,
    open_end: _Open = False,
    restart: _Restart = False,
) -> None:
    """Send a file of trades. Stopped, it goes on where it was; ticks sent twice are dropped by their name.

    Columns are recognised by usual names; the section files of headrace.toml tells others, the time format,
    its zone, and the scale of prices. Rows that cannot be read go to the dead letters with their line.

    Exit status: 0 when all is sent and acknowledged, 130 or 143 when it was interrupted.

    Examples:

        headrace ingest files trades.csv.gz

        headrace ingest files trades.parquet --speed 60
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
    declared = [source.name for source in loaded.pipeline.market.sources]
    if connector.source not in declared:
        raise SourceUndeclared(
            f"source {connector.source!r} is not declared, its ticks would all be refused. Declare it in "
            f"pipeline.market.sources before the topics are made, or say --source ({', '.join(declared)})"
        )
    found = loaded.endpoints()
    codec = registry.codec(found.registry, loaded.namespace)
    sender = Sender(found.kafka, loaded.namespace, codec.encode)
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
        f"{counts.ticks:,} ticks{late}{bad}, {counts.clocks:,} clocks" + ("" if finished else ": interrupted")
    )
    if not finished:
        raise typer.Exit(128 + received)


@contextmanager
def _shown(name: str, fraction: Callable[[Progress], float]) -> Iterator[Callable[[Progress], None]]:
    """Where a run stands: a bar on a terminal, else a line every few seconds."""
    if not sys.stdout.isatty():
        last_s = time.monotonic()

        def line(progress: Progress) -> None:
            nonlocal last_s
            if time.monotonic() - last_s >= PLAIN_EVERY_S:
                last_s = time.monotonic()
                told = f"{progress.counts.ticks:,} ticks, {progress.outstanding:,} on their way"
                typer.echo(f"{name}: {fraction(progress):.0%}, {told}")

        yield line
        return
    columns = (TextColumn(name), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[told]}"))
    with Bar(*columns, TimeElapsedColumn(), console=Console()) as bar:
        task = bar.add_task(name, total=1.0, told="")

        def draw(progress: Progress) -> None:
            told = f"{progress.counts.ticks:,} ticks"
            bar.update(task, completed=fraction(progress), told=told)

        yield draw
