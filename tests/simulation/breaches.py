"""The guarantee broken on purpose, one rule at a time: a suite that finds none of these proves nothing.

Each breach is a broken part among real ones. `worlds.first_violation` says after how many worlds it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from schemas.records import NEVER, Bar, Clock, Correlations, Execution, Settings, Tick
from schemas.states import PARTITION_KEY, POSITION_KEY, SymbolsPartition
from streams.agent import Agent, Input, Output, frozen
from streams.errors import DeliveryFailed
from streams.portfolios import Portfolios
from streams.runtime.ownership import Cut, Outcome, Ownership
from streams.symbols import Symbols
from streams.universes import Universes
from tests.simulation.codec import CODEC
from tests.simulation.connector import Connector
from tests.simulation.port import Place, SimulatedPort
from tests.simulation.sink import Sink
from tests.simulation.topology_world import Parts, load_once

# ---- the commit


class PositionWithoutState(Ownership):
    """Commits offsets without the state."""

    def cut(self) -> Cut | None:
        cut = super().cut()
        return cut and cut._replace(changes={POSITION_KEY: cut.changes[POSITION_KEY]})


class StateWithoutPosition(Ownership):
    """Commits the state without offsets."""

    def cut(self) -> Cut | None:
        cut = super().cut()
        return cut and cut._replace(changes={k: v for k, v in cut.changes.items() if k != POSITION_KEY})


class WithoutClocks(Ownership):
    """Commits the keys' states without the partition's clocks."""

    def cut(self) -> Cut | None:
        cut = super().cut()
        if cut is not None and isinstance(self.partition_state, SymbolsPartition):
            state = msgspec.structs.replace(
                self.partition_state, source_clocks={}, clock=NEVER, forwarded=NEVER
            )
            cut.changes[PARTITION_KEY] = CODEC.encode("symbols.changelog", state)
        return cut


class WithoutLaterSettings(Ownership):
    """Commits the settings that a partition began with, and not what was applied since."""

    def cut(self) -> Cut | None:
        cut = super().cut()
        if cut is not None:
            state = msgspec.structs.replace(self.partition_state, later=[])
            cut.changes[PARTITION_KEY] = CODEC.encode(f"{self.agent.name}.changelog", state)
        return cut


class CommitsBeforeAcknowledgement(Ownership):
    """Acknowledges outputs after the commit."""

    @staticmethod
    def acknowledged(cut: Cut) -> bool:
        return True


class SerialisesAtTheCommit(Ownership):
    """What was applied after the cut goes with the cut's position."""

    def commit(self, cut: Cut) -> Outcome:
        log = f"{self.agent.name}.changelog"
        now = {
            name.encode(): CODEC.encode(log, frozen(state))
            for name, state in self.keys.items()
            if name.encode() in cut.changes
        }
        return super().commit(cut._replace(changes={**cut.changes, **now}))


class ForgetsWhatWasAborted(Ownership):
    """An aborted commit's changes are not put back."""

    def settle(self, cut: Cut, outcome: Outcome) -> None:
        super().settle(cut._replace(touched=frozenset()), outcome)


class OvertakesACut(Ownership):
    """Cuts again while a cut is not settled."""

    def cut(self) -> Cut | None:
        self._unsettled = None
        return super().cut()


class AppliesTwice(Ownership):
    """Applies records below its position."""

    def _inputs(self, run: Any) -> Sequence[Input]:
        position, self.next_offset = self.next_offset, run.begin
        try:
            return super()._inputs(run)
        finally:
            self.next_offset = position


class NobodyIsFenced(SimulatedPort):
    """Lets the zombie write."""

    def _check(self, place: Place) -> None:
        pass


class RestoresBeforeItFences(SimulatedPort):
    """Fences the last owner only at its own first commit."""

    def fence(self, agent: str, partition: int) -> None:
        self._opened[agent, partition] = -1

    def _check(self, place: Place) -> None:
        if self._opened[place] < 0:
            super().fence(*place)
        super()._check(place)


