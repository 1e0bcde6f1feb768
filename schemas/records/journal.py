"""portfolio.events: everything that a portfolio decides on."""

from __future__ import annotations

from decimal import Decimal

from schemas.records.base import Record
from schemas.records.market import Bar, QuoteBar, Regime
from schemas.records.words import OrderState, TradingState


class SnapshotRow(Record, frozen=True, kw_only=True, tag="headrace.SnapshotRow"):
    """One symbol in a snapshot."""

    symbol: str
    stale: bool
    bar: Bar
    regime: Regime | None = None
    quote: QuoteBar | None = None


class Snapshot(Record, frozen=True, kw_only=True, tag="headrace.Snapshot"):
    """What a portfolio sees at the close of a bar.

    Identity: (portfolio, start).
    """

    portfolio: str
    universe: str
    start: int
    end: int
    kind: str
    rows: tuple[SnapshotRow, ...]
    warm: bool
    model: str
    fit: int | None = None
    covariance: tuple[float, ...]
    settings: int


class Place(Record, frozen=True, kw_only=True, tag="headrace.Place"):
    """A place in a portfolio's order of events."""

    start: int
    ordinal: int


class Command(Record, frozen=True, kw_only=True, tag="headrace.Command"):
    """What a person tells a portfolio.

    Identity: (portfolio, id).
    """

    portfolio: str
    id: str
    state: TradingState
    reason: str = ""
    issued_by: str = ""
    issued_at: int
    after: Place | None = None


class Answer(Record, frozen=True, kw_only=True, tag="headrace.Answer"):
    """What an account's broker says of an order.

    Identity: (portfolio, id).
    """

    portfolio: str
    id: str
    order_id: str
    state: OrderState
    broker_order_id: str | None = None
    quantity: Decimal | None = None
    price: Decimal | None = None
    fee: Decimal | None = None
    reason: str = ""
    event_time: int
    after: Place | None = None
