"""`headrace replay` and `headrace checkpoint`: history run again, and states to begin it with."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from headrace import moments, settings
from headrace.cli.run import LIVE
from headrace.cli.times import micros

if TYPE_CHECKING:
    from headrace.replay import Progress
    from headrace.stack import Endpoints
    from schemas import records
    from schemas.codec import Codec

app = typer.Typer(
    invoke_without_command=True,
)
PLAIN_EVERY_S = 5.0
"""Without a terminal, a line this often."""
_INTERRUPTED = 130

_Offsets = Annotated[list[str] | None, typer.Option(help="TOPIC:PARTITION:OFFSET; may be given again.")]
_Processes = Annotated[int, typer.Option(min=1, max=8, help="Of each agent.")]


@app.callback()
def replay(
    context: typer.Context,
    into: Annotated[
        str | None, typer.Option(help="Its name: the namespace of its topics, the run of its rows.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Event time: 2024-01-02T14:30 or with a zone; UTC if none is told."),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Event time: what ends by then is done.")] = None,
    cold: Annotated[
        bool,
        typer.Option("--cold", help="Begin at --from with no state, not at a checkpoint or the beginning."),
    ] = False,
    warm_up: Annotated[
        float, typer.Option(min=0.0, help="With --cold: minutes to read before --from.")
    ] = 0.0,
    from_offset: _Offsets = None,
    to_offset: _Offsets = None,
    only: Annotated[str | None, typer.Option(help="This source topic alone: market.ticks.")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="With this one instead: path/to/file.py:Class, or an installed one.")
    ] = None,
    settings_file: Annotated[
        Path | None,
        typer.Option("--settings", exists=True, dir_okay=False, help="With the [pipeline] of this file."),
    ] = None,
    processes: _Processes = 1,
    sink: Annotated[bool, typer.Option(help="Write its results into TimescaleDB too.")] = True,
) -> None:
    """Run a stretch of history again, by the same agents, under a name of its own.

    Reads the source topics of this namespace; every other topic is the replay's own. It begins at the last checkpoint
    before --from, where there is one, otherwise at the beginning, and says which. Commands hold where they held. It
    ends by itself; stopped before that, the same name goes on where it was: `headrace replay --into NAME`.

    Exit status: 0 when all is done, 130 when it was interrupted.

    Examples:

        headrace replay --into again

        headrace replay --from 2024-01-02T14:30 --to 2024-01-02T16:00 --into opening

        headrace replay --into what-if --strategy my_strategy.py:Dip

        headrace replay list

        headrace replay drop what-if
    """
    if context.invoked_subcommand is not None:
        return
    from headrace import replay as replays
    from headrace import topics

    if into is None or not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", into):
        raise typer.BadParameter("say --into NAME (letters, digits, - and _), or list, or drop")
    if strategy is not None and settings_file is not None:
        raise typer.BadParameter(
            "--strategy goes into the recorded settings: name it in the file of --settings"
        )
    loaded, found, codec = _connected()
    there = replays.known(found.kafka, loaded.namespace, codec)
    planned = there.get(into)
    if planned is None:
        if topics.there(found.kafka, into):
            raise replays.ReplayError(
                f"{into} is a namespace already, and no replay of this one: choose another name"
            )
        recorded = topics.recorded_settings(found.kafka, loaded.namespace, codec)
        wanted = replays.Wanted(
            name=into,
            from_us=micros(from_),
            to_us=micros(to),
            settings=_changed(recorded[-1], strategy, settings_file),
            cold=cold,
            warm_up_us=int(warm_up * 60e6),
            only=only,
            begins=_offsets(from_offset),
            ends=_offsets(to_offset),
        )
        planned = replays.plan(found.kafka, loaded.namespace, recorded, wanted, there.values())
        replays.write(found.kafka, loaded.namespace, codec, planned)
    elif any((from_, to, cold, from_offset, to_offset, only, strategy, settings_file)):
        raise replays.ReplayError(
            f"{into} is planned already ({replays.describe(planned)}): say --into {into} alone"
        )
    _run(loaded, found, codec, planned, processes, sink)


@app.command("list")
def list_() -> None:
    """The replays and checkpoints of this namespace.

    Example:

        headrace replay list
    """
    from headrace import replay as replays

    loaded, found, codec = _connected()
    there = replays.known(found.kafka, loaded.namespace, codec)
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "", "state", "what"):
        table.add_column(heading, overflow="fold")
    for each in there.values():
        what = "checkpoint" if each.is_checkpoint else "replay"
        table.add_row(each.name, what, "done" if each.finished else "not done", replays.describe(each))
    Console().print(table if there else "none")


@app.command()
def drop(
    names: Annotated[list[str], typer.Argument(help="Names of replays or checkpoints.")],
) -> None:
    """Remove replays: their topics and their rows.

    Example:

        headrace replay drop what-if
    """
    from headrace import replay as replays

    loaded, found, codec = _connected()
    for name in names:
        removed = replays.drop(found, loaded.namespace, codec, name)
        typer.echo(f"{name}: {removed} topics and its rows removed")


def checkpoint(
    at: Annotated[
        str | None,
        typer.Option(help="Event time; left out: as far as the agents have come.", show_default=False),
    ] = None,
    every: Annotated[
        float | None, typer.Option(min=0.1, help="Go on, and make one whenever so many minutes have passed.")
    ] = None,
    processes: _Processes = 1,
) -> None:
    """Store the states of all agents at one clock, for replays to begin with.

    It is made by replaying from the checkpoint before it: live agents are not disturbed, and what it holds is right by
    the same law that makes a replay equal. `headrace replay list` shows them, `headrace replay drop` removes them.

    Examples:

        headrace checkpoint

        headrace checkpoint --at 2024-01-02T21:00

        headrace checkpoint --every 360
    """
    from headrace import replay as replays
    from headrace import topics

    if at is not None and every is not None:
        raise typer.BadParameter("--at names one moment, --every many")
    loaded, found, codec = _connected()
    while True:
        began_s = time.monotonic()
        recorded = topics.recorded_settings(found.kafka, loaded.namespace, codec)
        there = replays.known(found.kafka, loaded.namespace, codec)
        clock = micros(at) or replays.clock(found.kafka, loaded.namespace, recorded[-1], codec)
        if clock not in {
            each.data_through for each in there.values() if each.is_checkpoint and each.finished
        }:
            planned = replays.checkpoint(found.kafka, loaded.namespace, recorded, clock, there.values())
            replays.write(found.kafka, loaded.namespace, codec, planned)
            _run(loaded, found, codec, planned, processes, with_sink=False)
            replays.remove_results(found.kafka, planned.name)
        elif every is None:
            typer.echo("there is one of this clock already")
        if every is None:
            return
        time.sleep(max(every * 60 - (time.monotonic() - began_s), 0.0))


def _connected() -> tuple[settings.Settings, Endpoints, Codec]:
    from streams.runtime import registry

    loaded = settings.load()
    found = loaded.endpoints()
    return loaded, found, registry.codec(found.registry, loaded.namespace, attempts=3)


def _run(
    loaded: settings.Settings,
    found: Endpoints,
    codec: Codec,
    planned: records.Replay,
    processes: int,
    with_sink: bool,
) -> None:
    from headrace import replay as replays

    console = Console()
    if planned.finished:
        console.print(f"{planned.name} is done: {replays.describe(planned)}", highlight=False)
        return
    console.print(f"{planned.name}: {replays.describe(planned)}", highlight=False, soft_wrap=True)
    folder = loaded.stack.data_dir / "replays" / planned.name
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began_s = time.monotonic()
    first: list[Progress] = []
    try:
        with _shown(planned.name) as show:

            def report(progress: Progress) -> None:
                if not first:
                    first.append(progress)
                show(progress)

            replays.run(
                found,
                loaded.namespace,
                planned,
                codec,
                folder,
                processes=processes,
                with_sink=with_sink,
                report=report,
            )
    except KeyboardInterrupt:
        console.print(f"interrupted; `headrace replay --into {planned.name}` goes on")
        raise typer.Exit(_INTERRUPTED) from None
    took_s = time.monotonic() - began_s
    done = first[0].total - first[0].records
    what = f"{done:,} records in {took_s:.1f} s, {done / took_s:,.0f} a second"
    console.print(
        f"{what}; `headrace diff {planned.name} {loaded.namespace or LIVE}` compares", highlight=False
    )


def _changed(recorded: records.Settings, strategy: str | None, file: Path | None) -> records.Settings | None:
    """Other settings than those recorded, where some were asked for."""
    import msgspec

    from schemas.records import StrategySpec

    if file is not None:
        return settings.load_pipeline(file).record()
    if strategy is None:
        return None
    only = (StrategySpec(name=strategy.rpartition(":")[2], uses=strategy, parameters="{}"),)
    portfolios = tuple(msgspec.structs.replace(each, strategies=only) for each in recorded.portfolios)
    return msgspec.structs.replace(recorded, portfolios=portfolios)


def _offsets(told: list[str] | None) -> dict[tuple[str, int], int]:
    found = {}
    for each in told or ():
        topic, _, rest = each.partition(":")
        partition, _, offset = rest.partition(":")
        if not (topic and partition.isdigit() and offset.isdigit()):
            raise typer.BadParameter(f"{each} is no offset: write market.ticks:0:1200, for example")
        found[topic, int(partition)] = int(offset)
    return found


@contextmanager
def _shown(name: str) -> Iterator[Callable[[Progress], None]]:
    """Where it stands, its rate and estimated end: a bar on a terminal, else a line every few seconds."""
    if not sys.stdout.isatty():
        last_s = time.monotonic()

        def line(progress: Progress) -> None:
            nonlocal last_s
            if time.monotonic() - last_s >= PLAIN_EVERY_S:
                last_s = time.monotonic()
                typer.echo(f"{name}: {progress.records:,} of {progress.total:,} records, {_told(progress)}")

        yield line
        return
    columns = (TextColumn(name), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[told]}"))
    with Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console()) as bar:
        task = bar.add_task(name, total=None, told="")

        def draw(progress: Progress) -> None:
            rate = f"{bar.tasks[task].speed or 0:,.0f} records/s"
            told = "; ".join(filter(None, (rate, _told(progress))))
            bar.update(task, completed=progress.records, total=progress.total, told=told)

        yield draw


def _told(progress: Progress) -> str:
    """The event time that it has come to, and who is behind."""
    at = "" if progress.clock < 0 else moments.shown(progress.clock)
    behind = ", ".join(f"{name} {lag:,}" for name, lag in progress.behind.items() if lag)
    return "; ".join(filter(None, (at, behind and f"behind: {behind}")))
