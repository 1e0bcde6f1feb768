"""`headrace diff`: whether two runs are equal, and where they are not."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from headrace import settings
from headrace.cli.run import LIVE

EQUAL, DIFFERENT, NOT_COMPARED = 0, 1, 2


def diff(
    left: Annotated[
        str, typer.Argument(help="A namespace; a replay, for example. `live`: the one without name.")
    ],
    right: Annotated[str, typer.Argument(help="The one to hold it against.")] = LIVE,
    first: Annotated[int, typer.Option(min=0, help="Show so many differences of each topic.")] = 3,
) -> None:
    """Compare all result topics of two namespaces, record by record, byte by byte.

    In each topic and for each key, the first of every identity must be the same bytes with the same time, in the same
    order; bad input is compared as a set. Where LEFT is a replay of RIGHT, only what it covers is held against it.

    Exit status: 0 equal, 1 different, 2 where they could not be compared.

    Examples:

        headrace diff again live

        headrace diff monday tuesday --first 10
    """
    from headrace.cli import FAILURES

    try:
        equal = _compared(left, right, first)
    except FAILURES as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(NOT_COMPARED) from error
    raise typer.Exit(EQUAL if equal else DIFFERENT)


def _compared(left: str, right: str, first: int) -> bool:
    from headrace import compare, replay
    from streams.runtime import registry

    loaded = settings.load()
    found = loaded.endpoints()
    a, b = ("" if name == LIVE else name for name in (left, right))
    console = Console()
    window = None
    codecs = {name: registry.codec(found.registry, name) for name in (a, b)}
    planned = replay.known(found.kafka, b, codecs[b]).get(a)
    if planned is not None:
        window = replay.covered(found.kafka, b, planned, codecs[b])
        console.print(f"{left} is a replay of {right}: {replay.describe(planned)}", highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("topic", left, right, "copies", "differences"):
        table.add_column(heading, justify="left" if heading == "topic" else "right")
    told: list[compare.Difference] = []
    differing = 0
    for topic in track(compare.COMPARED, "comparing", console=Console(stderr=True), transient=True):
        sides = [compare.read(found.kafka, name, [topic], window, codecs[name]) for name in (a, b)]
        apart = compare.differences(*sides)
        differing += len(apart)
        told += apart[:first]
        counts = (f"{side.count(topic):,}" for side in sides)
        copies = sum(side.copies for side in sides)
        table.add_row(topic, *counts, f"{copies:,}", f"[red]{len(apart):,}[/]" if apart else "none")
    console.print(table)
    for each in told:
        console.print(f"\n{escape(each.topic)}, {escape(each.key)}: {escape(each.what)}", highlight=False)
    console.print("\n[green]equal[/]" if not differing else f"\n[red]different[/]: {differing:,} keys")
    return not differing
