"""Topics on the broker: made as declared, with the settings as first record of every input partition; checked."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from headrace import sending
from headrace.sending import Outgoing
from schemas.codec import Codec, decode_body, encode_body
from schemas.records import Settings
from schemas.topics import INPUTS, TOPICS, physical
from streams.errors import HeadraceError
from streams.signals.loading import load as load_strategy

TIMEOUT_S = 30.0
_NO_LEADER_YET = {
    ck.KafkaError.NOT_LEADER_FOR_PARTITION,
    ck.KafkaError.LEADER_NOT_AVAILABLE,
    ck.KafkaError.UNKNOWN_TOPIC_OR_PART,
    ck.KafkaError._UNKNOWN_PARTITION,
}


class TopicsError(HeadraceError):
    """Raised where the broker's topics cannot be made, or are not as declared."""


class SettingsDiffer(TopicsError):
    """Raised where a process was started with other settings than its namespace has."""


class Finding(NamedTuple):
    """One topic against its declaration; ``problems`` is empty where all is well."""

    name: str
    physical: str
    partitions: int | None
    records: int | None
    problems: tuple[str, ...]


def create(
    bootstrap: str, namespace: str, settings: Settings, codec: Codec, *, sources: bool = True
) -> list[str]:
    """Make the topics that are missing and write ``settings`` first into every input partition.

    Without ``sources``, as for a replay, which reads another namespace's: all but the source topics.

    Returns the physical names that were made. An input topic that exists is left alone: its settings are fixed. A
    partition without any record (a creation that was interrupted) gets its settings now.
    Raises `TopicsError`, `SettingsDiffer` where the namespace has other settings already, and
    `streams.errors.StrategyError` where a strategy of the settings cannot be loaded.
    """
    for portfolio in settings.portfolios:
        for strategy in portfolio.strategies:
            load_strategy(strategy)  # a worker that cannot load it would end again and again
    admin = AdminClient({"bootstrap.servers": bootstrap})
    existing = _existing(admin, bootstrap)
    new = [
        NewTopic(name, topic.partitions, replication_factor=1, config=topic.config)
        for topic in TOPICS.values()
        if (sources or topic.role != "source") and (name := physical(namespace, topic.name)) not in existing
    ]
    made = []
    for name, future in (admin.create_topics(new, operation_timeout=TIMEOUT_S) if new else {}).items():
        try:
            future.result(TIMEOUT_S)
            made.append(name)
        except ck.KafkaException as error:
            if error.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicsError(f"{name}: {error.args[0].str()}") from error
    inputs = [topic for topic in INPUTS if sources or TOPICS[topic].role != "source"]
    _write_settings(bootstrap, namespace, settings, codec, inputs)
    _verify(bootstrap, namespace, settings, codec, inputs[0])
    return made


