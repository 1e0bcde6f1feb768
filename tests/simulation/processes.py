"""The processes of an agent: a group whose members share its partitions, and now and then believe to hold more.

A member learns of a rebalance only when it polls. Until then it goes on with what it held: it applies runs, its outputs
land, and only its commits are refused, once the partition's new owner has opened it. So a process that was stopped and
wakes up as a zombie acts before it polls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from schemas.columns import Packed
from schemas.topics import TOPICS
from streams.errors import Fenced, RuntimeFault
from streams.fitter import Fitter
from streams.portfolios import Portfolios
from streams.quotes import Quotes
from streams.runtime.ownership import Outcome, Ownership
from streams.runtime.runs import Run
from streams.symbols import Symbols
from streams.universes import Universes
from tests.simulation.codec import CODEC
from tests.simulation.counting import Counting

if TYPE_CHECKING:
    from tests.simulation.topology_world import TopologyWorld

MEMBERS = {"symbols": 3, "quotes": 2, "fitter": 2, "universes": 2, "portfolios": 2}
SOURCES = {agent.name: agent.source for agent in (Symbols, Quotes, Fitter, Universes, Portfolios)}
_REFETCHED = (0, 0, 0, 0, 0, 0, 1, 4)
"""How many records a fetch may begin too early."""
_ALL = 1_000_000


class Held:
    """A partition that a process holds or believes to; how far it has fetched, and whether a transaction is open."""

    __slots__ = ("fetched", "has_begun", "owner")

    def __init__(self, owner: Ownership) -> None:
        self.owner = owner
        self.fetched = owner.next_offset
        self.has_begun = False


class Worker:
    """One process of an agent."""

    def __init__(self, group: Group, member: int) -> None:
        self.group, self.member = group, member
        self.world = group.world
        self.port = self.world.parts.port(self.world.broker)
        self.agent = Counting(self.world.parts.agents[group.name]())
        self.held: dict[int, Held] = {}
        self.is_paused = False

    # ---- steps

    def act(self) -> str:
        """One step, whichever the seed says."""
        if not self.held or self.world.rng.random() < 0.08:
            return self.poll()
        return self.act_before_polling()

    def act_before_polling(self) -> str:
        """One step on what it holds, whether or not that is still its own."""
        rng, did = self.world.rng, []
        if rng.random() < 0.7:
            waiting = [partition for partition, held in self.held.items() if self._waits(held)]
            if waiting:
                partition = rng.choice(waiting)
                did.append(self.apply(self.held[partition], rng.randint(1, self.world.max_run)))
        if rng.random() < 0.4:
            self.port.deliver()
            did.append("delivers")
        if rng.random() < 0.4:
            did.append(self.commit(self.held[rng.choice(list(self.held))]))
        return "; ".join(did) or "idles"

    def _waits(self, held: Held) -> bool:
        """Whether there are records that it has not fetched."""
        return held.fetched < len(self.world.broker.logs[held.owner.where])

    def poll(self) -> str:
        """Hear of the group's assignment: give up what is not ours any more, open what is."""
        rng, assigned = self.world.rng, self.group.partitions_of(self.member)
        for partition in [mine for mine in self.held if mine not in assigned]:
            held = self.held.pop(partition)
            if rng.random() < 0.5:  # it is asked before it loses the partition, and commits once more
                self.port.deliver(everything=True)
                self.commit(held, is_last=True)
            held.owner.close()
        opened = [partition for partition in assigned if partition not in self.held]
        for partition in opened:
            owner = self.world.parts.owner(self.agent, partition, CODEC, self.port)
            owner.open()
            self.held[partition] = Held(owner)
            self.world.tally[f"takeovers {self.agent.name}"] += owner.next_offset > 1
        return f"polls, opens {opened}" if opened else "polls"

    def apply(self, held: Held, count: int) -> str:
        """Fetch a run of ``count`` records, some of them again at times, and fold it."""
        topic, partition = held.owner.where
        log = self.world.broker.logs[topic, partition]
        begin = max(0, held.fetched - self.world.rng.choice(_REFETCHED))
        end = min(len(log), held.fetched + count)
        records = [
            (offset, entry.timestamp_ms, entry.key, entry.value, entry.headers)
            for offset, entry in enumerate(log[begin:end], begin)
        ]
        held.owner.apply(Run(begin, end, Packed.of(records)))
        held.fetched = end
        return f"p{partition} applies {begin}:{end}"

    def commit(self, held: Held, *, is_last: bool = False) -> str:
        """A step of a commit: cut; begin the transaction; end it, and hear of it or not."""
        rng, owner = self.world.rng, held.owner
        partition = owner.where.partition
        cut = owner.cut()
        if cut is None:
            return f"p{partition} has nothing to commit"
        if not owner.acknowledged(cut):
            return f"p{partition} waits to commit {cut.next_offset}"
        if not held.has_begun and not is_last and rng.random() < 0.4:
            self.port.begin(self.agent.name, partition, cut.changes, rng.randint(0, len(cut.changes)))
            held.has_begun = True
            return f"p{partition} begins to commit {cut.next_offset}"
        outcome = owner.commit(cut)
        held.has_begun = False
        if rng.random() < self.world.lost_answers:  # a commit that is cancelled while it waits
            return f"p{partition} {outcome.name} {cut.next_offset}, unheard"
        owner.settle(cut, outcome)
        self.world.tally["commits" if outcome is Outcome.COMMITTED else "aborts"] += 1
        return f"p{partition} {outcome.name} {cut.next_offset}"

    # ---- at the end of a world

    def finish(self) -> None:
        """Undisturbed: poll, apply all there is, commit it."""
        self.poll()
        for held in self.held.values():
            while self._waits(held):
                self.apply(held, _ALL)
            for _ in range(2):  # a commit may be under way already
                self.port.deliver(everything=True)
                self.commit(held, is_last=True)
        self.port.deliver(everything=True)  # of partitions that are not ours any more, too

    @property
    def is_done(self) -> bool:
        """Whether all that there is has been applied and committed."""
        logs = self.world.broker.logs
        return self.port.is_idle and all(
            held.owner.committed_offset == len(logs[held.owner.where]) for held in self.held.values()
        )


