"""Reads the demo's topics as any consumer of a user's own would, and keeps what the view shows."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from typing import Any

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from headrace.lags import ends
from headrace.results import Tally
from schemas.codec import Codec, RegistryUnavailable
from schemas.records import (
    Correlations,
    Execution,
    OrderState,
    PortfolioSpec,
    Position,
    Record,
    RiskAlert,
    RiskMetrics,
    Snapshot,
    SnapshotRow,
    Tick,
)
from schemas.topics import TOPICS, physical

TICKS = "market.ticks"
_COUNTED = ("market.bars", "market.regimes", "strategy.signals", "market.ticks.late")
"""Topics whose records are counted and not decoded: snapshots hold the bars and regimes that the view shows."""
_DECODED = (
    "portfolio.events",
    "market.correlations",
    "risk.metrics",
    "risk.alerts",
    "trade.executions",
    "trade.positions",
    "trade.equity",
    "system.dead_letters",
)
_SHOWN_EVENTS = frozenset(
    {
        OrderState.DENIED,
        OrderState.PARTIALLY_FILLED,
        OrderState.FILLED,
        OrderState.EXPIRED,
        OrderState.REJECTED,
    }
)
_RECENT = 40

logger = logging.getLogger(__name__)


class Watch:
    """A consumer without a group, in a thread of its own, from the first record of every topic on.

    The fields are read under ``lock``. ``records`` counts by topic; ``ticks`` counts market.ticks without its clocks
    and settings; ``time_ms`` is the event time that the feed has reached; ``first_fill_s`` is on the clock of
    `time.monotonic`.
    """

    def __init__(
        self, bootstrap: str, namespace: str, codec: Codec, portfolios: tuple[PortfolioSpec, ...]
    ) -> None:
        self.lock = threading.Lock()
        self.tally = Tally(portfolios)
        self.records: Counter[str] = Counter()
        self.ticks = 0
        self.time_ms = 0
        self.first_fill_s: float | None = None
        self.tick: Tick | None = None
        self.rows: dict[str, SnapshotRow] = {}
        self.opening: dict[str, float] = {}
        self.correlations: dict[str, Correlations] = {}
        self.risk: dict[str, RiskMetrics] = {}
        self.positions: dict[str, dict[str, Position]] = {}
        self.events: deque[Execution] = deque(maxlen=_RECENT)
        self.alerts: deque[RiskAlert] = deque(maxlen=_RECENT)
        self._codec = codec
        self._namespace = namespace
        self._admin = AdminClient({"bootstrap.servers": bootstrap}, logger=logger)
        self._logical = {physical(namespace, name): name for name in (TICKS, *_COUNTED, *_DECODED)}
        self._next: dict[tuple[str, int], int] = {
            (name, number): 0
            for name, topic in self._logical.items()
            for number in range(TOPICS[topic].partitions)
        }
        self._consumer = ck.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{namespace}.demo-view",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "fetch.queue.backoff.ms": 20,
                "queued.max.messages.kbytes": 16_384,
            },
            logger=logger,
        )
        self._finish = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def finish(self, timeout_s: float) -> None:
        """Read up to the present ends, then stop."""
        self._finish.set()
        self._thread.join(timeout_s)

    def close(self) -> None:
        """Stop at once."""
        self._closed.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        consumer, target = self._consumer, None
        try:
            consumer.assign([ck.TopicPartition(*place, ck.OFFSET_BEGINNING) for place in self._next])
            while not self._closed.is_set():
                messages = consumer.consume(1_000, 0.1)
                with self.lock:
                    for message in messages:
                        self._take(message)
                if self._finish.is_set():
                    target = target or ends(self._admin, self._namespace, self._logical.values())
                    if all(self._next[place] >= end for place, end in target.items()):
                        return
        except ck.KafkaException as error:
            logger.warning("the view stands still: %s", error)
        finally:
            consumer.close()

    def _take(self, message: ck.Message) -> None:
        if message.error() is not None:
            logger.debug("view: %s", message.error())
            return
        name = message.topic()
        self._next[name, message.partition()] = message.offset() + 1
        topic = self._logical[name]
        self.records[topic] += 1
        if topic == TICKS:
            if message.key() is not None:
                self.ticks += 1
                if self.tick is None:
                    self._keep(self._decoded(topic, message.value()))
            elif message.value() is None:
                self.time_ms = max(self.time_ms, message.timestamp()[1])
        elif topic in _DECODED:
            self._keep(self._decoded(topic, message.value()))

    def _decoded(self, topic: str, value: bytes) -> Any:
        try:
            return self._codec.decode(topic, value)
        except RegistryUnavailable as error:
            logger.debug("view: %s", error)
            return None

    def _keep(self, record: Any) -> None:
        match record:
            case Snapshot():
                for row in record.rows:
                    self.rows[row.symbol] = row
                    self.opening.setdefault(row.symbol, row.bar.open)
            case Correlations():
                self.correlations[record.universe] = record
            case RiskMetrics():
                self.risk[record.portfolio] = record
            case RiskAlert():
                self.alerts.append(record)
            case Position():
                self.positions.setdefault(record.portfolio, {})[record.symbol] = record
            case Execution():
                if record.last_quantity and self.first_fill_s is None:
                    self.first_fill_s = time.monotonic()
                if record.state in _SHOWN_EVENTS:
                    self.events.append(record)
            case Tick():
                self.tick = record
        if isinstance(record, Record):
            self.tally.take(record)
