"""The words that records use: Avro enums."""

from __future__ import annotations

from enum import IntFlag, StrEnum


class Side(StrEnum):
    """Which way an order or a trade's aggressor goes."""

    BUY = "BUY"
    SELL = "SELL"


class Condition(IntFlag):
    """Bits of a tick's ``conditions`` that filters ask for; the others are passed on as they are."""

    FORM_T = 1 << 10
    SOLD_LATE = 1 << 11
    EXTENDED_HOURS = 1 << 13
    OUT_OF_SEQUENCE = 1 << 14
    ODD_LOT = 1 << 31


class TickFilter(StrEnum):
    """Ticks that can be left out of bars."""

    ODD_LOTS = "ODD_LOTS"
    OUT_OF_SEQUENCE = "OUT_OF_SEQUENCE"
    EXTENDED_HOURS = "EXTENDED_HOURS"
    SUSPICIOUS = "SUSPICIOUS"


class ClockKind(StrEnum):
    """Where a source's clock comes from: clock records that it writes, or its latest tick."""

    RECORDS = "RECORDS"
    TICKS = "TICKS"


class Label(StrEnum):
    """The four words for the state of a market."""

    TRENDING = "TRENDING"
    RANGING = "RANGING"
    CHOPPY = "CHOPPY"
    CRISIS = "CRISIS"


class OrderType(StrEnum):
    """How an order asks to be filled."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"


class OrderState(StrEnum):
    """Where an order stands in its life cycle (transitions in streams/pretrade/lifecycle.py)."""

    APPROVED = "APPROVED"
    DENIED = "DENIED"
    SUBMITTED = "SUBMITTED"
    ACCEPTED = "ACCEPTED"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class TradingState(StrEnum):
    """What a portfolio may do: trade; only reduce positions; send nothing."""

    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


class AlertKind(StrEnum):
    """What a risk alert is about."""

    STATE = "STATE"
    LIMIT = "LIMIT"
    DRAWDOWN = "DRAWDOWN"
    COMMAND = "COMMAND"
    SETTINGS = "SETTINGS"


class CorrelationModel(StrEnum):
    """How correlations move."""

    DCC = "DCC"
    ADCC = "ADCC"
    CDCC = "CDCC"
    DECO = "DECO"


class VolatilityModel(StrEnum):
    """How a symbol's variance moves."""

    GARCH = "GARCH"
    GJR = "GJR"
    EGARCH = "EGARCH"


class Reason(StrEnum):
    """Why an input was not processed."""

    UNREADABLE = "UNREADABLE"
    UNKNOWN_SCHEMA = "UNKNOWN_SCHEMA"
    WRONG_SCHEMA = "WRONG_SCHEMA"
    BAD_KEY = "BAD_KEY"
    BAD_PRICE = "BAD_PRICE"
    BAD_SIZE = "BAD_SIZE"
    BAD_TIME = "BAD_TIME"
    AHEAD_OF_CLOCK = "AHEAD_OF_CLOCK"
    UNDECLARED_SOURCE = "UNDECLARED_SOURCE"
    UNDECLARED_KEY = "UNDECLARED_KEY"
    TOO_LARGE = "TOO_LARGE"
    BAD_ROW = "BAD_ROW"
    BAD_CLOCK = "BAD_CLOCK"
    STRATEGY_RAISED = "STRATEGY_RAISED"
    SETTINGS_CHANGED = "SETTINGS_CHANGED"
    LATE = "LATE"
    BAD_FIT = "BAD_FIT"


class ReplayStart(StrEnum):
    """With which state a replay begins."""

    BEGINNING = "BEGINNING"
    CHECKPOINT = "CHECKPOINT"
    COLD = "COLD"
