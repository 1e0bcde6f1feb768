"""The commit protocol: whoever stops when, position, states and acknowledged outputs agree."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from schemas.codec import Codec, RegistryUnavailable, encode_body, topic_schema_text
from schemas.columns import Packed, PackedRecord
from schemas.partitioner import partition_of
from schemas.records import Bar, Record, Tick
from schemas.states import PARTITION_KEY, POSITION_KEY, SymbolsPartition, SymbolState
from schemas.topics import TOPICS
from streams.agent import Input, Output, SourcePartition
from streams.errors import DeliveryFailed, Fenced, InputLost, StateUnreadable, TopicDeleted
from streams.runtime.identity import UNKNOWN, TopicIds
from streams.runtime.ownership import Cut, Outcome, Ownership, Phase
from streams.runtime.runs import Run
from streams.symbols import Symbols
from tests.examples import bar, tick
from tests.simulation.codec import CODEC
from tests.simulation.logs import source_records
from tests.simulation.port import Broker, SimulatedPort
from tests.simulation.world import Reference, Violation, World

WORLDS = 400
"""Seeds that the protocol is tried with; a broken one must be found out among as many."""


class Tally:
    """Chains every tick into its key's state, every clock into all keys' at once, and tells the chain each time.

    One output too many, too few, or made from a state of another moment changes every later one.
    """

    name = "symbols"
    source = "market.ticks"
    writes = ("market.bars",)
    partition_type = SymbolsPartition
    key_type = SymbolState

    def step(
        self,
        where: SourcePartition,
        partition: SymbolsPartition,
        keys: dict[str, SymbolState],
        inputs: Sequence[Input],
    ) -> tuple[list[Output], set[str]]:
        outputs, touched = [], set()
        for item in inputs:
            partition.clock = (partition.clock * 31 + item.offset) % 2**40
            if isinstance(item.value, Tick):
                symbols = [item.value.symbol]
                keys.setdefault(item.value.symbol, SymbolState(watermark=0))
            else:
                symbols = sorted(keys)
            for symbol in symbols:
                state = keys[symbol]
                state.direction += 1
                state.watermark = (state.watermark * 31 + item.offset + partition.clock) % 2**40
                result = bar(symbol, start=state.direction, close=float(state.watermark))
                outputs.append(Output("market.bars", symbol, result, state.watermark))
                touched.add(symbol)
        return outputs, touched


@functools.cache
def reference(seed: int) -> Reference:
    return Reference(Tally, *source_records("market.ticks", seed))


def test_after_any_stop_position_states_and_outputs_agree() -> None:
    worlds = [World(seed, reference(seed % 5)).run() for seed in range(WORLDS)]
    assert sum(world.stops for world in worlds) > 2 * WORLDS
    assert sum(world.committed for world in worlds) > WORLDS
    assert sum(world.fenced for world in worlds) > WORLDS // 10
    assert sum(world.aborted for world in worlds) > WORLDS // 10
    assert sum(world.broker.disks.fitted for world in worlds) > WORLDS // 10
    assert sum(world.broker.disks.unfit for world in worlds) > WORLDS // 20


# ---- the checks, checked: each breach of the protocol is found out


class PositionWithoutState(Ownership):
    def cut(self) -> Cut | None:
        cut = super().cut()
        return cut and cut._replace(changes={POSITION_KEY: cut.changes[POSITION_KEY]})


class StateWithoutPosition(Ownership):
    def cut(self) -> Cut | None:
        cut = super().cut()
        return cut and cut._replace(changes={k: v for k, v in cut.changes.items() if k != POSITION_KEY})


class WithoutThePartitionsOwnState(Ownership):
    def cut(self) -> Cut | None:
        cut = super().cut()
        return cut and cut._replace(changes={k: v for k, v in cut.changes.items() if k != PARTITION_KEY})


class CommitsBeforeAcknowledgement(Ownership):
    @staticmethod
    def acknowledged(cut: Cut) -> bool:
        return True


class SerialisesAtTheCommit(Ownership):
    """Not at the cut: what was applied meanwhile goes with the cut's position."""

    def commit(self, cut: Cut) -> Outcome:
        now = {
            key.encode(): CODEC.encode("symbols.changelog", state)
            for key, state in self.keys.items()
            if key.encode() in cut.changes
        }
        return super().commit(cut._replace(changes={**cut.changes, **now}))


class ForgetsWhatWasAborted(Ownership):
    def settle(self, cut: Cut, outcome: Outcome) -> None:
        super().settle(cut._replace(touched=frozenset()), outcome)


class OvertakesACut(Ownership):
    def cut(self) -> Cut | None:
        self._unsettled = None
        return super().cut()


