"""A counter in every partition's state that nothing protects, beside the real agent's own.

The agents drop what they have seen: a tick by its name, a bar or a snapshot by its start. So where a commit loses its
position and keeps its states, they mend it, and a world looks whole although half of a commit was lost. The counter
counts records however often they come. It lies in the changelog under a key of its own, as any key's state does, and
must always be the offset of the next record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from schemas.states import (
    EwmaState,
    HistoryBlock,
    PortfolioState,
    QuoteState,
    State,
    SymbolState,
    UniverseState,
)
from streams.agent import Agent, Input, Output, SourcePartition
from streams.ticks import Ticks

COUNTER = "\0records"

_NEW: Mapping[str, tuple[Callable[[int], State], str]] = {
    "symbols": (lambda count: SymbolState(direction=count), "direction"),
    "quotes": (lambda count: QuoteState(watermark=count), "watermark"),
    "fitter": (lambda count: HistoryBlock(first=count), "first"),
    "universes": (lambda count: UniverseState(ewma=EwmaState(), snapshots=count), "snapshots"),
    "portfolios": (
        lambda count: PortfolioState(
            epoch=0, cash=Decimal(0), peak=Decimal(0), day_equity=Decimal(0), fills=count
        ),
        "fills",
    ),
}
"""By agent: a state of its contract that holds a count, and the field that holds it."""


class Miscounted(Exception):
    """A state and a position are not of the same moment."""


class Counting:
    """An agent with the counter; for the rest it is the ``agent``."""

    def __init__(self, agent: Agent[Any, Any]) -> None:
        self._agent = agent
        self.name, self.source, self.writes = agent.name, agent.source, agent.writes
        self.partition_type, self.key_type = agent.partition_type, agent.key_type
        self._new, _ = _NEW[agent.name]

    def step(
        self, where: SourcePartition, partition: Any, keys: dict[str, Any], inputs: Sequence[Input]
    ) -> tuple[list[Output], set[str]]:
        """The agent's own step; before it, the count is held against the position."""
        count = count_of(self.name, keys.pop(COUNTER, None))
        first = int(inputs.offsets[0]) if isinstance(inputs, Ticks) else inputs[0].offset
        if count != first:
            raise Miscounted(
                f"{self.name}[{where.partition}]: a state after {count} records at offset {first}"
            )
        outputs, touched = self._agent.step(where, partition, keys, inputs)
        keys[COUNTER] = self._new(count + len(inputs))
        return outputs, touched | {COUNTER}


def count_of(agent: str, state: Any) -> int:
    """What a counter says; 0 where there is none yet."""
    return 0 if state is None else int(getattr(state, _NEW[agent][1]))
