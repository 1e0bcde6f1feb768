"""`python -m tests.chaos`: seeded runs of chaos on a stack of their own."""

from __future__ import annotations

import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from headrace import stack
from headrace.stack import StackSettings
from tests.chaos.breaches import BREACHES
from tests.chaos.faults import FAULTS
from tests.chaos.run import Done, chaos, session

Breach = StrEnum("Breach", {name: name for name in BREACHES})  # type: ignore[misc]
Fault = StrEnum("Fault", {name: name for name in FAULTS})  # type: ignore[misc]


def main(
    runs: Annotated[int, typer.Option(min=1, help="How many, with seeds one after the other.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the first one.")] = 1,
    ticks: Annotated[int, typer.Option(min=20_000, help="Of each run.")] = 200_000,
    faults: Annotated[int, typer.Option(min=0, help="That strike in each, drawn by the seed.")] = 6,
    fault: Annotated[
        list[Fault] | None, typer.Option(help="Instead of drawn ones: this one; may be given again.")
    ] = None,
    breach: Annotated[
        Breach | None, typer.Option(help="Break the workers on purpose, and stop at the run that notices.")
    ] = None,
) -> None:
    """Kill, stop and refuse while ticks flow; after each run every topic and table must equal the undisturbed run.

    Exit status: 0 where all runs are equal (with --breach: where one noticed), else 1.

    Examples:

        python -m tests.chaos --runs 3

        python -m tests.chaos --seed 17 --runs 1

        python -m tests.chaos --breach names-not-looked-at

        python -m tests.chaos --breach nobody-is-fenced --fault zombie --fault zombie
    """
    console = Console(stderr=True)
    console.print(f"the undisturbed run: {session(ticks).ticks:,} ticks", highlight=False)
    done: list[Done] = []
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder:
        settings = StackSettings(data_dir=Path(folder))
        found = stack.up(settings)
        try:
            for number in range(seed, seed + runs):
                console.print(f"seed {number}", style="bold", highlight=False)
                one = chaos(
                    settings,
                    found,
                    Path(folder) / "runs",
                    number,
                    ticks=ticks,
                    faults=list(fault) if fault else faults,
                    breach=breach,
                    tell=lambda told: console.print(f"  {told}", highlight=False, soft_wrap=True),
                )
                done.append(one)
                for each in one.wrong[:3]:
                    console.print(f"  {each}", style="red", highlight=False, markup=False)
                if breach is not None and one.wrong:
                    break
        finally:
            stack.down(settings)
    Console().print(_table(done))
    noticed = any(one.wrong for one in done)
    sys.exit(noticed if breach is None else not noticed)


def _table(done: list[Done]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("seed", "ticks", "faults", "restarts", "copies", "seconds", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for one in done:
        verdict = "[red]different[/]" if one.wrong else "[green]equal[/]"
        figures = (one.seed, one.ticks, len(one.struck), one.restarts, one.copies, round(one.seconds))
        table.add_row(*(f"{figure:,}" for figure in figures), verdict)
    return table


if __name__ == "__main__":
    typer.run(main)