class AppliesWhatItHasApplied(Ownership):
    def _inputs(self, run: Run) -> Sequence[Input]:
        position, self.next_offset = self.next_offset, run.begin
        try:
            return super()._inputs(run)
        finally:
            self.next_offset = position


class SkipsARunThatStraddles(Ownership):
    def apply(self, run: Run) -> int:
        if run.begin < self.next_offset < run.next_offset:
            self.next_offset = run.next_offset
        return super().apply(run)


class NobodyIsFenced(SimulatedPort):
    def commit(self, agent: str, partition: int, changes: Mapping[bytes, bytes]) -> Outcome:
        self._opened[agent, partition] = self._broker.openings[agent, partition]
        return super().commit(agent, partition, changes)


class CopiesWhatMayNotBeCommitted(SimulatedPort):
    """The local store is ahead of the changelog, as Faust's is."""

    def commit(self, agent: str, partition: int, changes: Mapping[bytes, bytes]) -> Outcome:
        place = (agent, partition)
        last = max(self._broker.disks.logs[place], default=None)
        self.keep(place, {k: v for k, v in changes.items() if k != POSITION_KEY}, last)
        return super().commit(agent, partition, changes)


class RestoresFromTheCopyAlone(SimulatedPort):
    def restore(self, agent: str, partition: int) -> Mapping[bytes, bytes]:
        super().restore(agent, partition)
        held, changes = self._copies[agent, partition]
        return changes.onto(held) if held is None else held.items


class RestoresNothing(SimulatedPort):
    def restore(self, agent: str, partition: int) -> Mapping[bytes, bytes]:
        return {}


@pytest.mark.parametrize(
    "broken",
    [
        *(
            PositionWithoutState,
            StateWithoutPosition,
            WithoutThePartitionsOwnState,
            CommitsBeforeAcknowledgement,
        ),
        *(SerialisesAtTheCommit, ForgetsWhatWasAborted, OvertakesACut, AppliesWhatItHasApplied),
        *(SkipsARunThatStraddles, NobodyIsFenced, RestoresNothing),
        *(CopiesWhatMayNotBeCommitted, RestoresFromTheCopyAlone),
    ],
)
def test_a_breach_is_found_out(broken: type[Ownership] | type[SimulatedPort]) -> None:
    part: dict[str, Any] = {"make_owner" if issubclass(broken, Ownership) else "make_port": broken}
    with pytest.raises((Violation, InputLost)):
        _ = [World(seed, reference(seed % 5), **part).run() for seed in range(WORLDS)]


# ---- one by one


class Bench:
    """An owner at a broker where nothing happens by chance."""

    def __init__(
        self,
        broker: Broker | None = None,
        codec: Codec = CODEC,
        *,
        until: int | None = None,
        ids: TopicIds = UNKNOWN,
    ) -> None:
        self.broker = broker or Broker(random.Random(0))
        self.port = SimulatedPort(self.broker)
        self.owner = Ownership(Tally(), 0, codec, self.port, until=until, ids=ids)

    def opened(self) -> Bench:
        self.owner.open()
        return self

    def apply(self, begin: int, *values: Record | bytes | None, key: bytes = b"A") -> int:
        records: list[PackedRecord] = []
        for offset, value in enumerate(values, begin):
            raw = CODEC.encode("market.ticks", value) if isinstance(value, Record) else value
            records.append((offset, 0, key, raw, ()))
        return self.owner.apply(Run(begin, begin + len(records), Packed.of(records)))

    def commit(self) -> Outcome:
        self.port.deliver(everything=True)
        cut = self.owner.cut()
        assert cut is not None
        outcome = self.owner.commit(cut)
        self.owner.settle(cut, outcome)
        return outcome

    def changelog(self) -> dict[bytes, bytes]:
        return dict(self.broker.changelogs["symbols", 0])

    def outputs(self) -> int:
        return sum(len(log) for log in self.broker.logs.values())


def test_a_run_below_the_position_is_skipped() -> None:
    bench = Bench().opened()
    assert bench.apply(0, tick(), tick(), tick()) == 3
    state = copy.deepcopy(bench.owner.keys)
    assert bench.apply(0, tick(), tick()) == bench.apply(1, tick(), tick()) == 0
    assert (bench.owner.next_offset, bench.owner.keys) == (3, state)


def test_a_run_that_straddles_the_position_is_applied_from_it() -> None:
    bench, whole = Bench().opened(), Bench().opened()
    bench.apply(0, tick(), tick())
    assert bench.apply(1, tick(), tick(), tick()) == 2
    assert whole.apply(0, tick(), tick(), tick(), tick()) == 4
    assert bench.owner.keys == whole.owner.keys
    assert bench.owner.next_offset == whole.owner.next_offset == 4


