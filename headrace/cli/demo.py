"""`headrace demo`: from ticks to fills on a real Kafka and a real TimescaleDB, in one command."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console

from headrace import settings


def demo(
    trades: Annotated[
        Path | None,
        typer.Option(help="Run on a file of real trades (CSV or Parquet) instead of simulated ones."),
    ] = None,
    symbols: Annotated[int, typer.Option(min=2, max=99, help="Simulated symbols.")] = 20,
    minutes: Annotated[int | None, typer.Option(min=30, help="Length of the simulated session.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=1.0, help="At most this many ticks a second; simulated: 4000.")
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(min=1.0, help="Times real speed, instead of a rate: 60 is an hour in a minute."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another day.")] = 7,
    short: Annotated[
        bool, typer.Option("--short", help="75 minutes of the day, done in under a minute.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the stack running that this demo started.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the summary as one JSON object; progress goes to standard error."),
    ] = False,
) -> None:
    """Watch ticks become bars, regimes, correlations, risk, signals, orders, fills and an equity curve.

    Starts the local stack where it is not up, makes topics in a namespace of its own, runs every agent, the sink and
    a simulator as processes, and ends by itself in about two minutes with a summary read back from TimescaleDB.
    Ctrl-C stops everything. Topics and rows stay for exploring.

    Exit status: 0 when orders were filled and all is in the database, 130 after Ctrl-C, else 1.

    Examples:

        headrace demo

        headrace demo --short --json | jq .results.books

        headrace demo --trades trades.csv.gz
    """
    from headrace.demo import plan, summary
    from headrace.demo.run import Done, run

    usual = plan.Choices()
    chosen = plan.Choices(
        symbols=symbols,
        minutes=minutes or (plan.SHORT_MINUTES if short else usual.minutes),
        ticks_per_minute=plan.SHORT_TICKS_PER_MINUTE if short else usual.ticks_per_minute,
        seed=seed,
        rate=rate,
        speed=speed,
        trades=trades,
    )
    signal.signal(signal.SIGTERM, _terminated)
    console = Console(stderr=as_json)

    def tell(done: Done) -> None:
        summary.show(console, done.summary, done.curves, stack_stays=done.stack_stays)
        if as_json:
            typer.echo(msgspec.json.Encoder(decimal_format="number").encode(done.summary).decode())

    try:
        run(settings.load(), chosen, console, tell, keep=keep)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: everything that the demo started is stopped\n")
        raise typer.Exit(130) from None


def _terminated(number: int, _: object) -> NoReturn:
    """As Ctrl-C, but for the exit status: everything on the way out cleans up."""
    raise SystemExit(128 + number)
