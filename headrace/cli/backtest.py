"""`headrace backtest`: the whole topology over a file of trades, in this process, without Kafka."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from headrace import settings

if TYPE_CHECKING:
    from headrace.backtest import Read
    from streams.agent import Output


def backtest(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="CSV (also .csv.gz) or Parquet, a trade in a row, in time order.", show_default=False
        ),
    ] = None,
    quotes: Annotated[
        Path | None,
        typer.Option(help="A file of best bids and asks of the same time: orders pay their spread."),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate", help="Not a file, but a simulated session: section simulator of headrace.toml."
        ),
    ] = False,
    strategy: Annotated[
        str | None,
        typer.Option(help="Try this one alone: path/to/file.py:Class, or the name of an installed one."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write all results as Parquet and an equity plot into this folder.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of the file.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the simulated session.")] = None,
    minutes: Annotated[int | None, typer.Option(min=1, help="Length of the simulated session.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Run bars, regimes, correlations, strategies, risk and the paper venue over trades, as fast as possible.

    No Kafka, no database: the stages are the very ones that run live, and give the same results. Where
    headrace.toml declares no portfolio, one with both strategies trades all symbols of the file.

    Examples:

        headrace backtest trades.csv.gz

        headrace backtest trades.parquet --strategy my_strategy.py:Dip --out results/

        headrace backtest trades.csv --quotes quotes.csv

        headrace backtest --simulate --minutes 120
    """
    from headrace import backtest as runs
    from headrace.charts import equity_png
    from headrace.parquet import ParquetFolder
    from headrace.results import Tally, tables

    if (file is None) is not simulate:
        raise typer.BadParameter("name a FILE of trades, or say --simulate")
    if quotes is not None and file is None:
        raise typer.BadParameter("--quotes goes with a FILE of trades; simulator.quotes makes simulated ones")
    loaded = settings.load()
    console = Console(stderr=True) if as_json else Console()
    market = loaded.pipeline.market
    if file is not None:
        files = loaded.files.model_copy(update={"limit": limit or loaded.files.limit})
        feed = runs.file_feed(file, files, market, quotes)
    else:
        told = {"seed": seed, "minutes": minutes}
        over = {name: value for name, value in told.items() if value is not None}
        feed = runs.simulated_feed(loaded.simulator.model_copy(update=over), market)
    console.print(feed.title, soft_wrap=True)
    pipeline, defaults = runs.pipeline_for(loaded.pipeline, feed.source, feed.symbols, feed.quotes)
    if strategy is not None:
        pipeline = runs.with_strategy(pipeline, strategy)
    if defaults:
        names = ", ".join(part.name for part in pipeline.portfolios[0].strategies)
        universe = pipeline.universes[0]
        console.print(
            f"no portfolio is declared: {names} on {universe.bar} bars of {len(universe.symbols)} symbols "
            f"(`headrace init` writes a headrace.toml to change that)",
            style="dim",
            soft_wrap=True,
        )
    record = pipeline.record()
    tally = Tally(record.portfolios)
    began_s = time.monotonic()
    with ExitStack() as stack:
        takers: list[Callable[[Output], None]] = [tally]
        if out is not None:
            takers.append(stack.enter_context(ParquetFolder(out)))
        show = stack.enter_context(_shown(feed.fraction))
        read = runs.run(feed.parts(), record, takers, show)
    took_s = time.monotonic() - began_s
    results = tally.results()
    if out is not None:
        equity_png(tally.curves, out / "equity.png", feed.title.partition(" (")[0])
    if as_json:
        figures = {
            "ticks": read.ticks,
            "quotes": read.quotes,
            "seconds": round(took_s, 3),
            "ticks_per_second": round(read.ticks / took_s, 1),
            **msgspec.structs.asdict(results),
            "out": None if out is None else str(out),
        }
        typer.echo(msgspec.json.Encoder(decimal_format="number").encode(figures).decode())
        return
    taken = f"{read.ticks:,} ticks" + (f" and {read.quotes:,} quotes" if read.quotes else "")
    console.print(f"\n{taken} in {took_s:.1f} s, {(read.ticks + read.quotes) / took_s:,.0f} a second\n")
    console.print(tables(results, tally.curves))
    if not results.snapshots:
        why = "no portfolio saw a snapshot: does its universe name the symbols of this feed?"
        console.print(f"\n{why}", style="yellow")
    if out is not None:
        console.print(f"\nresults as Parquet, and equity.png: {out}", soft_wrap=True)


@contextmanager
def _shown(fraction: Callable[[Read], float]) -> Iterator[Callable[[Read], None]]:
    """A progress bar on standard error; nothing where that is no terminal."""
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn())
    left = (TextColumn("left"), TimeRemainingColumn())
    began_s = time.monotonic()
    console = Console(stderr=True)
    with Progress(*columns, *left, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=1.0, told="")

        def draw(read: Read) -> None:
            rate = (read.ticks + read.quotes) / max(time.monotonic() - began_s, 1e-3)
            bar.update(task, completed=fraction(read), told=f"{read.ticks:,} ticks, {rate:,.0f} a second,")

        yield draw
