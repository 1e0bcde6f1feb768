"""The whole topology over a simulated Kafka: every agent, several processes each, connectors, sinks, a toy broker.

One scheduler with one seed takes every step: who works, what arrives, who is killed, stopped, woken or robbed of its
partitions. In the end the world is healed, runs to its end undisturbed and is judged (`tests.simulation.verdict`).
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from schemas.partitioner import partition_of
from schemas.topics import INPUTS, TOPICS
from streams.agent import Agent
from streams.fitter import Fitter
from streams.portfolios import Portfolios
from streams.quotes import Quotes
from streams.runtime.ownership import Ownership
from streams.signals import loading
from streams.symbols import Symbols
from streams.universes import Universes
from tests.simulation.codec import CODEC
from tests.simulation.connector import Connector
from tests.simulation.feeds import script, script_of
from tests.simulation.port import Broker, Entry, SimulatedPort
from tests.simulation.processes import Group
from tests.simulation.sink import PROCESSES, Database, Sink
from tests.simulation.toy_broker import ToyBroker

EVENTS = "portfolio.events"
_ROUNDS = 40
"""In which an undisturbed world must come to rest; three to six do."""


load_once = functools.cache(loading.load)
"""Looks for a strategy's entry point once: that takes longer than all that the strategy does in a world."""


def shipped_portfolios() -> Portfolios:
    """The portfolios agent with the strategies that ship."""
    return Portfolios(load_once)


class Parts(NamedTuple):
    """What a world is made of: the real parts, or a broken one among them."""

    agents: Mapping[str, Callable[[], Agent[Any, Any]]] = {
        "symbols": Symbols,
        "quotes": Quotes,
        "fitter": Fitter,
        "universes": Universes,
        "portfolios": shipped_portfolios,
    }
    owner: type[Ownership] = Ownership
    port: type[SimulatedPort] = SimulatedPort
    connector: type[Connector] = Connector
    sink: type[Sink] = Sink


@functools.cache
def _settings(topic: str, number: int) -> Entry:
    """What an input partition begins with."""
    return Entry(None, CODEC.encode(topic, script(number).settings), 1)


class NoRest(Exception):
    """An undisturbed world did not come to its end."""