class ReadsUncommitted(SimulatedPort):
    """Takes over what an open transaction holds."""

    def fence(self, agent: str, partition: int) -> None:
        self._dirty = self._broker.transactions.get((agent, partition), {})
        super().fence(agent, partition)

    def restore(self, agent: str, partition: int) -> Mapping[bytes, bytes]:
        return {**super().restore(agent, partition), **self._dirty}


class LeavesAGap(SimulatedPort):
    """Goes on sending to a partition where a record was refused."""

    def refuse(self) -> bool:
        for queue in self._sent.values():
            if queue:
                queue.popleft()[1](DeliveryFailed("refused"))
                return True
        return False


# ---- the agents


class SkipsTheNames(Symbols):
    """Does not look at the ticks' names."""

    def step(self, where: Any, partition: Any, keys: Any, inputs: Any) -> tuple[list[Output], set[str]]:
        for state in keys.values():
            state.names = []
        return super().step(where, partition, keys, inputs)


class DependsOnTheRun(Symbols):
    """One output depends on the run's size."""

    def step(self, where: Any, partition: Any, keys: Any, inputs: Any) -> tuple[list[Output], set[str]]:
        outputs, touched = super().step(where, partition, keys, inputs)
        for place, output in enumerate(outputs):
            bar = output.value
            if isinstance(bar, Bar) and bar.kind == "tick:3":
                count = float(len(inputs) > 4)
                outputs[place] = output._replace(
                    value=msgspec.structs.replace(bar, volume=bar.volume + count)
                )
                break
        return outputs, touched


class ClocksFirst(Symbols):
    """Tells the universes of a closed window before its bar."""

    def step(self, where: Any, partition: Any, keys: Any, inputs: Any) -> tuple[list[Output], set[str]]:
        outputs, touched = super().step(where, partition, keys, inputs)
        outputs.sort(key=lambda output: not isinstance(output.value, Clock))
        return outputs, touched


class WaitsForOneClock(Universes):
    """Closes a snapshot as soon as one partition's clock has passed it."""

    def step(self, where: Any, partition: Any, keys: Any, inputs: Any) -> tuple[list[Output], set[str]]:
        several = []
        for item in inputs:
            clock = item.value
            of_all = range(partition.settings.tick_partitions) if isinstance(clock, Clock) else ()
            several += [item._replace(value=msgspec.structs.replace(clock, partition=p)) for p in of_all] or [
                item
            ]
        return super().step(where, partition, keys, several)


class ClosesTwice(Universes):
    """Forgets from run to run which snapshots it has closed."""

    def step(self, where: Any, partition: Any, keys: Any, inputs: Any) -> tuple[list[Output], set[str]]:
        for state in keys.values():
            state.last_start = NEVER
        return super().step(where, partition, keys, inputs)


class HoldsSettingsAtOnce(Universes):
    """Lets settings hold from the next snapshot on, wherever their record lies."""

    def step(self, where: Any, partition: Any, keys: Any, inputs: Any) -> tuple[list[Output], set[str]]:
        at_once = max((state.last_start for state in keys.values()), default=NEVER) + 1
        several = []
        for item in inputs:
            told = item.value
            if isinstance(told, Settings) and told.version > 1:
                item = item._replace(value=msgspec.structs.replace(told, effective_from=at_once))
            several.append(item)
        return super().step(where, partition, keys, several)


class DecidesTwice(Portfolios):
    """Forgets from run to run which snapshots it has decided on."""

    def __init__(self) -> None:
        super().__init__(load_once)

    def step(self, where: Any, partition: Any, keys: Any, inputs: Any) -> tuple[list[Output], set[str]]:
        for state in keys.values():
            state.last_start = NEVER
        return super().step(where, partition, keys, inputs)


