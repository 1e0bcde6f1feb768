"""Topics on the broker: made as declared, with the settings as first record of every input partition; checked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from headrace import history, sending
from headrace.sending import Outgoing
from schemas.codec import Codec
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
    bootstrap: str,
    namespace: str,
    settings: Settings,
    codec: Codec,
    *,
    sources: bool = True,
    later: Sequence[Settings] = (),
) -> list[str]:
    """Make the topics that are missing; write ``settings``, and ``later`` versions, first into every input partition.

    Without ``sources``, as for a replay, which reads another namespace's: all but the source topics.

    Returns the physical names that were made. An input topic that exists is left alone: its settings change by
    `headrace.applying` only. A partition without any record (a creation that was interrupted) gets them now.
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
    is_new = not any(
        sum(_sizes(bootstrap, physical(namespace, topic), TOPICS[topic].partitions))
        for topic in (history.TOPIC, inputs[0])
    )
    known = [] if is_new else history.read(bootstrap, namespace, codec)
    if known:
        _verify(namespace, (settings, *later)[-1], known)
        told = [each.settings for each in known]
    else:
        told = [settings, *later]
    _write_settings(bootstrap, namespace, told, codec, inputs)
    if not sum(_sizes(bootstrap, physical(namespace, history.TOPIC), TOPICS[history.TOPIC].partitions)):
        for version in told:
            history.write(bootstrap, namespace, codec, version)
    return made


def _write_settings(
    bootstrap: str, namespace: str, told: Sequence[Settings], codec: Codec, inputs: Iterable[str]
) -> None:
    empty = [
        (topic, partition)
        for topic in inputs
        for partition, records in enumerate(
            _sizes(bootstrap, physical(namespace, topic), TOPICS[topic].partitions)
        )
        if records == 0
    ]
    failed = sending.send(
        bootstrap,
        (
            Outgoing(
                physical(namespace, topic),
                codec.encode(topic, settings),
                timestamp_ms=1,
                partition=partition,
            )
            for topic, partition in empty
            for settings in told
        ),
    )
    if failed:
        raise TopicsError(f"settings were not written: {failed}")


def verify_settings(bootstrap: str, namespace: str, settings: Settings, codec: Codec) -> None:
    """Raise `SettingsDiffer` where the namespace runs with other settings than these, `TopicsError` without any.

    Settings are an input: they hold as they were written, whatever a process was started with. A process that
    was started with others would mislead its owner, so it does not start.
    """
    _verify(namespace, settings, _versions(bootstrap, namespace, codec))


def _verify(namespace: str, settings: Settings, known: Sequence[history.Applied]) -> None:
    held = known[-1].settings
    if history.is_same(held, settings):
        return
    is_behind = any(history.is_same(each.settings, settings) for each in known)
    todo = (
        "use those (`headrace settings history` shows what has changed)"
        if is_behind
        else "use those, apply these (`headrace settings apply`), or take another namespace"
    )
    raise SettingsDiffer(
        f"namespace {namespace or 'live'!r} runs with other settings (version {held.version}) than this "
        f"process (version {settings.version}): {todo}"
    )


def _versions(bootstrap: str, namespace: str, codec: Codec) -> list[history.Applied]:
    known = history.read(bootstrap, namespace, codec)
    if not known:
        name = physical(namespace, history.TOPIC)
        raise TopicsError(f"{name} is not there, or empty: run `headrace topics create` first")
    return known


def recorded_settings(bootstrap: str, namespace: str, codec: Codec) -> list[Settings]:
    """Every version of the settings of a namespace, oldest first. Raises `TopicsError` where there is none."""
    return [each.settings for each in _versions(bootstrap, namespace, codec)]


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
