"""Where an order comes from: fill ← order ← check ← signal ← snapshot ← regime ← bar ← ticks, as it lies in the topics.

A snapshot whose covariance is a fitted model's rests on the fit too.

Records cite each other by identity, never by offset, so every place is looked up when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from headrace import moments
from headrace.audit_log import Log, Placed
from headrace.audit_ticks import adds_up, name_of, tick_in, ticks_of
from headrace.compare import identity
from schemas.codec import identity_of
from schemas.records import (
    Bar,
    Correlations,
    Execution,
    Fit,
    OrderState,
    Record,
    Regime,
    Signal,
    Snapshot,
    SnapshotRow,
)
from streams.barrier.fits import LAST
from streams.errors import HeadraceError
from streams.pretrade.lifecycle import TERMINAL

EXECUTIONS: Final = "trade.executions"
SIGNALS: Final = "strategy.signals"
SNAPSHOTS: Final = "portfolio.events"
BARS: Final = "market.bars"
REGIMES: Final = "market.regimes"
CORRELATIONS: Final = "market.correlations"
UNIVERSE_BARS: Final = "universe.bars"
TICKS: Final = "market.ticks"
_OTHERS: Final = 3
"""Orders that are named where the one asked for is not there."""


class UnknownOrder(HeadraceError):
    """Raised where no event of such an order is there."""


class OrderId(NamedTuple):
    """An order's identity, taken apart."""

    portfolio: str
    epoch: int
    start: int
    strategy: str
    symbol: str
    sequence: int

    @classmethod
    def parse(cls, text: str) -> OrderId:
        """Raises `UnknownOrder` where it cannot be one."""
        parts = text.split("/")
        if len(parts) != len(cls._fields) or not all(parts):
            raise UnknownOrder(_what_an_order_is(text))
        portfolio, epoch, start, strategy, symbol, sequence = parts
        if not (epoch.isdecimal() and start.isdecimal() and sequence.isdecimal()):
            raise UnknownOrder(_what_an_order_is(text))
        return cls(portfolio, int(epoch), int(start), strategy, symbol, int(sequence))


class Link(msgspec.Struct, kw_only=True):
    """One record of a chain, and what it rests on. A record that is not there has ``missing`` to say why."""

    what: str
    told: str
    event_time: int | None = None
    place: str | None = None
    missing: str | None = None
    record: Record | None = None
    causes: list[Link] = msgspec.field(default_factory=list)


class Audit(msgspec.Struct, kw_only=True):
    """An order: its events that are no check, latest first, and the check with all that it rests on."""

    order_id: str
    told: str
    events: list[Link]
    check: Link

    @property
    def missing(self) -> list[Link]:
        """Every link that is not there."""
        return [link for top in (*self.events, self.check) for link in walk(top) if link.missing]


def walk(link: Link) -> Iterator[Link]:
    """A link and all that it rests on."""
    yield link
    for cause in link.causes:
        yield from walk(cause)


def audit(log: Log, order_id: str, *, all_ticks: bool = False) -> Audit:
    """The chain of an order; every tick of its bars with ``all_ticks``, else the first, the last, and how many.

    Raises `UnknownOrder` where there is none.
    """
    order = OrderId.parse(order_id)
    return _Chain(log, order, order_id, all_ticks).read()


