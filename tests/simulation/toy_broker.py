"""A toy broker: whoever submits an order to it has it in the book. It refuses nothing, so that it tells of doubles."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from schemas.records import Execution, OrderState
from schemas.topics import TOPICS
from tests.simulation.codec import CODEC

if TYPE_CHECKING:
    from tests.simulation.topology_world import TopologyWorld

EXECUTIONS = "trade.executions"
Decision = tuple[str, int, str, str]
"""Portfolio, snapshot, strategy and symbol: a strategy has one order of a symbol on a snapshot."""


class ToyBroker:
    """Reads trade.executions as they come, copies and all."""

    def __init__(self, world: TopologyWorld) -> None:
        self._world = world
        self._read = [0] * TOPICS[EXECUTIONS].partitions
        self.book: dict[Decision, set[tuple[str, str, str]]] = defaultdict(set)
        """Of each decision the orders: id, side and quantity. A copy of an order is the same order."""

    def act(self) -> str:
        """Take what has arrived."""
        for partition, begin in enumerate(self._read):
            log = self._world.broker.logs[EXECUTIONS, partition]
            for entry in log[begin:]:
                assert entry.value is not None
                record = CODEC.decode(EXECUTIONS, entry.value)
                assert isinstance(record, Execution)
                if record.state is OrderState.SUBMITTED:
                    self.submit(record)
            self._read[partition] = len(log)
        return f"{len(self.book)} orders"

    def submit(self, order: Execution) -> None:
        """An order arrives."""
        decision = (order.portfolio, order.decided_on, order.strategy, order.symbol)
        self.book[decision].add((order.order_id, order.side.value, str(order.quantity)))

    def doubled(self) -> list[str]:
        """The decisions that have come as two orders."""
        return [
            f"doubled at the broker: {decision}: {sorted(orders)}"
            for decision, orders in sorted(self.book.items())
            if len(orders) > 1
        ]
