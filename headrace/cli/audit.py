"""`headrace audit`: what an order rests on, down to the ticks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from headrace import moments, settings
from streams.runtime import registry

if TYPE_CHECKING:
    from headrace.audit import Audit, Link

_WIDE = 1_000
"""Columns where nobody looks at a terminal: a link is a line there."""


def audit(
    order: Annotated[
        str,
        typer.Argument(
            help="Its id: portfolio/epoch/snapshot/strategy/symbol/sequence, as in trade.executions.",
            show_default=False,
        ),
    ],
    ticks: Annotated[
        bool, typer.Option("--ticks", help="All ticks of each bar, not only first and last.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the chain, with whole records, as JSON.")
    ] = False,
) -> None:
    """Print the chain fill ← order ← check ← signal ← snapshot ← regime ← bar ← ticks of an order.

    Each link has its event time and where it lies: topic[partition]@offset, looked up now. A link that is no longer
    in its topic is told as missing, with the reason.

    Exit status: 0 when the chain is whole, 1 where a link is missing or there is no such order.

    Examples:

        headrace audit first/1/1704205800000000/momentum/ACME/0

        headrace audit first/1/1704205800000000/momentum/ACME/0 --json | jq .check.told
    """
    from headrace import audit as auditing
    from headrace.audit_log import KafkaLog
    from headrace.reading import Reading

    loaded = settings.load()
    found = loaded.endpoints()
    codec = registry.codec(found.registry, loaded.namespace, attempts=3)
    with Reading(found.kafka, loaded.namespace) as reading:
        told = auditing.audit(KafkaLog(reading, codec), order, all_ticks=ticks)
    if as_json:
        typer.echo(msgspec.json.encode(told))
    else:
        console = Console()
        if not console.is_terminal:
            console.width = _WIDE
        console.print(tree(told))
    if told.missing:
        raise typer.Exit(1)


def tree(told: Audit) -> Tree:
    """The chain for people: what came of the order first, then the check and what it rests on."""
    root = Tree(Text.assemble((told.order_id, "bold"), f"  {told.told}"))
    for link in (*told.events, told.check):
        _grow(root, link)
    return root


def _grow(above: Tree, link: Link) -> None:
    text = Text()
    if link.event_time is not None:
        text.append(f"{moments.shown(link.event_time)}  ", style="dim")
    text.append(link.what, style="bold" if link.missing is None else "bold red")
    if link.told:
        text.append(f"  {link.told}")
    if link.place is not None:
        text.append(f"  {link.place}", style="cyan")
    if link.missing is not None:
        text.append(f"  {link.missing}", style="red")
    branch = above.add(text)
    for cause in link.causes:
        _grow(branch, cause)