class _Chain:
    """One order's, while it is looked up."""

    def __init__(self, log: Log, order: OrderId, order_id: str, all_ticks: bool) -> None:
        self._log, self._order, self._order_id, self._all_ticks = log, order, order_id, all_ticks
        self._settings = log.settings()

    def read(self) -> Audit:
        placed = self._events()
        links, first = [], placed[0].record
        assert isinstance(first, Execution)
        for each in placed:
            event = each.record
            assert isinstance(event, Execution)
            word = "fill" if event.last_quantity else event.state.lower().replace("_", " ")
            link = _link(word if event.sequence else "check", _told_event(event), each, event.event_time)
            if event.last_quantity:
                link.causes.append(self._snapshot(event.start, regime=False))
            links.append(link)
        told = f"{first.side} {_number(first.quantity)} {first.symbol}, {first.order_type}"
        if first.limit_price is not None:
            told += f" at {_number(first.limit_price)}"
        if first.sequence == 0:
            check = links.pop(0)
        else:
            check = self._missing("check", EXECUTIONS, self._order.portfolio, "the order's first event")
        check.causes.append(self._signal())
        return Audit(order_id=self._order_id, told=told, events=links[::-1], check=check)

    def _events(self) -> list[Placed]:
        """The order's events, each once, in their order."""
        found: dict[int, Placed] = {}
        others: dict[str, None] = {}
        for placed in self._log.records(EXECUTIONS, self._order.portfolio, self._order.start):
            event = placed.record
            if not isinstance(event, Execution):
                continue
            if event.order_id == self._order_id:
                found.setdefault(event.sequence, placed)
                if event.state in TERMINAL:
                    break
            elif len(others) < _OTHERS:
                others[event.order_id] = None
        if not found:
            raise UnknownOrder(self._unknown(list(others)))
        return [found[sequence] for sequence in sorted(found)]

    def _unknown(self, others: Sequence[str]) -> str:
        text = f"there is no order {self._order_id} in {EXECUTIONS}"
        partition, begin = self._log.begins(EXECUTIONS, self._order.portfolio)
        if begin:
            text += f", whose partition {partition} begins at offset {begin}: it may be gone"
        if others:
            return f"{text}. Of the same portfolio and time are: {', '.join(others)}"
        return f"{text}. {_where_orders_are()}"

    def _signal(self) -> Link:
        order = self._order
        signal = self._find(SIGNALS, order.portfolio, order.start, Signal, order[:-1])
        if signal is None:
            link = self._missing(
                "signal", SIGNALS, order.portfolio, f"of {order.strategy} for {order.symbol}"
            )
        else:
            record = signal.record
            assert isinstance(record, Signal)
            told = f"{record.strategy} wants {record.weight:+.4g} of the equity in {record.symbol}"
            told += f", {record.order_type}" + ("" if not record.reason else f": {record.reason}")
            link = _link("signal", told, signal, record.end)
        link.causes.append(self._snapshot(order.start, regime=True))
        return link

    def _snapshot(self, start: int, *, regime: bool) -> Link:
        """The snapshot of ``start``, with the symbol's regime, where that is wanted, and bar."""
        portfolio, symbol = self._order.portfolio, self._order.symbol
        placed = self._find(SNAPSHOTS, portfolio, start, Snapshot, (portfolio, start))
        if placed is None:
            return self._missing("snapshot", SNAPSHOTS, portfolio, f"of {moments.shown(start)}")
        snapshot = placed.record
        assert isinstance(snapshot, Snapshot)
        link = _link("snapshot", _told_snapshot(snapshot), placed, snapshot.end)
        if regime and snapshot.fit is not None:
            link.causes.append(self._fit(snapshot))
        row = next((row for row in snapshot.rows if row.symbol == symbol), None)
        if row is None:
            return link
        bar = self._bar(row)
        if regime and row.regime is not None:
            verdict = self._regime(row.regime)
            verdict.causes.append(bar)
            link.causes.append(verdict)
        else:
            link.causes.append(bar)
        return link

    def _fit(self, snapshot: Snapshot) -> Link:
        """The fit behind a snapshot's covariance: where its data ended says the record of the correlations."""
        universe, start = snapshot.universe, snapshot.start
        told = f"version {snapshot.fit} of {universe}"
        placed = self._find(CORRELATIONS, universe, start, Correlations, (universe, start))
        if placed is None:
            return self._missing("fit", CORRELATIONS, universe, told)
        record = placed.record
        assert isinstance(record, Correlations)
        data_through = record.end - (record.fit_age_us or 0)
        wanted = (universe, LAST, snapshot.fit)
        found = self._find(UNIVERSE_BARS, universe, data_through, Fit, wanted)
        if found is None:
            return self._missing("fit", UNIVERSE_BARS, universe, told)
        fit = found.record
        assert isinstance(fit, Fit)
        told += f", {record.model}, to {fit.observations} snapshots through {moments.shown(fit.data_through)}"
        return _link("fit", told + (f"; {fit.status}" if fit.status else ""), found, fit.due)

    def _regime(self, wanted: Regime) -> Link:
        placed = self._find(REGIMES, wanted.symbol, wanted.end, Regime, identity(wanted))
        if placed is None:
            what = f"of {wanted.symbol} on {wanted.kind} of {moments.shown(wanted.start)}"
            return self._missing("regime", REGIMES, wanted.symbol, what)
        told = f"{wanted.symbol} {wanted.label}" + ("" if wanted.warm else ", not warm yet")
        return _link("regime", f"{told}, by {wanted.classifier}", placed, wanted.end)

    def _bar(self, row: SnapshotRow) -> Link:
        wanted = row.bar
        placed = self._find(BARS, wanted.symbol, wanted.end, Bar, identity(wanted))
        if placed is None:
            what = f"{wanted.kind} of {wanted.symbol} of {moments.shown(wanted.start)}"
            link = self._missing("bar", BARS, wanted.symbol, what)
        else:
            link = _link("bar", _told_bar(row), placed, wanted.end)
        link.causes += self._ticks(wanted)
        return link

    def _ticks(self, bar: Bar) -> list[Link]:
        """The ticks that a bar was made of: the first so many good ones of its window, for a later one was late."""
        ticks = ticks_of(bar, self._log.records(TICKS, bar.symbol, bar.start), self._settings)
        links = [_link("tick", _told_tick(placed), placed, tick_in(placed).event_time) for placed in ticks]
        if not self._all_ticks and len(links) > 2:
            between = Link(what="ticks", told=f"{len(links) - 2:,} more between them")
            links = [links[0], between, links[-1]]
        if not adds_up(bar, ticks):
            told = f"{bar.count:,}, from {bar.first_tick} to {bar.last_tick}; {len(ticks):,} were found"
            missing = self._missing("ticks", TICKS, bar.symbol, told)
            links.append(missing)
        return links

    def _find(
        self, topic: str, key: str, since_us: int, kind: type[Record], wanted: tuple[Any, ...]
    ) -> Placed | None:
        """The first copy of the record with an identity."""
        identity_in = attrgetter(*identity_of(kind))
        for placed in self._log.records(topic, key, since_us):
            if isinstance(placed.record, kind) and identity_in(placed.record) == wanted:
                return placed
        return None

    def _missing(self, what: str, topic: str, key: str, told: str) -> Link:
        partition, begin = self._log.begins(topic, key)
        why = f"is not in {topic}[{partition}]"
        if begin:
            why += f", which begins at offset {begin}: what was before it is gone"
        return Link(what=what, told=told, missing=why)


