"""Topics on a real broker: made as declared, with the settings first, and checked."""

from __future__ import annotations

import time

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from headrace import topics
from headrace.stack import Endpoints
from schemas.codec import Codec
from schemas.topics import INPUTS, TOPICS, physical
from tests.examples import settings
from tests.integration.kafka_log import Log


def test_topics_are_made_once_and_begin_with_the_settings(
    stack: Endpoints, namespace: str, codec: Codec, log: Log
) -> None:
    """Also where a creation was interrupted before the settings were written."""
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    half = physical(namespace, "universe.bars")
    admin.create_topics([NewTopic(half, 2, replication_factor=1, config=TOPICS["universe.bars"].config)])[
        half
    ].result(30)
    made = topics.create(stack.kafka, namespace, settings(), codec)
    assert set(made) == {physical(namespace, name) for name in TOPICS} - {half}
    assert topics.create(stack.kafka, namespace, settings(), codec) == []
    with pytest.raises(topics.SettingsDiffer, match=r"version 1.*version 2"):
        topics.create(stack.kafka, namespace, settings(version=2), codec)
    for topic in INPUTS:
        for partition in range(TOPICS[topic].partitions):
            first = log.read(topic, partition).records
            assert [(item.offset, item.key, item.value) for item in first] == [(0, None, settings())]
    assert [finding.problems for finding in topics.check(stack.kafka, namespace)] == [()] * len(TOPICS)
    assert set(topics.delete(stack.kafka, namespace)) == {physical(namespace, name) for name in TOPICS}


def test_topics_that_are_not_as_declared_are_told(stack: Endpoints, namespace: str) -> None:
    name = physical(namespace, "market.bars")
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    wrong = NewTopic(name, 3, replication_factor=1, config={"retention.ms": "1000"})
    admin.create_topics([wrong], operation_timeout=30)[name].result(30)
    deadline = time.monotonic() + 10
    while name not in admin.list_topics().topics and time.monotonic() < deadline:
        time.sleep(0.05)  # until the broker tells of what it has made
    findings = {finding.name: finding.problems for finding in topics.check(stack.kafka, namespace)}
    assert "3 partitions instead of 4" in findings["market.bars"]
    assert "retention.ms=1000 instead of -1" in findings["market.bars"]
    assert findings["market.ticks"] == ("missing: run `headrace topics create`",)


def test_the_live_topics_are_not_removed(stack: Endpoints) -> None:
    with pytest.raises(topics.TopicsError, match="live"):
        topics.delete(stack.kafka, "")
