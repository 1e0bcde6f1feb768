"""`headrace settings`: apply a new version while ticks flow, and what has been applied so far."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from headrace import moments, settings
from headrace.cli.times import micros
from headrace.pipeline import PipelineSettings
from schemas.codec import Codec
from schemas.records import NEVER, Settings
from streams.runtime import registry

app = typer.Typer(
    no_args_is_help=True, help="Change what the agents run on while ticks flow; what was changed."
)

_UNSAID = {"version", "effective_from"}


@app.command()
def apply(
    file: Annotated[
        Path | None,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="Its [pipeline]; left out: the settings of here.",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="PATH=VALUE under pipeline, the value as in TOML; parts go by their names."
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Event time; left out: as soon as it can be.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
) -> None:
    """Apply a new version of the settings to a namespace that runs, from an event time on.

    Give it a higher pipeline.version. It holds for windows that start at or after --from, in every agent. Workers go
    on; one that is started with the settings of before refuses, so put the new ones where workers find theirs.

    Exit status: 0 applied, or there already; 1 it cannot be.

    Examples:

        headrace settings apply

        headrace settings apply next.toml --from 2024-01-02T15:00

        headrace settings apply --set portfolios.alpha.limits.max_leverage=1.5 --yes
    """
    from headrace import applying

    loaded = settings.load()
    found = loaded.endpoints()
    codec = registry.codec(found.registry, loaded.namespace, attempts=3)
    told = loaded.pipeline if file is None else settings.load_pipeline(file)
    if set_:
        told = settings.changed(told, set_)
    change = applying.plan(found.kafka, loaded.namespace, codec, told.record(), micros(from_))
    console = Console(soft_wrap=True, highlight=False)
    if change.before is change.after:
        if not dry_run:
            applying.apply(found.kafka, loaded.namespace, codec, change)
        console.print(f"settings {change.after.version} are applied already, and hold {_since(change.after)}")
        return
    console.print(f"settings {change.before.version} → {change.after.version}, {_since(change.after)}")
    _print(console, change.before, change.after)
    if dry_run:
        return
    if not yes:
        typer.confirm("Apply?", abort=True)
    applying.apply(found.kafka, loaded.namespace, codec, change)
    console.print(f"applied: settings {change.after.version} hold {_since(change.after)}")
    if set_:
        _print_file(console, told)


@app.command()
def history() -> None:
    """Every version of the settings of this namespace, and what each has changed.

    Example:

        headrace settings history
    """
    from headrace import history as versions

    loaded = settings.load()
    found = loaded.endpoints()
    codec: Codec = registry.codec(found.registry, loaded.namespace, attempts=3)
    known = versions.read(found.kafka, loaded.namespace, codec)
    console = Console(soft_wrap=True, highlight=False)
    if not known:
        console.print("none: run `headrace topics create` first")
        raise typer.Exit(1)
    for before, each in pairwise([None, *known]):
        assert each is not None
        at = f"{datetime.fromtimestamp(each.at_ms / 1e3, UTC):%Y-%m-%d %H:%M:%S}" if each.at_ms else "before"
        by = f" by {each.by}" if each.by else ""
        console.print(f"[bold]{each.settings.version}[/]  {_since(each.settings)}; written {at}{by}")
        if before is not None:
            _print(console, before.settings, each.settings)


def _since(told: Settings) -> str:
    if told.effective_from == NEVER:
        return "from the beginning"
    return f"for windows from {moments.shown(told.effective_from)} on"


def _print(console: Console, before: Settings, after: Settings) -> None:
    from streams.versions import differences

    table = Table(box=None, pad_edge=False, show_header=False)
    for what, was, now in differences(before, after):
        if what not in _UNSAID:
            table.add_row(f"    {what}", f"[red]{was}[/]", "→", f"[green]{now}[/]")
    console.print(table if table.row_count else "    nothing that the agents read differs")


def _print_file(console: Console, told: PipelineSettings) -> None:
    from headrace import toml

    console.print("Workers that are started from now on need this in their headrace.toml:\n")
    console.print(toml.dumps({"pipeline": told.model_dump(mode="json", exclude_defaults=True)}), markup=False)
