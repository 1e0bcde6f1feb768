"""Drives the whole pipeline for tests: inline as the oracle, and over Kafka with any number of processes and kills."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from connectors.messages import Message
from connectors.simulator import SimulatorSettings
from headrace import compare, topics
from headrace.compare import Results
from headrace.fleet import Fleet, headrace_argv
from headrace.lags import sink_lag
from headrace.pipeline import PipelineSettings
from headrace.positions import Positions
from headrace.stack import Endpoints
from schemas.codec import Codec
from schemas.records import Command, DeadLetter, Record, Settings
from schemas.topics import INPUTS, TOPICS, physical
from streams import topology
from streams.agent import DEAD_LETTERS, Output
from streams.runtime import registry
from streams.runtime.inline import Inline
from streams.runtime.kafka import output_settings

AGENTS = ("symbols", "universes", "portfolios")
"""Those that every pipeline needs; one with quotes needs `quotes` too, one with fits the fitter."""
DEADLINE_S = 240.0
SESSION_TIMEOUT_MS = 6_000


def inline(
    settings: PipelineSettings,
    messages: Iterable[Message],
    *,
    commands: Iterable[Command] = (),
    changes: Sequence[Settings] = (),
    run_records: int = 4096,
    outputs: list[Output] | None = None,
) -> Results:
    """The oracle: the same topology in this process, fed with a connector's messages.

    ``changes`` of the settings come at the last moment: before the first message of the time from which each holds.
    """
    results = Results()

    def collect(output: Output) -> None:
        results.output(output)
        if outputs is not None:
            outputs.append(output)

    runner = Inline(topology.needed(settings.record()), settings.record(), collect, run_records=run_records)
    for command in commands:
        runner.command(command, command.portfolio)
    upcoming = list(changes)
    for message in messages:
        while upcoming and upcoming[0].effective_from <= message.time_us:
            runner.settings(upcoming.pop(0), reversed(INPUTS))
        timestamp_ms = max(message.time_us // 1000, 1)
        if message.record is None:
            runner.clock(message.source, timestamp_ms, message.topic)
        elif isinstance(message.record, DeadLetter):
            collect(Output(DEAD_LETTERS, message.key or "", message.record, message.time_us))
        else:
            runner.tick(str(message.key), message.record, timestamp_ms, message.topic)
    runner.flush()
    return results


class Kill(NamedTuple):
    """One kill: whom, at how many records of market.ticks, and how far an agent was behind its source."""

    victim: str
    offsets: int
    lag: int | None


@dataclass
class KafkaRun:
    """One run of the pipeline over Kafka under a namespace of its own; a context manager that ends everything."""

    stack: Endpoints
    namespace: str
    settings: PipelineSettings
    folder: Path
    processes: int = 1
    max_run_records: int = 5_000
    with_sink: bool = True
    fleet: Fleet = field(init=False, default=None)  # type: ignore[assignment]
    codec: Codec = field(init=False)
    positions: dict[str, Positions] = field(default_factory=dict)
    """The changelogs that are followed, by agent."""
    reader: ck.Consumer = field(init=False)
    kills: list[Kill] = field(default_factory=list)
    simulator: SimulatorSettings | None = None
    agents: tuple[str, ...] = AGENTS
    is_patient: bool = False
    """Children that keep ending are started again for ever."""
    breach: str | None = None
    """Workers are broken on purpose: see `tests.chaos.breaches`."""
    build: Path | None = None
    """Where the build is installed that processes started from now on are of; None: this one."""
    settings_file: Path | None = None
    """Where processes find the settings, to be changed while they run; None: they are told."""
    data_dir: Path | None = None
    """Of the stack, where what a connector has sent is to be kept with it; otherwise below ``folder``."""

    def __enter__(self) -> KafkaRun:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.agents = tuple(agent.name for agent in topology.needed(self.settings.record()))
        self.codec = registry.codec(self.stack.registry, self.namespace)
        self.reader = ck.Consumer({"bootstrap.servers": self.stack.kafka, "group.id": "headrace-test-ends"})
        topics.create(self.stack.kafka, self.namespace, self.settings.record(), self.codec)
        return self

    def __exit__(self, *_: object) -> None:
        for name in () if self.fleet is None else self.fleet.names():
            self.fleet.kill(name)  # what a test waits for is committed, and a stop takes seconds
        self.reader.close()
        for followed in self.positions.values():
            followed.close()

    def environment(self) -> dict[str, str]:
        """What the child processes see: this run's services, namespace and settings."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
            "HEADRACE_NAMESPACE": self.namespace,
            "HEADRACE_KAFKA__BOOTSTRAP": self.stack.kafka,
            "HEADRACE_REGISTRY__URL": self.stack.registry,
            "HEADRACE_DATABASE__URL": self.stack.database,
            "HEADRACE_STACK__DATA_DIR": str(self.data_dir or self.folder / "data"),
            **(
                {"HEADRACE_PIPELINE": self.settings.model_dump_json()}
                if self.settings_file is None
                else {"HEADRACE_SETTINGS": str(self.settings_file)}
            ),
            "HEADRACE_SIMULATOR": (self.simulator or SimulatorSettings()).model_dump_json(),
            "HEADRACE_WORKER__MAX_RUN_RECORDS": str(self.max_run_records),
            "HEADRACE_WORKER__SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
            "HEADRACE_WORKER__FETCH_MAX_WAIT_MS": "25",  # six idle workers at 5 ms would take a core of two
        }

    def start(self, ingest: Sequence[str] | None = None) -> None:
        """Start the agents, the sink and the connector (``ingest``: the arguments of `headrace ingest`)."""
        self.fleet = Fleet(self.folder / "logs", self.environment(), gives_up=not self.is_patient)
        for name in self.agents:
            for number in range(self.processes):
                self.join(name, f"{name}-{number}")
        if self.with_sink:
            self.start_sink()
        if ingest is not None:
            self.ingest(*ingest)

    def start_sink(self) -> None:
        """Start the sink."""
        self._start("sink", "sink", "--instance", "sink-0")

    def join(self, agent: str, instance: str) -> None:
        """Start one more process of an agent."""
        self._start(instance, "worker", agent, "--instance", instance)

    def ingest(self, *arguments: str, name: str = "ingest") -> None:
        """Start a connector: the arguments of `headrace ingest`."""
        self._start(name, "ingest", *arguments)

    def _start(self, name: str, *arguments: str) -> None:
        argv = headrace_argv(*arguments)
        if self.breach is not None and arguments[0] == "worker":
            argv = [sys.executable, "-m", "tests.chaos.breaches", self.breach, *arguments]
        if self.build is not None:
            argv = ["env", f"PYTHONPATH={self.build}", *argv]
        self.fleet.start(name, argv, finishes=arguments[0] == "ingest")

    def wait_until_at_work(self) -> None:
        """Until every partition of every agent is owned and has committed its settings: a kill before hits nothing."""
        deadline = time.monotonic() + DEADLINE_S
        for name in self.agents:
            while not all(self.position(name)):
                self.fleet.check()
                assert time.monotonic() < deadline, f"{name} does not begin; logs in {self.folder}"

    # ---- where things stand

    def end(self, topic: str) -> list[int]:
        """End offset of every partition of a topic."""
        name = physical(self.namespace, topic)
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                return [
                    self.reader.get_watermark_offsets(ck.TopicPartition(name, partition), timeout=20)[1]
                    for partition in range(TOPICS[topic].partitions)
                ]
            except ck.KafkaException:  # a broker that has just come back knows no leaders yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def position(self, agent: str) -> list[int]:
        """Committed position of every partition of an agent's source, from its changelog."""
        if agent not in self.positions:
            self.positions[agent] = Positions(self.stack.kafka, self.namespace, agent, self.codec)
        return list(self.positions[agent].read().offsets)

    def settle(self) -> None:
        """Wait until every agent has committed the end of its source, upstream first, and the sink has it all."""
        deadline = time.monotonic() + DEADLINE_S
        for name in self.agents:
            source = topology.agent(name).source
            while (at := self.position(name)) != (end := self.end(source)):
                assert time.monotonic() < deadline, f"{name} stands at {at} of {end}; logs in {self.folder}"
                time.sleep(0.1)
        admin = AdminClient({"bootstrap.servers": self.stack.kafka})
        while self.with_sink and (lag := sink_lag(admin, self.stack.database, self.namespace)):
            assert time.monotonic() < deadline, f"the sink lags by {lag}; logs in {self.folder}"
            time.sleep(0.1)

    def wait_for_ingest(self, name: str = "ingest") -> None:
        """Wait until the connector has ended by itself; one that was killed is not at its end."""
        status = self.fleet.wait(name, DEADLINE_S)
        self.fleet.check()
        assert status == 0, f"the connector does not end; logs in {self.folder}"

    def results(self) -> Results:
        """What stands in the result topics."""
        return compare.read(self.stack.kafka, self.namespace)

    # ---- kills

    def kill_when_reached(self, victim: str, offsets: int) -> None:
        """kill -9 ``victim`` once that many records stand in market.ticks; it is started again by the fleet.

        For an agent, waits until it has work it has not committed (lag above zero): killing an idle process proves
        nothing.
        """
        deadline = time.monotonic() + DEADLINE_S
        agent = victim.rpartition("-")[0]
        while sum(self.end("market.ticks")) < offsets or self.fleet.pid(victim) is None:
            assert time.monotonic() < deadline, (
                f"{victim}: market.ticks did not reach {offsets}; {self.kills}"
            )
            time.sleep(0.1)
        lag = None
        while agent in self.agents:
            done = sum(self.position(agent))
            lag = sum(self.end(topology.agent(agent).source)) - done
            if lag > 0:
                break
            assert time.monotonic() < deadline, f"{victim} never lags"
        pid = self.fleet.pid(victim)
        self.fleet.signal(victim, signal.SIGKILL)
        while (
            self.fleet.pid(victim) == pid
        ):  # or the next kill of the same could hit one that is dead already
            assert time.monotonic() < deadline, f"{victim} does not die"
            time.sleep(0.01)
        self.kills.append(Kill(victim, sum(self.end("market.ticks")), lag))

    def fleet_restarts(self) -> int:
        """How often children were started again, in all."""
        names = ["ingest", "sink", *(f"{name}-{n}" for name in self.agents for n in range(self.processes))]
        return sum(self.fleet.restarts(name) for name in names)

    def send(self, topic: str, key: str, record: Record) -> None:
        """Write one record of an input topic, as a person or another system would."""
        producer = ck.Producer(output_settings(self.stack.kafka))
        producer.produce(physical(self.namespace, topic), self.codec.encode(topic, record), key, timestamp=1)
        assert producer.flush(20) == 0
