"""`headrace up`, `down`, `status`, `backup` and `restore`: the local stack from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from headrace import settings, stack

_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object, passwords included.")]


def up(as_json: _JSON = False) -> None:
    """Start Kafka, the schema registry and PostgreSQL with TimescaleDB, without Docker.

    The first call downloads them (about 300 MB, a minute or two); a later one takes seconds, and returns at
    once when everything runs. Services named in the settings (kafka.bootstrap, registry.url, database.url)
    are used instead of local ones. Other headrace commands find the stack by themselves.

    Examples:

        headrace up

        headrace up --json | jq -r .kafka
    """
    loaded = settings.load()
    found = stack.up(loaded.stack, loaded.external())
    if as_json:
        typer.echo(found.model_dump_json())
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, address in found:
        table.add_row(name, stack.without_password(address))
    console = Console()
    console.print(table)
    console.print(f"data and logs: {loaded.stack.data_dir}", soft_wrap=True)


def down() -> None:
    """Stop the local services cleanly. Topics, schemas and results stay; `headrace up` continues with them.

    Example:

        headrace down
    """
    stopped = stack.down(settings.load().stack)
    typer.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def status() -> None:
    """Show how every service is; exit status 0 when all answer, else 1.

    Examples:

        headrace status

        headrace status > /dev/null || headrace up
    """
    loaded = settings.load()
    services = stack.status(loaded.stack, loaded.external())
    table = Table(box=None, pad_edge=False)
    for heading in ("service", "state", "address", "pid", "memory", "log"):
        table.add_column(
            heading, justify="right" if heading in ("pid", "memory") else "left", overflow="fold"
        )
    for service in services:
        healthy = service.state == "running"
        table.add_row(
            service.service,
            f"[{'green' if healthy else 'red'}]{service.state}[/]",
            stack.without_password(service.address),
            "" if service.pid is None else str(service.pid),
            "" if service.memory_mb is None else f"{service.memory_mb:.0f} MB",
            "" if service.log is None else str(service.log),
        )
    # A pipe has no width to fold into.
    Console(width=None if sys.stdout.isatty() else 250).print(table)
    if any(service.state != "running" for service in services):
        raise typer.Exit(1)


def backup(
    into: Annotated[
        Path, typer.Argument(file_okay=False, help="Folder of all backups, best on another disk.")
    ],
) -> None:
    """Back up topics, schemas, tables and the connectors' progress, all of one moment, into a new folder.

    Services that run are stopped for it, for seconds, and started again at their old addresses; sink and connectors
    wait, and workers that end meanwhile go on once they are started again, as always. What an earlier backup in the
    folder has already is linked to it and takes no room. To remove a backup, remove its folder.

    Examples:

        headrace backup /mnt/backups

        headrace down && headrace backup /mnt/backups && headrace up
    """
    loaded = settings.load()
    made = stack.backup(loaded.stack, loaded.external(), into, lambda told: typer.echo(told, err=True))
    typer.echo(
        f"{made.path}  {made.size_bytes / 1e6:,.0f} MB, {made.new_bytes / 1e6:,.0f} of it new; "
        f"the stack stood for {made.stopped_s:.1f} s"
    )


def restore(
    made: Annotated[Path, typer.Argument(help="A backup: a folder that `headrace backup` made.")],
    only_check: Annotated[
        bool, typer.Option("--check", help="Only read all of it and say whether it is whole.")
    ] = False,
) -> None:
    """Put a backup into stack.data_dir, where there must be none; then `headrace up` goes on from that moment.

    On this machine or another of its kind. What was written after the backup is not there: connectors of files and
    simulations send it again, a live feed does not. The installation that it was made of must never run again.

    Examples:

        headrace restore /mnt/backups/20261126-013000

        HEADRACE_STACK__DATA_DIR=/srv/headrace headrace restore /mnt/backups/20261126-013000
    """
    if only_check:
        typer.echo(f"{made} is whole: {len(stack.check(made).files):,} files")
        return
    loaded = settings.load()
    manifest = stack.restore(loaded.stack, made)
    typer.echo(f"{len(manifest.files):,} files in {loaded.stack.data_dir}; go on with `headrace up`")
