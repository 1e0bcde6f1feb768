"""What the demo shows while it runs: a live view on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from rich.align import Align
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headrace.charts import braille
from headrace.demo.watch import Watch
from headrace.lags import SINK
from headrace.results import told
from schemas.records import Correlations, Execution, Label, OrderState

_REGIMES = {
    Label.TRENDING: ("trend", "green"),
    Label.RANGING: ("range", "cyan"),
    Label.CHOPPY: ("chop", "yellow"),
    Label.CRISIS: ("crisis", "bold red"),
}
_STATE_STYLES = {
    OrderState.FILLED: "green",
    OrderState.PARTIALLY_FILLED: "green",
    OrderState.DENIED: "yellow",
    OrderState.REJECTED: "red",
}
_RATE_OVER_S = 3.0
_TALL, _WIDE = 34, 110
"""Terminals at least this large show everything."""


class Stage(NamedTuple):
    """A row of the pipeline's table: who, what it writes and its topic, and whose lag."""

    name: str
    what: str
    topic: str
    lag: str | None


STAGES = (
    Stage("ingest", "ticks", "market.ticks", None),
    Stage("symbols", "bars", "market.bars", "symbols"),
    Stage("fitter", "", "", "fitter"),
    Stage("universes", "correlations", "market.correlations", "universes"),
    Stage("portfolios", "order events", "trade.executions", "portfolios"),
    Stage("sink", "", "", SINK),
)


class Rates:
    """Records a second over the last few seconds, from counts that are told now and then."""

    def __init__(self) -> None:
        self._told: deque[tuple[float, dict[str, int]]] = deque()

    def tell(self, now_s: float, counts: dict[str, int]) -> None:
        """The counts at a moment."""
        self._told.append((now_s, counts))
        while len(self._told) > 2 and now_s - self._told[1][0] >= _RATE_OVER_S:
            self._told.popleft()

    def of(self, name: str) -> float:
        """Zero before there are two counts."""
        if len(self._told) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._told[0], self._told[-1]
        return (last.get(name, 0) - first.get(name, 0)) / max(last_s - first_s, 1e-3)


