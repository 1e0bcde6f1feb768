"""What came out of a run, in figures: the same whether they were counted on the way or read from the database."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headrace.charts import Curve, sparkline
from schemas.records import (
    Bar,
    DeadLetter,
    Equity,
    Execution,
    LateTick,
    PortfolioSpec,
    Record,
    Regime,
    Snapshot,
)
from streams.agent import Output

_SPARK_WIDTH = 48


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """A portfolio at the end; amounts in its currency, ``max_drawdown`` as a share of the peak.

    ``sharpe`` is the mean over the standard deviation of the returns from snapshot to snapshot, not scaled to a
    year; None where there are fewer than two returns, or none that differ.
    """

    portfolio: str
    currency: str
    cash_at_start: Decimal
    equity: Decimal
    profit: Decimal
    realised: Decimal
    unrealised: Decimal
    fees: Decimal
    fills: dict[str, int]
    open_orders: int
    state: str
    max_drawdown: float
    sharpe: float | None


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a run. Keys: bar kinds, regime labels (warm verdicts), order states, "stage: reason".

    ``ticks_in_bars`` sums the bars' own counts: with one tick in one bar of each kind, all kinds agree.
    """

    bars: dict[str, int]
    ticks_in_bars: dict[str, int]
    late_ticks: int
    snapshots: int
    regimes: dict[str, int]
    orders: dict[str, int]
    books: list[Book]
    dead_letters: dict[str, int]

    @property
    def fills(self) -> int:
        """Of all portfolios and strategies, partial ones too."""
        return sum(sum(book.fills.values()) for book in self.books)


def max_drawdown(curve: Curve, start: Decimal) -> float:
    """The deepest fall from a peak, the start included, as a share of that peak."""
    peak, deepest = start, Decimal(0)
    for _, equity in curve:
        peak = max(peak, equity)
        deepest = max(deepest, (peak - equity) / peak)
    return float(deepest)


def sharpe(curve: Curve) -> float | None:
    """See `Book`."""
    values = [float(equity) for _, equity in curve]
    if len(values) < 3 or min(values) <= 0.0:
        return None
    returns = [now / before - 1.0 for before, now in pairwise(values)]
    spread = statistics.stdev(returns)
    return statistics.fmean(returns) / spread if spread > 0.0 else None


class Tally:
    """Counts outputs of the inline runner as they come, and keeps the equity curves."""

    def __init__(self, portfolios: Iterable[PortfolioSpec]) -> None:
        self._specs = {spec.name: spec for spec in portfolios}
        self.curves: dict[str, list[tuple[datetime, Decimal]]] = {name: [] for name in self._specs}
        self._bars: Counter[str] = Counter()
        self._ticks: Counter[str] = Counter()
        self._regimes: Counter[str] = Counter()
        self._orders: Counter[str] = Counter()
        self._letters: Counter[str] = Counter()
        self._fills: dict[str, Counter[str]] = {name: Counter() for name in self._specs}
        self._last: dict[str, Equity] = {}
        self._snapshots = 0
        self._late = 0

    def __call__(self, output: Output) -> None:
        """Take one output."""
        self.take(output.value)

    def take(self, record: Record) -> None:
        """Take one record of any topic; those that are not counted are ignored."""
        match record:
            case Bar():
                self._bars[record.kind] += 1
                self._ticks[record.kind] += record.count
            case Regime():
                self._regimes[record.label] += record.warm
            case Equity():
                self._last[record.portfolio] = record
                end = datetime.fromtimestamp(record.end / 1e6, UTC)
                self.curves[record.portfolio].append((end, record.equity))
            case Execution():
                self._orders[record.state] += 1
                if record.last_quantity:
                    self._fills[record.portfolio][record.strategy] += 1
            case Snapshot():
                self._snapshots += 1
            case LateTick():
                self._late += 1
            case DeadLetter():
                self._letters[f"{record.stage}: {record.reason}"] += 1

    def results(self) -> Results:
        """What has been counted so far."""
        return Results(
            bars=_sorted(self._bars),
            ticks_in_bars=_sorted(self._ticks),
            late_ticks=self._late,
            snapshots=self._snapshots,
            regimes=_sorted(self._regimes),
            orders=_sorted(self._orders),
            books=[self._book(name) for name in sorted(self._last)],
            dead_letters=_sorted(self._letters),
        )

    def _book(self, name: str) -> Book:
        last = self._last[name]
        return book_of(self._specs[name], last, _sorted(self._fills[name]), self.curves[name])


def book_of(spec: PortfolioSpec, last: Any, fills: Mapping[str, int], curve: Curve) -> Book:
    """A portfolio's figures from its settings, its last `Equity` (or a row with its fields), and its curve."""
    return Book(
        portfolio=spec.name,
        currency=spec.currency,
        cash_at_start=spec.cash,
        equity=last.equity,
        profit=last.equity - spec.cash,
        realised=last.realised,
        unrealised=last.unrealised,
        fees=last.fees,
        fills=dict(fills),
        open_orders=last.open_orders,
        state=str(last.state),
        max_drawdown=max_drawdown(curve, spec.cash),
        sharpe=sharpe(curve),
    )


def _sorted(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(key): counts[key] for key in sorted(counts) if counts[key]}


def tables(results: Results, curves: Mapping[str, Curve]) -> RenderableType:
    """The results for people, 80 characters wide."""
    return Group(_counts(results), *(_book(each, curves.get(each.portfolio, ())) for each in results.books))


def _counts(results: Results) -> Table:
    warm = sum(results.regimes.values())
    regimes = {label: f"{count / warm:.0%}" for label, count in results.regimes.items()}
    return _grid(
        ("bars", told(results.bars)),
        ("regimes", told(regimes)),
        ("snapshots", f"{results.snapshots:,}"),
        ("orders", told(results.orders)),
        ("late ticks", f"{results.late_ticks:,}"),
        ("dead letters", told(results.dead_letters)),
    )


def _book(book: Book, curve: Curve) -> RenderableType:
    profit = Text(f"{book.profit:+,.2f}", style="green" if book.profit >= 0 else "red")
    parts = f"realised {book.realised:+,.2f}, unrealised {book.unrealised:+,.2f}, fees {book.fees:,.2f}"
    ratio = "" if book.sharpe is None else f", Sharpe {book.sharpe:.3f} a snapshot"
    line = sparkline([float(equity) for _, equity in curve], _SPARK_WIDTH)
    return Group(
        Text(f"\n{book.portfolio}", style="bold"),
        _grid(
            ("equity", f"{book.equity:,.2f} {book.currency}, {book.state}, {book.open_orders} open orders"),
            ("profit", Text.assemble(profit, f"   {parts}")),
            ("risk", f"deepest drawdown {book.max_drawdown:.2%}{ratio}"),
            ("fills", told(book.fills)),
            ("", Text(line, style="cyan")),
        ),
    )


def _grid(*rows: tuple[str, str | Text]) -> Table:
    table = Table.grid(padding=(0, 2))
    for heading, value in rows:
        table.add_row(Text(heading.ljust(12), style="dim"), value)
    return table


def told(counts: Mapping[str, int | str]) -> str:
    """Counts in a line."""
    parts = (
        f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in counts.items()
    )
    return "   ".join(parts) or "none"