def _link(what: str, told: str, placed: Placed, event_time: int) -> Link:
    return Link(what=what, told=told, event_time=event_time, place=placed.place, record=placed.record)


def _told_event(event: Execution) -> str:
    parts = []
    if event.state is OrderState.DENIED:
        over = "" if event.value is None else f" {_number(event.value)}, it would be {_number(event.figure)}"
        parts.append(f"denied by {event.limit}{over}")
    elif event.sequence == 0:
        parts.append("approved: within every limit")
    if event.last_quantity:
        price = f"{_number(event.last_quantity)} at {_number(event.last_price)}"
        parts.append(f"{price}, fee {_number(event.fee)}, slippage {_number(event.slippage)}")
        parts.append(f"{_number(event.filled)} of {_number(event.quantity)} filled")
    if event.reason and event.state is not OrderState.APPROVED:  # its reason is the signal's
        parts.append(event.reason)
    return "; ".join(parts)


def _told_snapshot(snapshot: Snapshot) -> str:
    model = snapshot.model + ("" if snapshot.fit is None else f", fit {snapshot.fit}")
    warm = "" if snapshot.warm else ", not warm yet"
    return (
        f"{snapshot.universe} {snapshot.kind} of {moments.shown(snapshot.start)}, {len(snapshot.rows)} symbols, "
        f"{model}{warm}, settings {snapshot.settings}"
    )


def _told_bar(row: SnapshotRow) -> str:
    bar = row.bar
    prices = "/".join(f"{price:.10g}" for price in (bar.open, bar.high, bar.low, bar.close))
    told = f"{bar.symbol} {bar.kind} of {moments.shown(bar.start)}, {prices}, volume {bar.volume:.10g}"
    if row.quote is not None:
        told += f", mean spread {row.quote.spread_bps:.4g} bps"
    told += f"; {bar.count:,} ticks, {bar.first_tick} to {bar.last_tick}"
    return told + ("; carried, none of its own here" if row.stale else "")


def _told_tick(placed: Placed) -> str:
    tick = tick_in(placed)
    told = f"{name_of(placed)}  {tick.price:.10g} × {tick.size:.10g}"
    return told if placed.repairs is None else f"{told}, re-driven dead letter {placed.repairs}"


def _number(value: Decimal | None) -> str:
    """Without the zeros at the end."""
    text = f"{value or Decimal(0):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _where_orders_are() -> str:
    return f"Orders stand in the topic {EXECUTIONS} and in the table trade_executions, in the field order_id"


def _what_an_order_is(text: str) -> str:
    return (
        f"{text!r} is no order. One is portfolio/epoch/snapshot/strategy/symbol/sequence, for example "
        f"first/1/1704205800000000/momentum/ACME/0. {_where_orders_are()}"
    )