class TopologyWorld:
    """One seed. `run` plays it; ``schedule`` says what happened, step by step."""

    def __init__(self, seed: int, parts: Parts) -> None:
        self.seed, self.parts = seed, parts
        self.rng = rng = random.Random(seed)
        self.script = script_of(seed)
        self.schedule: list[str] = []
        self.tally: Counter[str] = Counter()
        self.broker = Broker(rng, abort_rate=rng.choice([0.0, 0.0, 0.3]))
        self.max_run = rng.choice([2, 8, 30])
        self.lost_answers = rng.choice([0.0, 0.1])
        self._troubles = rng.choice([0.02, 0.06, 0.15])
        self.tails: list[SimulatedPort] = []
        """What dead processes had sent and is still under way."""
        self._write_settings()
        self.groups = [Group(self, name) for name in self.script.agents]
        self.connectors = [parts.connector(self, feed) for feed in self.script.feeds]
        self.database = Database()
        self.sinks = [parts.sink(self) for _ in range(PROCESSES)]
        self.toy_broker = ToyBroker(self)
        self._to_change = [
            (change, topic, partition)
            for change in self.script.changes
            for topic in reversed(INPUTS)
            for partition in range(TOPICS[topic].partitions)
            for _ in range(rng.choice([1, 1, 1, 2]))
        ]
        """Where settings are still to be written; twice where somebody was interrupted and applies them again."""
        self.commands = list(self.script.commands)
        if not self.script.is_open:  # each has its place, and must be there before the snapshot is
            rng.shuffle(self.commands)
            while self.commands:
                self._command()

    def _write_settings(self) -> None:
        for topic in INPUTS:
            for partition in range(TOPICS[topic].partitions):
                self.broker.logs[topic, partition].append(_settings(topic, self.script.number))

    def change_before(self, time_us: int) -> None:
        """Write the settings that hold from a time at or before ``time_us``: nothing of it may be there before."""
        while self._to_change and self._to_change[0][0].effective_from <= time_us:
            self._change()

    def _change(self) -> str:
        change, topic, partition = self._to_change.pop(0)
        self.broker.logs[topic, partition].append(Entry(None, CODEC.encode(topic, change), 1))
        return f"settings {change.version} in {topic}[{partition}]"

    def run(self) -> TopologyWorld:
        """Play the world to its end."""
        for _ in range(self.rng.randint(60, 300)):
            self._step()
        self._heal()
        return self

    # ---- what happens

    def _step(self) -> None:
        rng = self.rng
        if rng.random() < self._troubles:
            what = self._trouble()
        else:
            chance = rng.random()
            if chance < 0.68:
                group = rng.choices(self.groups, [group.partitions + 1 for group in self.groups])[0]
                what = group.act()
            elif chance < 0.84:
                number = rng.randrange(len(self.connectors))
                what = f"feed{number} {self.connectors[number].act()}"
            elif chance < 0.9:
                number = rng.randrange(PROCESSES)
                what = f"sink{number} {self.sinks[number].act()}"
            elif self._to_change and chance < 0.93:
                what = self._change()
            elif chance < 0.96:
                what = f"tails {self._land()}"
            elif chance < 0.98:
                what = f"toy broker: {self.toy_broker.act()}"
            else:
                what = self._command() if self.commands else self._junk()
        self.schedule.append(what)

    def _trouble(self) -> str:
        """Something that must change nothing."""
        rng = self.rng
        group = rng.choice(self.groups)
        alive = [worker for worker in group.workers if worker is not None]
        kind = rng.choice(["kill", "kill", "stop", "wake", "wake", "rebalance", "refuse", "feed", "sink"])
        if kind == "feed":
            number = rng.randrange(len(self.connectors))
            return f"feed{number} {self.connectors[number].kill()}"
        if kind == "sink":
            number = rng.randrange(PROCESSES)
            self.sinks[number] = self.parts.sink(self)
            return f"sink{number} is killed"
        if kind == "rebalance":
            return f"{group.name}: {group.rebalance()}"
        if kind == "wake":
            return self._wake()
        if not alive:
            return "nobody is left"
        worker = rng.choice(alive)
        name = f"{group.name}.{worker.member}"
        if kind == "refuse":
            return f"{name} is refused" if worker.port.refuse() else f"{name} sends nothing"
        if kind == "kill":
            group.kill(worker)
            return f"{name} is killed" + self._replace(group, worker.member)
        worker.is_paused = True
        self.tally["stops"] += 1
        return f"{name} is stopped" + self._replace(group, worker.member)

    def _replace(self, group: Group, member: int) -> str:
        """The group misses a member: at once, later or never."""
        return f", {group.rebalance(member)}" if self.rng.random() < 0.7 else ""

    def _wake(self) -> str:
        """A stopped process goes on where it was, and acts before it hears of anything."""
        stopped = [
            (group, worker)
            for group in self.groups
            for worker in group.workers
            if worker is not None and worker.is_paused
        ]
        if not stopped:
            return "nobody is stopped"
        group, worker = self.rng.choice(stopped)
        worker.is_paused = False
        did = []
        for _ in range(self.rng.randint(0, 5)):
            if group.workers[worker.member] is not worker or not worker.held:
                break
            did.append(group.run(worker, worker.act_before_polling))
        return f"{group.name}.{worker.member} wakes: {did}"

    def _land(self) -> str:
        """Some of what the dead had sent arrives."""
        if not self.tails:
            return "none"
        tail = self.rng.choice(self.tails)
        tail.deliver()
        if tail.is_idle:
            self.tails.remove(tail)
        return "land"

    def _command(self) -> str:
        """A person tells a portfolio something, at times twice."""
        command = self.commands.pop()
        self._append(EVENTS, command.portfolio, CODEC.encode(EVENTS, command))
        if self.rng.random() < 0.3:
            self._append(EVENTS, command.portfolio, CODEC.encode(EVENTS, command))
        return f"command {command.id}"

    def _junk(self) -> str:
        """Somebody writes what nobody can read."""
        topic, key = self.rng.choice([("market.ticks", "A"), ("universe.bars", "u1"), (EVENTS, "alpha")])
        self._append(topic, key, f"junk {len(self.schedule)}".encode())
        return f"junk in {topic}"

    def _append(self, topic: str, key: str, value: bytes) -> None:
        place = (topic, partition_of(key, TOPICS[topic].partitions))
        last = self.broker.logs[place][-1]
        self.broker.logs[place].append(Entry(key.encode(), value, last.timestamp_ms))

    # ---- the end

    def _heal(self) -> None:
        """No more trouble: zombies wake, tails land, everybody polls, and works until nothing is left."""
        self.broker.abort_rate = self.lost_answers = 0.0
        self.schedule.append("healed")
        while any(worker and worker.is_paused for group in self.groups for worker in group.workers):
            self.schedule.append(self._wake())
        while self.commands:
            self._command()
        for _ in range(_ROUNDS):
            while self.tails:
                self._land()
            for connector in self.connectors:
                connector.send(len(connector.messages))
                connector.port.deliver(everything=True)
            are_done = [self._finish(group) for group in self.groups]
            if all(are_done) and not self.tails:
                break
        else:
            raise NoRest(f"seed {self.seed}: not at rest after {_ROUNDS} rounds")
        for sink in self.sinks:
            sink.finish()
        self.toy_broker.act()

    def _finish(self, group: Group) -> bool:
        """Whether every partition of a group is owned, applied to its end and committed."""
        for member, worker in enumerate(group.workers):
            if worker is None:
                group.start(member)
        for worker in list(group.workers):
            assert worker is not None
            group.run(worker, worker.finish)
        workers = [worker for worker in group.workers if worker is not None]
        held = sorted(partition for worker in workers for partition in worker.held)
        return held == list(range(group.partitions)) and all(worker.is_done for worker in workers)