def test_a_run_beyond_the_position_means_lost_input() -> None:
    bench = Bench().opened()
    bench.apply(0, tick())
    with pytest.raises(InputLost, match="offsets 1 to 4 were not processed"):
        bench.apply(5, tick())
    assert bench.owner.next_offset == 1


def test_nothing_is_applied_from_the_end_on_that_it_was_told() -> None:
    """Neither what straddles it, nor what comes behind, nor what begins beyond; the position stops there."""
    bench, whole = Bench(until=3).opened(), Bench().opened()
    assert bench.apply(0, tick()) == 1
    assert bench.apply(1, tick(), tick(), tick(), tick()) == 2
    assert bench.apply(3, tick()) == bench.apply(7, tick()) == 0
    whole.apply(0, tick(), tick(), tick())
    assert bench.owner.keys == whole.owner.keys
    assert bench.owner.next_offset == 3
    assert bench.commit() is Outcome.COMMITTED
    assert Bench(bench.broker, until=3).opened().owner.next_offset == 3


def test_offsets_without_a_record_move_the_position_alone() -> None:
    """A transaction's marker is all that a run may hold; the next run begins behind it."""
    bench = Bench().opened()
    bench.apply(0, tick())
    markers = Run(1, 3, Packed.of([]))
    assert bench.owner.apply(markers) == 0
    assert bench.apply(3, tick()) == 1
    assert bench.commit() is Outcome.COMMITTED
    assert Bench(bench.broker).opened().owner.next_offset == 4


def test_nothing_to_commit_is_no_cut() -> None:
    bench = Bench().opened()
    assert bench.owner.cut() is None
    bench.apply(0, tick())
    bench.commit()
    assert bench.owner.cut() is None
    assert bench.owner.committed_offset == 1


def test_an_unacknowledged_cut_is_not_committed() -> None:
    bench = Bench().opened()
    bench.apply(0, tick())
    cut = bench.owner.cut()
    assert cut is not None
    assert not bench.owner.acknowledged(cut)
    with pytest.raises(AssertionError):
        bench.owner.commit(cut)
    assert bench.changelog() == {}


def test_a_cut_waits_for_the_outputs_before_it_and_not_for_those_behind() -> None:
    bench = Bench().opened()
    bench.apply(0, tick())
    cut = bench.owner.cut()
    assert cut is not None
    bench.port.deliver(everything=True)
    bench.apply(1, tick())
    assert bench.owner.acknowledged(cut)
    bench.owner.settle(cut, bench.owner.commit(cut))
    assert Bench(bench.broker).opened().owner.next_offset == 1


def test_a_failed_delivery_raises_and_nothing_is_committed_ever_again() -> None:
    bench = Bench().opened()
    bench.apply(0, tick())
    bench.commit()
    committed = bench.changelog()
    bench.apply(1, tick(), tick())
    assert bench.port.refuse()
    bench.port.deliver(everything=True)
    for _ in range(2):
        cut = bench.owner.cut()
        assert cut is not None
        with pytest.raises(DeliveryFailed, match="refused"):
            bench.owner.acknowledged(cut)
        with pytest.raises(DeliveryFailed):
            bench.owner.commit(cut)
        bench.apply(3, tick())
    assert bench.changelog() == committed


def test_an_aborted_transaction_puts_the_changes_back() -> None:
    bench = Bench().opened()
    bench.apply(0, tick("A"), key=b"A")
    bench.broker.abort_rate = 1.0
    assert bench.commit() is Outcome.ABORTED
    assert (bench.changelog(), bench.owner.committed_offset) == ({}, 0)
    bench.apply(1, tick("B"), key=b"B")
    bench.broker.abort_rate = 0.0
    assert bench.commit() is Outcome.COMMITTED
    assert set(bench.changelog()) == {b"A", b"B", PARTITION_KEY, POSITION_KEY}
    assert Bench(bench.broker).opened().owner.keys == bench.owner.keys


def test_a_cut_that_was_not_settled_is_answered_again() -> None:
    """A commit that is cancelled while it waits must not leave its changes and its outputs behind."""
    bench = Bench().opened()
    bench.apply(0, tick("A"), key=b"A")
    cut = bench.owner.cut()
    bench.apply(1, tick("B"), key=b"B")
    assert bench.owner.cut() is cut
    bench.commit()
    assert set(bench.changelog()) == {b"A", PARTITION_KEY, POSITION_KEY}
    bench.commit()
    assert set(bench.changelog()) == {b"A", b"B", PARTITION_KEY, POSITION_KEY}


