"""Every record that crosses a topic, as immutable Structs; the contract itself is ``avsc/`` (units are told there).

Times are microseconds since the epoch, UTC (``_us`` is left out where the field's name says time: start, end,
event_time). Prices and sizes of the market are floats; those of orders, fills and positions are Decimals with
nine places. A record's *identity* names the fields that make it unique: a second copy is the same record.
"""

from schemas.records.base import NEVER, Record
from schemas.records.journal import (
    Answer,
    Command,
    Place,
    Snapshot,
    SnapshotRow,
)
from schemas.records.market import (
    Bar,
    Clock,
    Correlations,
    Fit,
    HmmRegime,
    Indicators,
    LateTick,
    Quote,
    Regime,
    Tick,
    UniverseBar,
)
from schemas.records.settings import (
    LimitsSpec,
    PortfolioSpec,
    RegimeSpec,
    Settings,
    SourceSpec,
    StrategySpec,
    UniverseSpec,
    VenueSpec,
)
from schemas.records.system import (
    DeadLetter,
)
from schemas.records.trading import (
    AccountHalt,
    CancelOrder,
    Equity,
    Execution,
    Exposure,
    Order,
    Position,
    RiskAlert,
    RiskMetrics,
    Signal,
)
from schemas.records.words import (
    AlertKind,
    ClockKind,
    Label,
    OrderState,
    OrderType,
    Reason,
    Side,
    TradingState,
)

__all__ = [
    "NEVER",
    "AccountHalt",
    "AlertKind",
    "Answer",
    "Bar",
    "CancelOrder",
    "Clock",
    "ClockKind",
    "Command",
    "Correlations",
    "DeadLetter",
    "Equity",
    "Execution",
    "Exposure",
    "Fit",
    "HmmRegime",
    "Indicators",
    "Label",
    "LateTick",
    "LimitsSpec",
    "Order",
    "OrderState",
    "OrderType",
    "Place",
    "PortfolioSpec",
    "Position",
    "Quote",
    "Reason",
    "Record",
    "Regime",
    "RegimeSpec",
    "RiskAlert",
    "RiskMetrics",
    "Settings",
    "Side",
    "Signal",
    "Snapshot",
    "SnapshotRow",
    "SourceSpec",
    "StrategySpec",
    "Tick",
    "TradingState",
    "UniverseBar",
    "UniverseSpec",
    "VenueSpec",
]
