"""`python -m tests.simulation`, or `make simulate`: as many simulated worlds as one likes."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from tests.simulation import worlds as many
from tests.simulation.breaches import BREACHES
from tests.simulation.worlds import Outcome

MOST_SHOWN = 5

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
console = Console()
errors = Console(stderr=True)


@app.command(
    help="Play whole topologies over a simulated Kafka, where processes are killed, stopped and woken at any step, and "
    "hold each against the inline run. The same seed plays the same world.",
    epilog="Examples:\n\n"
    "`python -m tests.simulation --worlds 100000 --processes 2`: seeds 0 to 99,999 on two cores\n\n"
    "`python -m tests.simulation --seed 4711 --worlds 1 --schedule`: one world, and every step of it\n\n"
    "`python -m tests.simulation --breaches`: the guarantee broken on purpose, and when that is found",
)
def simulate(
    worlds: Annotated[
        int, typer.Option(min=1, help="How many; with --breaches at most for each breach.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="The first seed; the others follow.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="How many of them play.")] = 1,
    breaches: Annotated[bool, typer.Option("--breaches", help="Break one rule at a time.")] = False,
    schedule: Annotated[
        bool, typer.Option("--schedule", help="Show what happened in the first world, kept or broken.")
    ] = False,
) -> None:
    """Exits with 1 where a world broke its promise, or a breach was not found."""
    if breaches:
        raise typer.Exit(_breaches(worlds, seed))
    if schedule:
        _show(many.play(seed, keeps_schedule=True))
    tally: Counter[str] = Counter()
    broken: list[Outcome] = []
    begin = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=errors) as progress:
        task = progress.add_task("worlds", total=worlds)
        with suppress(KeyboardInterrupt):  # what was played by then is told
            for outcome in many.played(seed, worlds, processes):
                progress.advance(task)
                tally.update(outcome.tally)
                if outcome.found:
                    broken.append(outcome)
                    if len(broken) <= MOST_SHOWN:
                        _show(outcome)
    seconds, played = time.perf_counter() - begin, tally["worlds"]
    console.print(
        f"{played:,} worlds of the seeds {seed} to {seed + worlds - 1} in {seconds:,.1f} s: "
        f"{played / seconds:,.1f} worlds/s; {len(broken)} broke the promise",
        highlight=False,
        soft_wrap=True,
    )
    told = ", ".join(f"{count:,} {what}" for what, count in sorted(tally.items()) if what != "worlds")
    console.print(told, highlight=False, soft_wrap=True)
    raise typer.Exit(bool(broken))


def _show(outcome: Outcome) -> None:
    """A world's schedule, and what was found."""
    for number, step in enumerate(outcome.schedule, 1):
        console.print(f"{number:4} {step}", markup=False, highlight=False, soft_wrap=True)
    for what in outcome.found:
        console.print(f"seed {outcome.seed}: {what}", markup=False, highlight=False, soft_wrap=True)


def _breaches(worlds: int, seed: int) -> bool:
    """The table of breaches. Whether one of them was not found."""
    table = Table("breach", "what is broken", "worlds", "s", "what was said", title="Broken on purpose")
    missed = False
    for broken, parts in BREACHES.items():
        violation = many.first_violation(parts, worlds, seed)
        what = (broken.__doc__ or "").partition("\n")[0]
        if violation is None:
            missed = True
            table.add_row(broken.__name__, what, f"not in {worlds}", "", "")
        else:
            said = violation.outcome.found[0].partition("\n")[0]
            table.add_row(broken.__name__, what, str(violation.worlds), f"{violation.seconds:.1f}", said)
    console.print(table)
    return missed


if __name__ == "__main__":
    app()
