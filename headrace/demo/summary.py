"""The end of the demo: what the database holds of it, in figures, and what to try next."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.text import Text
from sqlalchemy import Connection, func, select

from headrace.charts import Curve
from headrace.results import Results, book_of, tables, told
from schemas.records import PortfolioSpec
from sinks.timescale import queries
from sinks.timescale.tables import bars, run_of


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What `headrace demo --json` prints.

    ``ticks_sent`` were counted in Kafka, ``bad_ticks`` are those among them that were bad on purpose; everything in
    ``rows`` (by table) and ``results`` was read from the database. ``restarts`` are those of processes that ended
    unasked. Times are in seconds from the start of the command; ``first_fill_s`` is None where nothing filled.
    """

    namespace: str
    run: str
    simulated: bool
    ticks_sent: int
    bad_ticks: int
    elapsed_s: float
    first_fill_s: float | None
    rows: dict[str, int]
    conflicts: int
    results: Results
    restarts: dict[str, int]
    folder: str
    plot: str


def read(
    connection: Connection, namespace: str, portfolios: tuple[PortfolioSpec, ...]
) -> tuple[Results, dict[str, int], int, dict[str, Curve]]:
    """The results of a run, its rows by table, its conflicts, and its equity curves."""
    run = run_of(namespace)
    rows = queries.counts(connection, run)
    curves: dict[str, Curve] = {p.name: queries.equity_curve(connection, run, p.name) for p in portfolios}
    filled = queries.fills(connection, run)
    last = {account.portfolio: account for account in queries.accounts(connection, run)}
    letters = queries.dead_letters(connection, run)
    results = Results(
        bars=queries.bars(connection, run),
        ticks_in_bars=_ticks_in_bars(connection, run),
        late_ticks=rows["market_ticks_late"],
        snapshots=rows["snapshots"],
        regimes=queries.regimes(connection, run),
        orders=queries.order_states(connection, run),
        books=[
            book_of(
                spec,
                last[spec.name],
                {strategy: count for (name, strategy), count in filled.items() if name == spec.name},
                curves[spec.name],
            )
            for spec in portfolios
            if spec.name in last
        ],
        dead_letters={f"{stage}: {reason}": count for (stage, reason), count in letters.items()},
    )
    return results, rows, queries.conflicts(connection, run), curves


def _ticks_in_bars(connection: Connection, run: str) -> dict[str, int]:
    query = select(bars.c.kind, func.sum(bars.c["count"])).where(bars.c.run == run).group_by(bars.c.kind)
    return {kind: int(count) for kind, count in connection.execute(query.order_by(bars.c.kind))}


def show(console: Console, summary: Summary, curves: dict[str, Curve], *, stack_stays: bool) -> None:
    """Print the summary and what to try next."""
    console.print()
    console.rule(f"[bold]{summary.namespace}[/]: what TimescaleDB holds", align="left")
    ticks = f"{summary.ticks_sent:,} ticks in {summary.elapsed_s:.0f} s"
    if summary.bad_ticks:
        ticks += f", {summary.bad_ticks} of them bad on purpose"
    if summary.first_fill_s is not None:
        ticks += f"; first fill after {summary.first_fill_s:.0f} s"
    console.print(ticks, highlight=False)
    console.print(Text(f"rows: {told({name: n for name, n in summary.rows.items() if n})}", style="dim"))
    console.print(tables(summary.results, curves))
    restarts = {name: count for name, count in summary.restarts.items() if count}
    if restarts:
        console.print(f"\nstarted again after an unexpected end: {told(restarts)}", style="yellow")
    if summary.conflicts:
        console.print(
            f"\n{summary.conflicts} records differ from their first copy: a defect", style="bold red"
        )
    console.print(f"\nequity plot: {summary.plot}", soft_wrap=True, highlight=False)
    console.print(_next(summary, stack_stays), soft_wrap=True, highlight=False)


def _next(summary: Summary, stack_stays: bool) -> str:
    commands = [
        (
            f"export HEADRACE_SETTINGS={summary.folder}/headrace.toml",
            "the demo's settings, for all that follows",
        ),
        ("headrace topics check", "what each topic holds"),
        ("headrace topics delete --yes", f"remove them; the rows stay in the database, as run {summary.run}"),
    ]
    if summary.simulated:
        commands.insert(
            2, ("headrace backtest --simulate", "the same session without Kafka: the same figures")
        )
    if not stack_stays:
        commands.insert(1, ("headrace up", "the stack was stopped with the demo; --keep leaves it running"))
    return "\ntry next:\n" + "\n".join(f"  {command}\n      [dim]{why}[/]" for command, why in commands)