class NamesOrdersItself(Portfolios):
    """An order's id has a part that is no function of the input: where its process began."""

    def __init__(self) -> None:
        super().__init__(load_once)
        self._began: dict[int, int] = {}

    def step(self, where: Any, partition: Any, keys: Any, inputs: Any) -> tuple[list[Output], set[str]]:
        began = self._began.setdefault(where.partition, inputs[0].offset)
        outputs, touched = super().step(where, partition, keys, inputs)
        for place, output in enumerate(outputs):
            if isinstance(output.value, Execution) and began > 1:
                order_id = f"{output.value.order_id}/{began}"
                outputs[place] = output._replace(
                    value=msgspec.structs.replace(output.value, order_id=order_id)
                )
        return outputs, touched


class RemembersBesideItsState(Universes):
    """Keeps in the process what belongs into the state: a new owner starts without it."""

    def __init__(self) -> None:
        self._observations = 0

    def step(self, where: Any, partition: Any, keys: Any, inputs: Any) -> tuple[list[Output], set[str]]:
        outputs, touched = super().step(where, partition, keys, inputs)
        for place, output in enumerate(outputs):
            if isinstance(output.value, Correlations) and output.value.universe == "u1":
                self._observations += 1
                record = msgspec.structs.replace(output.value, observations=self._observations)
                outputs[place] = output._replace(value=record)
        return outputs, touched


# ---- at the edges


class ResumesBehindWhatItSent(Connector):
    """Goes on behind the last message that it sent, not behind the last that was acknowledged."""

    def resume_at(self) -> int:
        return self.at


class RenamesWhatItRepeats(Connector):
    """Sends again under a new session."""

    def kill(self) -> str:
        done = super().kill()
        self.messages = [
            message
            if place < self.at or not isinstance(message.record, Tick)
            else msgspec.structs.replace(
                message, record=msgspec.structs.replace(message.record, session=f"again {self.at}")
            )
            for place, message in enumerate(self.messages)
        ]
        return done


class OffsetsBeforeRows(Sink):
    """Two transactions: the offsets, then the rows."""

    def write(self) -> str:
        if not getattr(self, "_has_moved", False):
            for place, items in self._batch.items():
                self.database.offsets[place] = max(self.database.offsets[place], items[-1][0] + 1)
            self._has_moved = True
            return "writes offsets"
        for (topic, _), items in self._batch.items():
            for _, entry in items:
                self.database.insert(topic, entry)
        self._batch, self._has_moved = {}, False
        return "writes rows"

    def finish(self) -> None:
        for _ in range(2):
            self.write()
        self.read(1_000_000)
        for _ in range(2):
            self.write()


def _agents(**broken: Callable[[], Agent[Any, Any]]) -> Parts:
    return Parts(agents={**Parts().agents, **broken})


BREACHES: Mapping[type, Parts] = {
    **{
        broken: Parts(owner=broken)
        for broken in (
            PositionWithoutState,
            StateWithoutPosition,
            WithoutClocks,
            WithoutLaterSettings,
            CommitsBeforeAcknowledgement,
            SerialisesAtTheCommit,
            ForgetsWhatWasAborted,
            OvertakesACut,
            AppliesTwice,
        )
    },
    **{
        broken: Parts(port=broken)
        for broken in (NobodyIsFenced, RestoresBeforeItFences, ReadsUncommitted, LeavesAGap)
    },
    **{broken: _agents(symbols=broken) for broken in (SkipsTheNames, DependsOnTheRun, ClocksFirst)},
    **{
        broken: _agents(universes=broken)
        for broken in (WaitsForOneClock, ClosesTwice, RemembersBesideItsState, HoldsSettingsAtOnce)
    },
    **{broken: _agents(portfolios=broken) for broken in (DecidesTwice, NamesOrdersItself)},
    **{broken: Parts(connector=broken) for broken in (ResumesBehindWhatItSent, RenamesWhatItRepeats)},
    OffsetsBeforeRows: Parts(sink=OffsetsBeforeRows),
}
"""What is broken, and the world's parts with it."""
