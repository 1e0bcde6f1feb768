"""The declared topics against the table of DESIGN.md, against the agents, and against Kafka's partitioner."""

from __future__ import annotations

from typing import Any

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from headrace.stack import Endpoints
from schemas.partitioner import murmur2, partition_of
from schemas.records import Snapshot
from schemas.topics import INPUTS, TOPICS, physical
from streams.agent import Agent
from streams.runtime.kafka import output_settings
from streams.topology import agents

TABLE = {
    # topic: key, written by, read by (sinks aside)
    "market.ticks": ("symbol", "connectors you", "symbols"),
    "market.quotes": ("symbol", "connectors you", "quotes"),
    "market.ticks.late": ("symbol", "symbols", ""),
    "market.bars": ("symbol", "symbols", ""),
    "market.regimes": ("symbol", "symbols", ""),
    "market.regimes.hmm": ("universe", "universes", ""),
    "universe.bars": ("universe", "symbols quotes fitter settings", "universes fitter"),
    "market.correlations": ("universe", "universes", ""),
    "portfolio.events": ("portfolio", "universes people settings", "portfolios"),
    "risk.metrics": ("portfolio", "portfolios", ""),
    "risk.alerts": ("portfolio", "portfolios", ""),
    "strategy.signals": ("portfolio", "portfolios", ""),
    "trade.orders": ("account", "portfolios people", ""),
    "trade.executions": ("portfolio", "portfolios", ""),
    "trade.positions": ("portfolio", "portfolios", ""),
    "trade.equity": ("portfolio", "portfolios", ""),
    "system.dead_letters": ("source topic", "symbols quotes universes portfolios connectors", ""),
    "system.replays": ("replay", "replay", "replay"),
    "system.settings": ("pipeline", "settings", "settings"),
}
"""DESIGN.md's table, without the accounts agent, which a later issue brings."""
NOT_SUNK = {"trade.orders"}
"""A broker's input: each of its orders is an event in trade.executions too."""


def test_the_topics_are_those_of_the_design() -> None:
    assert {name for name, topic in TOPICS.items() if topic.role != "changelog"} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_key_writers_and_readers(name: str) -> None:
    topic = TOPICS[name]
    key, writers, readers = TABLE[name]
    assert (topic.key, set(topic.written_by)) == (key, set(writers.split()))
    assert set(topic.read_by) - {"sinks"} == set(readers.split())
    assert ("sinks" in topic.read_by) == (bool(topic.compared) and name not in NOT_SUNK)
    assert topic.doc.strip()


@pytest.mark.parametrize("agent", agents(), ids=lambda agent: agent.name)
def test_an_agent_reads_and_writes_what_is_declared(agent: Agent[Any, Any]) -> None:
    assert [name for name, topic in TOPICS.items() if agent.name in topic.read_by] == [
        agent.source,
        f"{agent.name}.changelog",
    ]
    declared = {name for name, topic in TOPICS.items() if agent.name in topic.written_by}
    assert set(agent.writes) == declared - {f"{agent.name}.changelog"}
    assert len(set(agent.writes)) == len(agent.writes)


@pytest.mark.parametrize("agent", agents(), ids=lambda agent: agent.name)
def test_a_changelog_mirrors_its_source(agent: Agent[Any, Any]) -> None:
    changelog, source = TOPICS[f"{agent.name}.changelog"], TOPICS[agent.source]
    assert (changelog.partitions, changelog.key) == (source.partitions, source.key)
    assert {agent.partition_type, agent.key_type} < set(changelog.records)
    assert changelog.config["cleanup.policy"] == "compact"


def test_the_inputs_of_the_agents_begin_with_the_settings() -> None:
    assert tuple(dict.fromkeys(agent.source for agent in agents())) == INPUTS


def test_what_is_compared() -> None:
    """Rule 11: all of market.* but ticks and quotes, risk.*, strategy.*, trade.*, and the snapshots."""
    for topic in TOPICS.values():
        result = topic.name.startswith(("market.", "risk.", "strategy.", "trade.", "system."))
        if topic.name == "portfolio.events":
            assert topic.compared == (Snapshot,)
        elif result and topic.role not in ("source", "catalogue", "history"):
            assert topic.compared == topic.records, topic.name
        else:
            assert topic.compared == (), topic.name


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: topic.name)
def test_event_time_neither_expires_nor_is_refused(topic: Any) -> None:
    config = topic.config
    assert config["retention.ms"] == "-1"
    assert int(config["message.timestamp.after.max.ms"]) == 2**63 - 1
    compacted = topic.role in ("changelog", "catalogue")
    assert config["cleanup.policy"] == ("compact" if compacted else "delete")
    assert all(isinstance(value, str) for value in config.values())
    assert topic.partitions == {"symbol": 4}.get(topic.key, 2)


def test_a_namespace_stands_before_the_name() -> None:
    assert physical("", "market.bars") == "market.bars"
    assert physical("demo-1", "market.bars") == "demo-1.market.bars"


@pytest.mark.parametrize(
    ("text", "hashed"),
    [
        # org.apache.kafka.common.utils.UtilsTest.testMurmur2
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(text: str, hashed: int) -> None:
    assert murmur2(text.encode()) == hashed % 2**32
    assert partition_of(text, 7) == partition_of(text.encode(), 7) == (hashed & 0x7FFFFFFF) % 7


def test_keys_go_where_librdkafka_puts_them(stack: Endpoints, namespace: str) -> None:
    name, partitions = f"{namespace}.partitioner", 7
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    admin.create_topics([NewTopic(name, partitions, replication_factor=1)])[name].result(30)
    try:
        keys = [f"key-{i}" for i in range(300)] + ["", "é", "漢字", "🙂", "x" * 1000]
        landed: dict[bytes, int] = {}

        def delivered(error: ck.KafkaError | None, message: ck.Message) -> None:
            assert error is None
            landed[message.key()] = message.partition()

        producer = ck.Producer(output_settings(stack.kafka))
        for key in keys:
            producer.produce(name, b"", key.encode(), on_delivery=delivered)
        assert producer.flush(30) == 0
        assert landed == {key.encode(): partition_of(key, partitions) for key in keys}
        assert set(landed.values()) == set(range(partitions))
    finally:
        admin.delete_topics([name])[name].result(30)