def test_only_what_changed_is_written_again() -> None:
    bench = Bench().opened()
    bench.apply(0, tick("A"), key=b"A")
    bench.commit()
    bench.apply(1, tick("B"), key=b"B")
    cut = bench.owner.cut()
    assert cut is not None
    assert set(cut.changes) == {b"B", PARTITION_KEY, POSITION_KEY}


def test_a_zombie_is_fenced_and_commits_nothing() -> None:
    zombie = Bench().opened()
    zombie.apply(0, tick())
    zombie.commit()
    heir = Bench(zombie.broker).opened()
    zombie.apply(1, tick(), tick())
    before = zombie.changelog()
    with pytest.raises(Fenced):
        zombie.commit()
    assert zombie.changelog() == before
    assert heir.apply(1, tick()) == 1
    assert heir.commit() is Outcome.COMMITTED


def test_what_was_given_up_or_is_not_open_yet_applies_and_cuts_nothing() -> None:
    closed, opening = Bench().opened(), Bench()
    closed.owner.close()
    for bench in (closed, opening):
        assert bench.apply(0, tick()) == 0
        assert (bench.owner.cut(), bench.owner.next_offset, bench.outputs()) == (None, 0, 0)


def test_a_registry_that_does_not_answer_changes_nothing() -> None:
    answers = [True]

    def fetch(number: int) -> str:
        if answers:
            raise RegistryUnavailable("no answer")
        return topic_schema_text("market.ticks")

    bench = Bench(codec=Codec({name: number for number, name in enumerate(TOPICS, 1)}, fetch)).opened()
    foreign = b"\0" + (900).to_bytes(4, "big") + encode_body("market.ticks", tick())
    with pytest.raises(RegistryUnavailable):
        bench.apply(0, tick(), foreign)
    assert (bench.owner.next_offset, bench.owner.keys, bench.owner.phase) == (0, {}, Phase.READY)
    answers.clear()
    assert bench.apply(0, tick(), foreign) == 2


def test_an_agent_that_fails_half_way_is_never_cut() -> None:
    class Stumbles(Tally):
        def step(self, *arguments: Any) -> tuple[list[Output], set[str]]:
            super().step(*arguments)
            raise ZeroDivisionError

    bench = Bench().opened()
    bench.apply(0, tick())
    bench.owner.agent = Stumbles()
    with pytest.raises(ZeroDivisionError):
        bench.apply(1, tick())
    assert bench.owner.cut() is None
    assert bench.apply(1, tick()) == 0


def test_a_state_that_cannot_be_read_stops_the_take_over() -> None:
    broker = Broker(random.Random(0))
    broker.write(("symbols", 0), {b"A": b"from another world"})
    bench = Bench(broker)
    with pytest.raises(StateUnreadable, match=r"symbols\.changelog, partition 0, key b'A'"):
        bench.owner.open()
    assert bench.owner.phase is Phase.OPENING


def test_outputs_go_where_their_key_belongs_stamped_with_event_time() -> None:
    log, end = source_records("market.ticks", 1)
    world = World(1, Reference(Symbols, log, end))
    world.process.owner.apply(world.reference.run(0, end))
    world.process.port.deliver(everything=True)
    for (topic, partition), entries in world.broker.logs.items():
        assert all(partition_of(entry.key, TOPICS[topic].partitions) == partition for entry in entries)
        for entry in entries:
            record = CODEC.decode(topic, entry.value)
            if isinstance(record, Bar):
                assert (entry.timestamp_ms, entry.key) == (record.end // 1000, record.symbol.encode())
    assert {topic for topic, _ in world.broker.logs} == set(Symbols.writes)


@pytest.mark.parametrize("now", [TopicIds("another", "log"), TopicIds("source", "another")])
def test_a_position_in_another_topic_stops_the_take_over(now: TopicIds) -> None:
    bench = Bench(ids=TopicIds("source", "log")).opened()
    bench.apply(0, tick())
    bench.commit()
    assert Bench(bench.broker, ids=TopicIds("source", "log")).opened().owner.next_offset == 1
    with pytest.raises(TopicDeleted, match="it is another and was"):
        Bench(bench.broker, ids=now).opened()


def test_a_position_of_which_no_topic_is_known_is_taken_and_named() -> None:
    """As 0.1 wrote them."""
    bench = Bench().opened()
    bench.apply(0, tick())
    bench.commit()
    heir = Bench(bench.broker, ids=TopicIds("source", "log")).opened()
    heir.apply(1, tick())
    heir.commit()
    with pytest.raises(TopicDeleted):
        Bench(bench.broker, ids=TopicIds("another", "log")).opened()