class Group:
    """The processes of one agent, and which of its partitions belongs to which: what Kafka's coordinator knows."""

    def __init__(self, world: TopologyWorld, name: str) -> None:
        self.world, self.name = world, name
        self.members = MEMBERS[name]
        self.partitions = TOPICS[SOURCES[name]].partitions
        self.assignment: list[int] = []
        self.workers: list[Worker | None] = [None] * self.members
        self.rebalance()
        for member in range(self.members):
            self.start(member)

    def partitions_of(self, member: int) -> list[int]:
        """What the group has assigned to a member."""
        return [partition for partition, owner in enumerate(self.assignment) if owner == member]

    def rebalance(self, without: int | None = None) -> str:
        """Assign every partition anew, none to the member ``without``. Nobody hears of it before it polls."""
        able = [member for member in range(self.members) if member != without]
        self.assignment = [self.world.rng.choice(able) for _ in range(self.partitions)]
        return f"rebalance {self.assignment}"

    def act(self) -> str:
        """A step of one of its processes; one that is gone starts again."""
        rng = self.world.rng
        member = rng.randrange(self.members)
        worker, name = self.workers[member], f"{self.name}.{member}"
        if worker is None:
            if rng.random() > 0.3:
                return f"{name} is down"
            self.start(member)
            return f"{name} starts"
        if worker.is_paused:
            return f"{name} is stopped"
        return f"{name} {self.run(worker, worker.act)}"

    def start(self, member: int) -> None:
        """Start a process for a member that has none."""
        self.workers[member] = Worker(self, member)

    def run(self, worker: Worker, step: Callable[[], object]) -> str:
        """A step of a process that ends where it meets a fault of our own, as a worker does."""
        try:
            return str(step())
        except RuntimeFault as fault:
            self.world.tally["fenced" if isinstance(fault, Fenced) else "faults"] += 1
            self.kill(worker)
            return f"dies: {type(fault).__name__}"

    def kill(self, worker: Worker) -> None:
        """Nothing is left of it but what it had sent."""
        worker.port.leave_tail()
        self.world.tails.append(worker.port)
        self.workers[worker.member] = None
        self.world.tally["kills"] += 1
