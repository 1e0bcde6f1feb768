"""`headrace topics`: make the declared topics, list them, check them against the broker."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from headrace import settings, topics
from schemas.topics import TOPICS
from streams.runtime import registry

app = typer.Typer(no_args_is_help=True, help="Make, list and check the topics.")


@app.command()
def create() -> None:
    """Register the schemas, make the missing topics, write the settings first into every input partition.

    Safe to run again: what exists stays as it is.

    Example:

        headrace topics create
    """
    loaded = settings.load()
    found = loaded.endpoints()
    codec = registry.codec(found.registry, loaded.namespace)
    made = topics.create(found.kafka, loaded.namespace, loaded.pipeline.record(), codec)
    typer.echo(f"{len(made)} topics made, {len(TOPICS) - len(made)} were there")


@app.command("list")
def list_() -> None:
    """Every declared topic: its key, partitions, who writes it and who reads it.

    Example:

        headrace topics list
    """
    table = Table(box=None, pad_edge=False)
    for heading in ("topic", "key", "partitions", "written by", "read by", "what"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "topic")
    for topic in TOPICS.values():
        table.add_row(
            topic.name,
            topic.key,
            str(topic.partitions),
            ", ".join(topic.written_by),
            ", ".join(topic.read_by),
            topic.doc,
        )
    Console().print(table)


@app.command()
def check() -> None:
    """Compare the broker's topics with their declaration; exit status 1 where something is amiss.

    Example:

        headrace topics check
    """
    loaded = settings.load()
    findings = topics.check(loaded.endpoints().kafka, loaded.namespace)
    table = Table(box=None, pad_edge=False)
    for heading in ("topic", "partitions", "records", "state"):
        table.add_column(heading, justify="right" if heading in ("partitions", "records") else "left")
    for finding in findings:
        state = "[red]" + "; ".join(finding.problems) + "[/]" if finding.problems else "[green]as declared[/]"
        counts = ("" if n is None else f"{n:,}" for n in (finding.partitions, finding.records))
        table.add_row(finding.physical, *counts, state)
    Console().print(table)
    if any(finding.problems for finding in findings):
        raise typer.Exit(1)


@app.command()
def delete(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove all topics of a namespace, with everything in them. The live ones (no namespace) are refused.

    Workers' copies of states on this machine go, too.

    Example:

        HEADRACE_NAMESPACE=trial headrace topics delete --yes
    """
    loaded = settings.load()
    if not yes:
        typer.confirm(f"Remove every topic of namespace {loaded.namespace!r}?", abort=True)
    typer.echo(f"{len(topics.delete(loaded.endpoints().kafka, loaded.namespace))} topics removed")
    shutil.rmtree(loaded.state_dir / loaded.namespace, ignore_errors=True)
