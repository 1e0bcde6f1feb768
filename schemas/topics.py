"""Every topic, declared once: what it carries, how it is keyed, who writes and who reads it.

Names here are logical; on a broker each carries the installation's namespace (`physical`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from schemas import records, states
from schemas.records import Record
from schemas.states import State

SYMBOL_PARTITIONS = 4
GROUP_PARTITIONS = 2
MAX_TIMESTAMP_MS = str(2**63 - 1)
DEAD_LETTER_VALUE_BYTES = 2_000_000
"""A dead letter keeps this much of a value."""
DEAD_LETTER_BYTES = 3_000_000
"""A dead letter with its value and what is told about it."""
LARGEST_BYTES = 8_000_000
"""The largest record: the state of a universe of 500 symbols, with matrices of 125,250 doubles each."""

Role = Literal["source", "internal", "result", "changelog", "catalogue", "history"]


@dataclass(frozen=True)
class Topic:
    """One topic. ``records`` is what its values are: one kind, or a union in this order (append only)."""

    name: str
    key: str
    records: tuple[type[Record] | type[State], ...]
    role: Role
    partitions: int
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]
    doc: str
    compacted: bool = False
    compared: tuple[type[Record], ...] = ()
    """Kinds that rule 11 compares; empty for what is not a result."""
    extra: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def config(self) -> dict[str, str]:
        """Broker settings. Records are stamped with event time, so time may neither expire nor refuse them."""
        return {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": "-1",
            "message.timestamp.after.max.ms": MAX_TIMESTAMP_MS,
            **self.extra,
        }


def _topic(
    name: str,
    key: str,
    kinds: tuple[type[Record], ...],
    written_by: str,
    read_by: str,
    doc: str,
    *,
    role: Role = "result",
    partitions: int | None = None,
    compared: tuple[type[Record], ...] | None = None,
    compacted: bool = False,
    **extra: str,
) -> Topic:
    if partitions is None:
        partitions = SYMBOL_PARTITIONS if key == "symbol" else GROUP_PARTITIONS
    if compared is None:
        compared = kinds if role == "result" else ()
    return Topic(
        name=name,
        key=key,
        records=kinds,
        role=role,
        partitions=partitions,
        written_by=tuple(written_by.split()),
        read_by=tuple(read_by.split()),
        doc=doc,
        compacted=compacted,
        compared=compared,
        extra=MappingProxyType({k.replace("_", "."): v for k, v in extra.items()}),
    )


def _changelog(agent: str, key: str, partitions: int, *kinds: type[State]) -> Topic:
    return Topic(
        name=f"{agent}.changelog",
        key=key,
        records=(states.SourcePosition, *kinds),
        role="changelog",
        partitions=partitions,
        written_by=(agent,),
        read_by=(agent,),
        doc=f"states and position of {agent}, one partition per partition of its source",
        compacted=True,
        extra=MappingProxyType({"max.message.bytes": str(LARGEST_BYTES)}),
    )


_R = records
_DECLARED = (
    _topic(
        "market.ticks",
        "symbol",
        (_R.Tick, _R.Settings),
        "connectors you",
        "symbols",
        "trades; without key: clocks (no value) and settings",
        role="source",
    ),
    _topic(
        "market.quotes",
        "symbol",
        (_R.Quote, _R.Settings),
        "connectors you",
        "quotes",
        "best bid and ask; without key: clocks and settings",
        role="source",
    ),
    _topic(
        "market.ticks.late",
        "symbol",
        (_R.LateTick,),
        "symbols",
        "sinks",
        "ticks that came after their bar",
        max_message_bytes=str(DEAD_LETTER_BYTES),
    ),
    _topic("market.bars", "symbol", (_R.Bar,), "symbols", "sinks", "closed bars of every kind"),
    _topic(
        "market.regimes", "symbol", (_R.Regime,), "symbols", "sinks", "regimes by rule, with their indicators"
    ),
    _topic(
        "market.regimes.hmm",
        "universe",
        (_R.HmmRegime,),
        "universes",
        "sinks",
        "regimes by the hidden Markov model",
    ),
    _topic(
        "universe.bars",
        "universe",
        (_R.UniverseBar, _R.Clock, _R.Fit, _R.Settings, _R.QuoteBar),
        "symbols quotes fitter settings",
        "universes fitter",
        "bars with regimes, bars of quotes, clocks, fits, settings: the input of universes and of the fitter",
        role="internal",
        max_message_bytes=str(LARGEST_BYTES),
    ),
    _topic(
        "market.correlations",
        "universe",
        (_R.Correlations,),
        "universes",
        "sinks",
        "volatilities and correlations per snapshot",
        max_message_bytes=str(LARGEST_BYTES),
    ),
    _topic(
        "portfolio.events",
        "portfolio",
        (_R.Snapshot, _R.Command, _R.Answer, _R.Settings),
        "universes people settings",
        "portfolios sinks",
        "snapshots, commands, answers: the journal of every decision",
        role="internal",
        compared=(_R.Snapshot,),
        max_message_bytes=str(LARGEST_BYTES),
    ),
    _topic(
        "risk.metrics",
        "portfolio",
        (_R.RiskMetrics,),
        "portfolios",
        "sinks",
        "VaR, CVaR, exposures, drawdown",
    ),
    _topic("risk.alerts", "portfolio", (_R.RiskAlert,), "portfolios", "sinks", "breaches and state changes"),
    _topic(
        "strategy.signals", "portfolio", (_R.Signal,), "portfolios", "sinks", "what a strategy wants, and why"
    ),
    _topic(
        "trade.orders",
        "account",
        (_R.Order, _R.CancelOrder, _R.AccountHalt),
        "portfolios people",
        "",
        "approved orders for a real broker, cancels, halts",
    ),
    _topic(
        "trade.executions", "portfolio", (_R.Execution,), "portfolios", "sinks", "every event of every order"
    ),
    _topic(
        "trade.positions", "portfolio", (_R.Position,), "portfolios", "sinks", "a position after each fill"
    ),
    _topic("trade.equity", "portfolio", (_R.Equity,), "portfolios", "sinks", "cash and equity per snapshot"),
    _topic(
        "system.dead_letters",
        "source topic",
        (_R.DeadLetter,),
        "symbols quotes universes portfolios connectors",
        "sinks",
        "bad input, whole",
        max_message_bytes=str(DEAD_LETTER_BYTES),
    ),
    _topic(
        "system.replays",
        "replay",
        (_R.Replay,),
        "replay",
        "replay",
        "replays and checkpoints of this namespace",
        role="catalogue",
        compacted=True,
    ),
    _topic(
        "system.settings",
        "pipeline",
        (_R.Settings,),
        "settings",
        "settings",
        "every version of the settings of this namespace",
        role="history",
    ),
    _changelog("symbols", "symbol", SYMBOL_PARTITIONS, states.SymbolsPartition, states.SymbolState),
    _changelog("quotes", "symbol", SYMBOL_PARTITIONS, states.QuotesPartition, states.QuoteState),
    _changelog("universes", "universe", GROUP_PARTITIONS, states.UniversesPartition, states.UniverseState),
    _changelog(
        "fitter",
        "universe",
        GROUP_PARTITIONS,
        states.FitterPartition,
        states.FitterState,
        states.HistoryBlock,
    ),
    _changelog(
        "portfolios", "portfolio", GROUP_PARTITIONS, states.PortfoliosPartition, states.PortfolioState
    ),
)

TOPICS: MappingProxyType[str, Topic] = MappingProxyType({topic.name: topic for topic in _DECLARED})
INPUTS = ("market.ticks", "market.quotes", "universe.bars", "portfolio.events")
"""Topics that begin with the settings, in every partition, and get every later version of them."""


def physical(namespace: str, name: str) -> str:
    """The name on the broker: the namespace before it, unless it is empty (live)."""
    return f"{namespace}.{name}" if namespace else name
