"""A topic that is deleted and made again is another one: whoever worked on the old one says so and takes nothing."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.errors import TopicDeleted
from connectors.sender import Pace, Sender
from connectors.simulator import Simulation, SimulatorSettings
from headrace import compare, topics
from headrace.fleet import Fleet, headrace_argv
from headrace.pipeline import PipelineSettings
from headrace.replay import ReplayError
from headrace.replay.seeding import seed
from headrace.stack import Endpoints
from schemas.codec import Codec
from schemas.records import NEVER, Replay, ReplayRange, ReplayStart
from schemas.states import POSITION_KEY, SourcePosition
from schemas.topics import TOPICS, physical
from sinks.timescale import queries, run_of
from streams import topology
from streams.runtime.identity import TopicWatch, known_ids
from streams.runtime.kafka import KafkaPort, output_settings
from streams.runtime.worker_state import EXIT_FAULT
from tests.pipeline import KafkaRun

SIMULATED = SimulatorSettings(minutes=30, ticks_per_minute=12.0, seed=3)
WITHIN_S = 60.0


def pipeline() -> PipelineSettings:
    return PipelineSettings.model_validate(
        {
            "market": {"sources": [{"name": "simulator"}]},
            "universes": [{"name": "all", "symbols": SIMULATED.symbols}],
            "portfolios": [
                {"name": "first", "universe": "all", "strategies": [{"name": "m", "uses": "momentum"}]}
            ],
        }
    )


@pytest.fixture(scope="module")
def stood(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaRun]:
    """A pipeline that has done a session and stands; each test makes another of its topics anew."""
    name = f"t{time.time_ns():x}"[:13]
    with KafkaRun(stack, name, pipeline(), tmp_path_factory.mktemp("run"), simulator=SIMULATED) as run:
        run.start(["simulator"])
        run.wait_for_ingest()
        run.settle()
        run.fleet.stop()
        yield run
    topics.delete(stack.kafka, name)
    with queries.connect(stack.database) as connection:
        queries.drop_run(connection, run_of(name))


def make_again(bootstrap: str, namespace: str, topic: str, *, times: int) -> None:
    """Delete a topic and make it again, with all of its records so many times: at 2, every old offset is there."""
    name = physical(namespace, topic)
    records = [
        (m.partition(), m.key(), m.value(), m.timestamp()[1]) for m in compare.messages(bootstrap, name)
    ]
    assert records
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([name], operation_timeout=30)[name].result(30)
    deadline = time.monotonic() + WITHIN_S
    while name in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    new = NewTopic(name, TOPICS[topic].partitions, 1, config=TOPICS[topic].config)
    admin.create_topics([new], operation_timeout=30)[name].result(30)
    producer = ck.Producer(output_settings(bootstrap))
    for partition, key, value, timestamp_ms in records * times:
        producer.produce(name, value, key, partition=partition, timestamp=max(timestamp_ms, 1))
    assert producer.flush(30) == 0


def refused(run: KafkaRun, *arguments: str) -> str:
    """What a process says that must not go on; its exit status."""
    done = subprocess.run(
        headrace_argv(*arguments),
        env=run.environment(),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == (EXIT_FAULT if arguments[0] == "worker" else 1), done.stderr
    return done.stderr


@pytest.mark.parametrize("name", ["symbols", "universes", "portfolios"])
def test_an_agent_that_stood_refuses_it(stood: KafkaRun, name: str) -> None:
    agent = topology.agent(name)
    make_again(stood.stack.kafka, stood.namespace, agent.source, times=2)
    position, results = stood.position(name), [stood.end(topic) for topic in agent.writes]
    told = refused(stood, "worker", name)
    assert f"{agent.source} was deleted and made again" in told
    assert "headrace restore" in told
    assert stood.position(name) == position
    assert [stood.end(topic) for topic in agent.writes] == results


def test_the_sink_refuses_it(stood: KafkaRun) -> None:
    def held() -> object:
        with queries.connect(stood.stack.database) as connection:
            run = run_of(stood.namespace)
            return queries.counts(connection, run), queries.next_offsets(connection, run)

    before = held()
    make_again(stood.stack.kafka, stood.namespace, "market.regimes", times=2)
    assert "market.regimes was deleted and made again" in refused(stood, "sink")
    assert held() == before


class Watched:
    """The symbols agent at work in a namespace of its own, at the end of its source."""

    def __init__(self, run: KafkaRun) -> None:
        self.run = run
        self.fleet = run.fleet = Fleet(run.folder / "logs", run.environment())

    def start(self) -> None:
        sender = Sender(self.run.stack.kafka, self.run.namespace, self.run.codec.encode)
        sender.run(Simulation(SIMULATED).messages())
        self.fleet.start("symbols", headrace_argv("worker", "symbols"), restart=False)
        deadline = time.monotonic() + WITHIN_S
        while self.run.position("symbols") != self.run.end("market.ticks"):
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def told(self) -> str:
        """What it says at its end."""
        assert self.fleet.wait("symbols", WITHIN_S) == EXIT_FAULT
        return self.fleet.log("symbols").read_text()


@pytest.fixture
def watched(stack: Endpoints, namespace: str, tmp_path: Path) -> Iterator[Watched]:
    with KafkaRun(stack, namespace, pipeline(), tmp_path, with_sink=False, simulator=SIMULATED) as run:
        found = Watched(run)
        found.start()
        yield found


@pytest.mark.parametrize("topic", ["market.ticks", "symbols.changelog"])
def test_a_running_agent_ends(watched: Watched, topic: str) -> None:
    bars, run = watched.run.end("market.bars"), watched.run
    make_again(run.stack.kafka, run.namespace, topic, times=1)
    assert f"{topic} was deleted and made again" in watched.told()
    assert run.end("market.bars") == bars
    assert f"{topic} was deleted and made again" in refused(run, "worker", "symbols")


def test_one_that_is_gone_is_noticed_too(stack: Endpoints, namespace: str) -> None:
    name, told = f"{namespace}.gone", Queue[Exception]()
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    admin.create_topics([NewTopic(name, 1, 1)], operation_timeout=30)[name].result(30)
    TopicWatch(admin, dict(zip([name], known_ids(admin, [name]), strict=True)), told.put)
    admin.delete_topics([name], operation_timeout=30)[name].result(30)
    assert str(told.get(timeout=WITHIN_S)).startswith(f"{name} is gone. ")


def test_a_checkpoint_of_the_old_one_begins_no_replay(stack: Endpoints, namespace: str, codec: Codec) -> None:
    settings, checkpoint = pipeline().record(), f"{namespace}-at"
    topics.create(stack.kafka, namespace, settings, codec)
    topics.create(stack.kafka, checkpoint, settings, codec, sources=False)
    port = KafkaPort(stack.kafka, checkpoint)
    for agent in topology.needed(settings):
        for number in range(TOPICS[agent.source].partitions):
            position = SourcePosition(
                topic=agent.source, partition=number, next_offset=1, source_id="another"
            )
            port.fence(agent.name, number)
            port.commit(agent.name, number, {POSITION_KEY: codec.encode(f"{agent.name}.changelog", position)})
    planned = Replay(
        name=f"{namespace}-again",
        ranges=(ReplayRange(topic="market.ticks", begins=(1,) * 4, ends=(1,) * 4),),
        start=ReplayStart.CHECKPOINT,
        checkpoint=checkpoint,
        data_from=NEVER,
        data_through=None,
        settings=settings,
        changed=False,
        created_at=0,
    )
    try:
        with pytest.raises(
            ReplayError, match=f"market.ticks was deleted and made again since .*{checkpoint}"
        ):
            seed(stack.kafka, namespace, planned, codec)
    finally:
        for made in (checkpoint, planned.name):
            topics.delete(stack.kafka, made)


def test_a_connector_at_work_ends(stack: Endpoints, namespace: str, tmp_path: Path) -> None:
    with KafkaRun(stack, namespace, pipeline(), tmp_path) as run:
        sender = Sender(stack.kafka, namespace, run.codec.encode)
        times = []

        def report(progress: object) -> None:
            times.append(progress)
            if len(times) == 3:
                make_again(stack.kafka, namespace, "market.ticks", times=1)

        with pytest.raises(TopicDeleted, match="all is sent from the beginning"):
            sender.run(Simulation(SIMULATED).messages(), pace=Pace(rate=500.0), report=report)
        assert Sender(stack.kafka, namespace, run.codec.encode).topic_id != sender.topic_id
