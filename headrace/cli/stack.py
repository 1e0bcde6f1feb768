"""`headrace up`, `down` and `status`: the local stack from the command line."""

from __future__ import annotations

import sys
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