def _write_settings(
    bootstrap: str, namespace: str, settings: Settings, codec: Codec, inputs: Iterable[str]
) -> None:
    empty = [
        (topic, partition)
        for topic in inputs
        for partition, records in enumerate(
            _sizes(bootstrap, physical(namespace, topic), TOPICS[topic].partitions)
        )
        if records == 0
    ]
    timestamp_ms = max(settings.effective_from // 1000, 1)
    failed = sending.send(
        bootstrap,
        (
            Outgoing(
                physical(namespace, topic),
                codec.encode(topic, settings),
                timestamp_ms=timestamp_ms,
                partition=partition,
            )
            for topic, partition in empty
        ),
    )
    if failed:
        raise TopicsError(f"settings were not written: {failed}")


def verify_settings(bootstrap: str, namespace: str, settings: Settings, codec: Codec) -> None:
    """Raise `SettingsDiffer` where the namespace runs with other settings than these, `TopicsError` without any.

    Settings are an input: they hold as they were written, whatever a process was started with. A process that
    was started with others would mislead its owner, so it does not start.
    """
    _verify(bootstrap, namespace, settings, codec, INPUTS[0])


def _verify(bootstrap: str, namespace: str, settings: Settings, codec: Codec, topic: str) -> None:
    held = recorded_settings(bootstrap, namespace, codec, topic)
    if held != decode_body(topic, encode_body(topic, settings)):
        raise SettingsDiffer(
            f"namespace {namespace or 'live'!r} runs with other settings (version {held.version}) than this "
            f"process (version {settings.version}): use those, or another namespace"
        )


def recorded_settings(bootstrap: str, namespace: str, codec: Codec, topic: str = INPUTS[0]) -> Settings:
    """The settings that a namespace runs with, as its topic has them. Raises `TopicsError` where there are none."""
    name = physical(namespace, topic)
    if name not in _existing(AdminClient({"bootstrap.servers": bootstrap}), bootstrap):
        raise TopicsError(f"there is no topic {name}: run `headrace topics create` first")
    reader = ck.Consumer({"bootstrap.servers": bootstrap, "group.id": "headrace-settings"})
    try:
        reader.assign([ck.TopicPartition(name, 0, 0)])
        message = reader.poll(TIMEOUT_S)
    finally:
        reader.close()
    if message is None or message.error() is not None:
        raise TopicsError(f"{name} does not begin with its settings: run `headrace topics create` again")
    held = codec.decode(topic, message.value())
    if not isinstance(held, Settings):
        raise TopicsError(f"{name} begins with something else than settings")
    return held


def there(bootstrap: str, namespace: str) -> bool:
    """Whether a namespace has any topic."""
    existing = _existing(AdminClient({"bootstrap.servers": bootstrap}), bootstrap)
    return any(physical(namespace, topic) in existing for topic in TOPICS)


def delete(bootstrap: str, namespace: str, *, kept: Iterable[str] = ()) -> list[str]:
    """Remove every declared topic of a namespace but those ``kept``; refuses the live one (the empty namespace)."""
    if not namespace:
        raise TopicsError(
            "the live topics (empty namespace) are not removed by a command; use Kafka's own tools"
        )
    admin = AdminClient({"bootstrap.servers": bootstrap})
    existing = _existing(admin, bootstrap)
    names = [n for n in (physical(namespace, t) for t in set(TOPICS).difference(kept)) if n in existing]
    for future in (admin.delete_topics(names, operation_timeout=TIMEOUT_S) if names else {}).values():
        future.result(TIMEOUT_S)
    return names


def check(bootstrap: str, namespace: str) -> list[Finding]:
    """Every declared topic against the broker: whether it is there, its partitions, its configuration."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    existing = _existing(admin, bootstrap)
    there = [n for n in (physical(namespace, t) for t in TOPICS) if n in existing]
    configs = _configs(admin, there)
    findings = []
    for topic in TOPICS.values():
        name = physical(namespace, topic.name)
        if name not in existing:
            findings.append(Finding(topic.name, name, None, None, ("missing: run `headrace topics create`",)))
            continue
        problems = []
        if existing[name] != topic.partitions:
            problems.append(f"{existing[name]} partitions instead of {topic.partitions}")
        problems += [
            f"{key}={configs[name].get(key)} instead of {value}"
            for key, value in topic.config.items()
            if configs[name].get(key) != value
        ]
        records = sum(_sizes(bootstrap, name, existing[name]))
        findings.append(Finding(topic.name, name, existing[name], records, tuple(problems)))
    return findings


def _existing(admin: AdminClient, bootstrap: str) -> dict[str, int]:
    try:
        return {n: len(t.partitions) for n, t in admin.list_topics(timeout=10).topics.items()}
    except ck.KafkaException as error:
        raise TopicsError(
            f"no broker at {bootstrap}: {error.args[0].str()}. Is it up? `headrace status`"
        ) from error


def _configs(admin: AdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    wanted = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    futures = admin.describe_configs(wanted) if wanted else {}
    return {r.name: {k: e.value for k, e in f.result(TIMEOUT_S).items()} for r, f in futures.items()}


def _sizes(bootstrap: str, name: str, partitions: int) -> list[int]:
    """Records by partition; waits for the leaders of partitions that were made a moment ago."""
    reader = ck.Consumer({"bootstrap.servers": bootstrap, "group.id": "headrace-sizes"})
    deadline = time.monotonic() + TIMEOUT_S
    sizes: list[int] = []
    try:
        while len(sizes) < partitions:
            place = ck.TopicPartition(name, len(sizes))
            try:
                low, high = reader.get_watermark_offsets(place, timeout=TIMEOUT_S)
                sizes.append(high - low)
            except ck.KafkaException as error:
                if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                    raise TopicsError(f"{place.topic}: {error.args[0].str()}") from error
                time.sleep(0.1)
        return sizes
    finally:
        reader.close()
