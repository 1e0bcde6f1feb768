"""`headrace bench`, or `python -m bench`: what the README quotes, each with a table, a JSON file and a plot."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import backtest as backtests
from bench import confusion as confusions
from bench import contenders, pictures
from bench import dcc as dccs
from bench import latency as latencies
from bench import regimes as markov
from bench import soak as soaks
from bench import takeover as takeovers
from bench import throughput as throughputs
from bench import upgrade as upgrades
from bench.rig import RESULTS, services
from bench.throughput.contenders import PEERS_VENV
from bench.throughput.scenarios import Scenario
from headrace import settings
from headrace.cli import FAILURES

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="The measurements that the README quotes. Needs a machine that does nothing else: look at the load average.",
)

_Scenarios = Annotated[
    list[Scenario] | None, typer.Option("--scenario", help="May be given again. Left out: what can be run.")
]
_File = typer.Option(
    "--trades", exists=True, dir_okay=False, help="A file of trades, as `headrace ingest files` takes it."
)
_Trades = Annotated[Path | None, _File]
_NeededTrades = Annotated[Path, _File]
_Contenders = Annotated[
    list[str] | None, typer.Option("--contender", help="Only this one; may be given again. Left out: all.")
]
_Ticks = Annotated[int, typer.Option(min=50_000, help="Ticks in the topic: Headrace takes them all.")]
_Repetitions = Annotated[int, typer.Option(min=1, help="Runs of each, in turn.")]
_Processes = Annotated[int, typer.Option(min=1, max=4, help="More than 1: Headrace by so many, too.")]
_Rates = Annotated[
    list[int] | None,
    typer.Option("--rate", min=20, help="Ticks a second; may be given again. Left out: 1000 and 10000."),
]
_Sweep = Annotated[
    list[int] | None,
    typer.Option(
        "--sweep", min=20, help="A rate that is only tried; may be given again. Left out: up to 100000."
    ),
]
_Seconds = Annotated[float, typer.Option(min=2.0, help="Length of each measurement.")]
_Closings = Annotated[int, typer.Option(min=1, help="1-second bars that end in a second of the wall clock.")]
_Minutes = Annotated[float, typer.Option(min=1.0, help="Length of the run.")]
_Rate = Annotated[int, typer.Option(min=20, help="Ticks a second.")]

_Symbols = Annotated[
    list[int] | None,
    typer.Option(min=1, max=5_000, help="May be given again. Left out: 1, 100 and 5000."),
]
_TakeOvers = Annotated[int, typer.Option(min=1, help="Of each kind; the one in the middle counts.")]

TICKS, REPETITIONS, BACKTESTS = 8_000_000, 3, 3


@app.command()
def throughput(
    scenario: _Scenarios = None,
    trades: _Trades = None,
    ticks: _Ticks = TICKS,
    repetitions: _Repetitions = REPETITIONS,
    contender: _Contenders = None,
    processes: _Processes = 1,
) -> None:
    """Ticks to 1-second bars per second: Headrace beside other frameworks, in turn, over the same topics.

    Headrace is always measured; contenders that are not installed are left out (`make bench` installs them all). The
    trades of a file are read as the section files of headrace.toml says. Writes throughput.json and throughput.png
    into bench/results.

    Examples:

        headrace bench throughput

        headrace bench throughput --trades trades.csv.gz --processes 2

        headrace bench throughput --scenario sim20 --contender bytewax --repetitions 3
    """
    chosen = scenario or [each for each in Scenario if each is not Scenario.SESSIONS or trades is not None]
    plan = throughputs.Plan(
        chosen, ticks, repetitions, contender, processes=processes, trades=trades, files=settings.load().files
    )
    with services() as found, _shown("throughput", plan.steps()) as advance:
        figures = throughputs.run(found, plan, advance)
    throughputs.show(figures, Console())
    _written("throughput")


@app.command()
def latency(
    rate: _Rates = None,
    sweep: _Sweep = None,
    seconds: _Seconds = latencies.SECONDS,
    closings: _Closings = latencies.CLOSINGS,
    contender: _Contenders = None,
) -> None:
    """From the records that close a bar to the bar and to an order on it, and the rate at which each one is lost.

    Writes latency.json and latency.png into bench/results.

    Examples:

        headrace bench latency

        headrace bench latency --rate 5000 --seconds 30 --contender headrace
    """
    rates, tried = rate or latencies.RATES, sweep or latencies.SWEEP
    names = contender or contenders.NAMES
    with services() as found, _shown("latency", latencies.steps(rates, tried, names)) as advance:
        figures = latencies.run(
            found, rates=rates, sweep=tried, seconds=seconds, closings=closings, names=names, advance=advance
        )
    latencies.show(figures, Console())
    _written("latency")


@app.command()
def soak(minutes: _Minutes = soaks.MINUTES, rate: _Rate = soaks.RATE) -> None:
    """Whether the pipeline could run for ever: memory of every process and lag of every group at a steady rate.

    Writes soak.json and soak.png into bench/results.

    Examples:

        headrace bench soak

        headrace bench soak --minutes 60 --rate 20000
    """
    with services() as found, _shown("soak", soaks.steps(minutes)) as advance:
        figures = soaks.run(found, minutes=minutes, rate=rate, advance=advance)
    soaks.show(figures, Console())
    _written("soak")


@app.command()
def upgrade(rate: _Rate = upgrades.RATE) -> None:
    """How long results pause while the processes of an installation are restarted one by one.

    Writes upgrade.json and upgrade.png into bench/results.

    Examples:

        headrace bench upgrade

        headrace bench upgrade --rate 10000
    """
    with services() as found, _shown("upgrade", upgrades.steps()) as advance:
        figures = upgrades.run(found, rate=rate, advance=advance)
    upgrades.show(figures, Console())
    _written("upgrade")


@app.command()
def takeover(symbols: _Symbols = None, repetitions: _TakeOvers = 1) -> None:
    """Kill -9 of an owner while ticks flow: how long until its successor commits, with and without local copies.

    Writes takeover.json and takeover.png into bench/results, and the table of docs/recovery.md where it measured all.

    Examples:

        headrace bench takeover

        headrace bench takeover --symbols 100 --repetitions 3
    """
    counts = symbols or takeovers.SYMBOLS
    timeout_ms = settings.load().worker.session_timeout_ms
    with services() as found, _shown("takeover", takeovers.steps(counts, repetitions)) as advance:
        figures = takeovers.run(
            found, symbols=counts, repetitions=repetitions, session_timeout_ms=timeout_ms, advance=advance
        )
    takeovers.show(figures, Console())
    if symbols is None:
        takeovers.write(figures)
    _written("takeover")


@app.command()
def backtest(trades: _NeededTrades, repetitions: _Repetitions = BACKTESTS) -> None:
    """Backtests of a file of trades: Headrace beside nautilus_trader's engine and csp, in turn. Needs no services.

    Writes backtest.json and backtest.png into bench/results.

    Example:

        headrace bench backtest --trades trades.csv.gz
    """
    python = PEERS_VENV / "bin" / "python"
    peers = python if python.exists() else None
    with _shown("backtest", backtests.steps(repetitions, peers is not None)) as advance:
        figures = backtests.run(trades, repetitions=repetitions, peers=peers, advance=advance)
    backtests.show(figures, Console())
    if peers is None:
        Console().print("nautilus_trader, csp: not installed; `make bench` installs them", style="yellow")
    _written("backtest")


@app.command()
def confusion() -> None:
    """How often the rule classifier is right on simulated sessions; writes the table of docs/regimes.md.

    Example:

        headrace bench confusion
    """
    found: confusions.Confusion = Counter()
    with _shown("confusion", len(confusions.SEEDS)) as advance:
        for seed in confusions.SEEDS:
            found += confusions.confusion(seed, advance)
    confusions.write(found)
    console = Console()
    console.print(confusions.markdown(found), soft_wrap=True)
    console.print(f"written into {confusions.DOCS.name}", style="dim")


@app.command()
def regimes() -> None:
    """How well the hidden Markov filter finds regimes of a known truth; writes the table of docs/regimes.md.

    Example:

        headrace bench regimes
    """
    with _shown("regimes", len(markov.SEEDS)) as advance:
        told = markov.table(advance)
    markov.write(told)
    Console().print(told, soft_wrap=True)


@app.command()
def dcc(repetitions: _Repetitions = 3) -> None:
    """What DCC fits find again of a known truth, and how long they take; writes the tables of docs/correlations.md.

    Example:

        headrace bench dcc --repetitions 1
    """
    python = PEERS_VENV / "bin" / "python"
    peers = python if python.exists() else None
    with _shown("dcc", dccs.steps(repetitions, peers is not None)) as advance:
        figures = dccs.run(repetitions, peers, advance)
    console = Console()
    for told in (
        dccs.recovery_table(figures["recovery"]),
        dccs.speed_table(figures["fits"]),
        dccs.step_table(figures["steps"]),
    ):
        console.print(told, soft_wrap=True)
    if peers is None:
        console.print("pymgarch, multiarch: not installed; `make bench` installs them", style="yellow")


@app.command("pictures")
def draw(trades: _Trades = None) -> None:
    """The picture of docs/correlations.md: a day's regimes over prices, and the path of correlations.

    Examples:

        headrace bench pictures

        headrace bench pictures --trades trades.csv.gz
    """
    with _shown("pictures", 1) as advance:
        advance("a day, inline")
        path = pictures.draw(trades)
    Console().print(str(path), soft_wrap=True)


@app.command("all")
def everything(trades: _Trades = None) -> None:
    """All of them, as they are by default: well over an hour. Without a file of trades, what needs one is left out.

    Examples:

        headrace bench all

        headrace bench all --trades trades.csv.gz
    """
    with services():
        throughput(trades=trades, processes=2)
        latency()
        soak()
        upgrade()
        takeover()
    if trades is not None:
        backtest(trades)
    confusion()
    regimes()
    dcc()


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with ``arguments`` (None: the process's); our own errors are one message and exit status 1."""
    try:
        app(args=arguments, prog_name="headrace bench")
    except FAILURES as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