class Screen:
    """Draws a `Watch` and the lags; both methods are given the seconds since the demo began."""

    def __init__(self, watch: Watch, title: str, length_ms: tuple[int, int] | None) -> None:
        self._watch = watch
        self._title = title
        self._length_ms = length_ms
        self._rates = Rates()
        self.lags: dict[str, int | None] = {}
        self.note = ""

    def line(self, elapsed_s: float) -> str:
        """Everything that matters in one line."""
        watch = self._watch
        with watch.lock:
            counts = self._counts(elapsed_s)
            results = watch.tally.results()
        lags = ", ".join(f"{name} {behind}" for name, behind in self.lags.items() if behind)
        return (
            f"{elapsed_s:5.0f} s  {self._time()}  {watch.ticks:,} ticks ({self._rates.of('market.ticks'):,.0f}/s), "
            f"{counts['market.bars']:,} bars, {results.snapshots:,} snapshots, {results.fills:,} fills, "
            f"{sum(results.dead_letters.values())} dead letters; behind: {lags or 'none'}"
        )

    def draw(self, elapsed_s: float, width: int, height: int) -> RenderableType:
        """The whole view for a terminal of this size."""
        with self._watch.lock:
            self._counts(elapsed_s)
            curves = self._watch.tally.curves
            large = width >= _WIDE and height >= _TALL
            layout = Layout(size=height - 1)
            books = Layout(name="books", size=9)
            books.split_row(*(Layout(self._book(name, width // len(curves) - 4)) for name in sorted(curves)))
            top = Layout(self._pipeline(elapsed_s), size=9)
            if large:
                top = Layout(size=14)
                top.split_row(Layout(self._pipeline(elapsed_s), ratio=3), Layout(self._heat(), ratio=2))
            below = Layout()
            below.split_row(
                Layout(self._symbols(2 if large else 1), ratio=1), Layout(self._events(), ratio=1)
            )
            layout.split_column(top, books, below)
            return layout

    def _counts(self, elapsed_s: float) -> dict[str, int]:
        counts = {**self._watch.records, "market.ticks": self._watch.ticks}
        counts.setdefault("market.bars", 0)
        self._rates.tell(elapsed_s, counts)
        return counts

    def _time(self) -> str:
        time_ms = self._watch.time_ms
        if not time_ms:
            return "before the first tick"
        return f"{datetime.fromtimestamp(time_ms / 1e3, UTC):%Y-%m-%d %H:%M:%S}"

    def _pipeline(self, elapsed_s: float) -> RenderableType:
        watch = self._watch
        table = Table.grid(padding=(0, 2))
        for heading, side in (("", "left"), ("records", "right"), ("", "left"), ("a second", "right")):
            table.add_column(heading, justify="right" if side == "right" else "left")
        table.add_column("behind", justify="right")
        for stage in STAGES:
            count = watch.ticks if stage.name == "ingest" else watch.records[stage.topic]
            rate = self._rates.of(stage.topic)
            behind = self.lags.get(stage.lag) if stage.lag else None
            table.add_row(
                Text(stage.name, style="bold"),
                f"{count:,}" if stage.what else "",
                stage.what,
                f"{rate:,.0f}/s" if stage.what else "",
                "" if behind is None else Text(f"{behind:,} behind", style="yellow" if behind else "dim"),
            )
        letters = watch.tally.results().dead_letters
        total = sum(letters.values())
        table.add_row(Text("dead letters", style="bold"), f"{total:,}", "", "", "")
        parts: list[RenderableType] = [table]
        if letters:
            parts.append(Text(told(letters), style="dim", no_wrap=True, overflow="ellipsis"))
        if self.note:
            parts.append(Text(self.note, style="dim italic", no_wrap=True, overflow="ellipsis"))
        return Panel(
            Group(*parts),
            title=f"[bold]{self._title}[/]",
            subtitle=f"{self._time()} UTC{self._share()}   {elapsed_s:,.0f} s",
            title_align="left",
            subtitle_align="right",
            border_style="blue",
        )

    def _share(self) -> str:
        if self._length_ms is None:
            return ""
        first, last = self._length_ms
        return f"   {min(max((self._watch.time_ms - first) / (last - first), 0.0), 1.0):.0%} of the session"

    def _heat(self) -> RenderableType:
        universes = self._watch.correlations
        widest = max(universes.values(), key=lambda each: len(each.symbols), default=None)
        if widest is None:
            return _panel("waits for the first snapshot", "correlations")
        warm = "" if widest.warm else ", warming up"
        average = f"average {widest.average_correlation:+.2f}{warm}"
        return Panel(
            Align.center(heat(widest)),
            title="correlations",
            subtitle=f"{widest.universe}: {average}",
            title_align="left",
            border_style="blue",
        )

    def _book(self, name: str, width: int) -> RenderableType:
        watch = self._watch
        curve = [float(equity) for _, equity in watch.tally.curves[name]]
        book = next((each for each in watch.tally.results().books if each.portfolio == name), None)
        if book is None:
            return _panel("waits for the first snapshot", name)
        risk = watch.risk.get(name)
        profit = Text(f"{book.profit:+,.0f}", style="bold green" if book.profit >= 0 else "bold red")
        head = Text.assemble(f"{book.equity:,.0f} {book.currency}  ", profit, f"  {book.state}", no_wrap=True)
        lines: list[RenderableType] = [head]
        if risk is not None:
            figures = (
                f"VaR {risk.value_at_risk:,.0f}  CVaR {risk.conditional_value_at_risk:,.0f}  "
                f"leverage {risk.leverage:.2f}  drawdown {risk.drawdown:.2%}"
            )
            lines.append(Text(figures if risk.warm else f"{figures} (warming up)", no_wrap=True))
        lines += [Text(row, style="cyan", no_wrap=True) for row in braille(curve, width, 3)]
        held = [p for p in watch.positions.get(name, {}).values() if p.quantity]
        held.sort(key=lambda p: -abs(p.quantity * p.average_cost))
        positions = "  ".join(f"{p.symbol} {p.quantity.normalize():+,f}" for p in held[:4])
        fills = f"fills: {told(book.fills)}"
        lines.append(Text(fills, no_wrap=True, overflow="ellipsis"))
        lines.append(Text(positions or "no position", style="dim", no_wrap=True, overflow="ellipsis"))
        return Panel(Group(*lines), title=f"[bold]{name}[/]", title_align="left", border_style="blue")

    def _symbols(self, columns: int) -> RenderableType:
        rows = self._watch.rows
        if not rows:
            return _panel("waits for the first bars", "1-minute bars")
        table = Table.grid(padding=(0, 1))
        for side in columns * ("left", "right", "right", "left"):
            table.add_column(justify=side, no_wrap=True)
        cells = [self._symbol(name) for name in sorted(rows)]
        length = -(-len(cells) // columns)
        for at in range(length):
            table.add_row(*(part for each in cells[at::length] for part in each))
        labels: dict[str, int] = {}
        for row in rows.values():
            if row.regime is not None and row.regime.warm:
                labels[row.regime.label] = labels.get(row.regime.label, 0) + 1
        return Panel(
            table,
            title="latest bars and regimes",
            subtitle=told(dict(sorted(labels.items()))) if labels else "regimes warm up",
            title_align="left",
            border_style="blue",
        )

    def _symbol(self, name: str) -> tuple[RenderableType, ...]:
        row = self._watch.rows[name]
        change = row.bar.close / self._watch.opening[name] - 1.0
        label: RenderableType = Text("·", style="dim")
        if row.regime is not None and row.regime.warm:
            label = Text(*_REGIMES[row.regime.label])
        moved = Text(f"{change:+.2%}", style="green" if change >= 0 else "red")
        return Text(name, style="dim" if row.stale else ""), f"{row.bar.close:,.2f}", moved, label

    def _events(self) -> RenderableType:
        lines: list[RenderableType] = [
            Text(f"{alert.portfolio} {alert.message}", style="bold red", no_wrap=True, overflow="ellipsis")
            for alert in list(self._watch.alerts)[-2:]
        ]
        recent = sorted(self._watch.events, key=lambda each: each.event_time, reverse=True)
        lines += [_event(each) for each in recent]
        if not lines:
            return _panel("waits for the strategies' warm-up", "orders")
        return Panel(Group(*lines), title="orders", title_align="left", border_style="blue")


def heat(given: Correlations) -> Text:
    """The correlation matrix in colours, two rows of it in a line of characters: blue −1, red +1."""
    size = len(given.symbols)
    matrix = _square(given.correlations, size)
    text = Text()
    for row in range(0, size, 2):
        for column in range(size):
            below = matrix[row + 1][column] if row + 1 < size else math.nan
            text.append("▀▀", style=f"{_colour(matrix[row][column])} on {_colour(below)}")
        text.append("\n")
    return text


def _square(packed: Sequence[float], size: int) -> list[list[float]]:
    """The symmetric matrix of its upper triangle by rows, without the diagonal of ones."""
    matrix = [[1.0] * size for _ in range(size)]
    values = iter(packed)
    for row in range(size):
        for column in range(row + 1, size):
            matrix[row][column] = matrix[column][row] = next(values)
    return matrix


def _colour(value: float) -> str:
    if math.isnan(value):
        return "default"
    strength = min(abs(value), 1.0)
    low, high = round(40 * (1 - strength)), round(60 + 195 * strength)
    return f"rgb({high},{low},{low})" if value >= 0 else f"rgb({low},{low},{high})"


def _event(given: Execution) -> Text:
    when = f"{datetime.fromtimestamp(given.event_time / 1e6, UTC):%H:%M}"
    what = f"{given.side.lower()} {given.quantity.normalize():,f} {given.symbol}"
    if given.state is OrderState.DENIED:
        how = (
            f"denied: {given.limit} {given.value:,.0f}, would be {given.figure:,.0f}"
            if given.limit
            else given.reason
        )
    elif given.last_quantity:
        how = f"{given.last_quantity.normalize():,f} at {given.last_price:,.2f}"
    else:
        how = given.state.lower()
    text = f"{when} {given.portfolio:<6} {given.strategy:<9} {what}: {how}"
    return Text(text, style=_STATE_STYLES.get(given.state, "dim"), no_wrap=True, overflow="ellipsis")


def _panel(message: str, title: str) -> Panel:
    return Panel(Text(message, style="dim"), title=title, title_align="left", border_style="blue")
