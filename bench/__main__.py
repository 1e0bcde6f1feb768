"""`python -m bench`: the measurements that the README quotes, each with a table, a JSON file and a plot."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import confusion as confusions
from bench import latency as latencies
from bench import throughput as throughputs
from bench.rig import RESULTS, services
from headrace.cli import FAILURES

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="The measurements that the README quotes. Needs a machine that does nothing else: look at the load average.",
)

_Ticks = Annotated[int, typer.Option(min=50_000, help="Ticks for Headrace.")]
_StockTicks = Annotated[
    int, typer.Option(min=5_000, help="Records for stock Faust: the first of the same topic.")
]
_Repetitions = Annotated[int, typer.Option(min=1, help="Runs of each, in turn.")]
_Rate = Annotated[int, typer.Option(min=20, help="Ticks a second.")]
_Seconds = Annotated[int, typer.Option(min=2, help="Length of the measurement; a bar ends in each.")]

TICKS, STOCK_TICKS, REPETITIONS = 300_000, 40_000, 5
RATE, SECONDS = 1_000, 120


@app.command()
def throughput(
    ticks: _Ticks = TICKS, stock_ticks: _StockTicks = STOCK_TICKS, repetitions: _Repetitions = REPETITIONS
) -> None:
    """Ticks to 1-second bars per second: Headrace beside a stock Faust agent, in turn, over the same topic.

    Writes throughput.json and throughput.png into bench/results.

    Examples:

        python -m bench throughput

        python -m bench throughput --ticks 1000000 --repetitions 3
    """
    with services() as found, _shown("throughput", 3 * repetitions) as advance:
        figures = throughputs.run(
            found, ticks=ticks, stock_ticks=stock_ticks, repetitions=repetitions, advance=advance
        )
    throughputs.show(figures, Console())
    _written("throughput")


@app.command()
def latency(rate: _Rate = RATE, seconds: _Seconds = SECONDS) -> None:
    """From the record that closes a bar to its snapshot and to an order on it, p50 and p99, at a steady rate.

    Writes latency.json and latency.png into bench/results.

    Examples:

        python -m bench latency

        python -m bench latency --rate 5000 --seconds 30
    """
    with services() as found, _shown("latency", 3) as advance:
        figures = latencies.run(found, rate=rate, seconds=seconds, advance=advance)
    latencies.show(figures, Console())
    _written("latency")


@app.command()
def confusion() -> None:
    """How often the rule classifier is right on simulated sessions; writes the table of docs/regimes.md.

    Example:

        python -m bench confusion
    """
    found: confusions.Confusion = Counter()
    with _shown("confusion", len(confusions.SEEDS)) as advance:
        for seed in confusions.SEEDS:
            found += confusions.confusion(seed, advance)
    confusions.write(found)
    console = Console()
    console.print(confusions.markdown(found), soft_wrap=True)
    console.print(f"written into {confusions.DOCS.name}", style="dim")


@app.command("all")
def everything() -> None:
    """All of them, as they are by default.

    Example:

        python -m bench all
    """
    with services():
        throughput()
        latency()
    confusion()


def _written(name: str) -> None:
    Console().print(f"{RESULTS.name}/{name}.json, {RESULTS.name}/{name}.png\n", style="dim", soft_wrap=True)


@contextmanager
def _shown(name: str, steps: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on standard error; a line for each step where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda told: typer.echo(f"{name}: {told}", err=True)
        return
    columns = (TextColumn(name), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=steps, completed=-1)

        def advance(told: str) -> None:
            bar.update(task, description=told, advance=1)

        yield advance


def main() -> None:
    """Run the command; our own errors are one message and exit status 1."""
    try:
        app(prog_name="python -m bench")
    except FAILURES as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
