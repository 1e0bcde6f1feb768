"""A real registry: what is registered, what is refused, and one that does not answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from fastavro.schema import to_parsing_canonical_form

from headrace.stack import Endpoints
from schemas.codec import RegistryUnavailable, Unreadable, topic_schema_text
from schemas.records import Reason
from schemas.topics import TOPICS
from streams.runtime import registry
from streams.runtime.registry import COMPATIBILITY, Incompatible, codec, connect, register
from tests.examples import tick

NOWHERE = "http://127.0.0.1:1/apis/ccompat/v7"
Change = Callable[[Any], Any]


@pytest.fixture
def client(stack: Endpoints) -> SchemaRegistryClient:
    return connect(stack.registry)


def changed(name: str, change: Change) -> str:
    return json.dumps(change(json.loads(topic_schema_text(name))))


def canonical(text: str) -> str:
    """A schema's text without docs, and with names spelled out: the registry writes them its own way."""
    form: str = to_parsing_canonical_form(json.loads(text))
    return form


def first(schema: Any) -> Any:
    """The first record of a topic's schema."""
    return schema[0] if isinstance(schema, list) else schema


def field_without_default(schema: Any) -> Any:
    first(schema)["fields"].append({"name": "novelty", "type": "string"})
    return schema


def field_with_default(schema: Any) -> Any:
    first(schema)["fields"].append({"name": "novelty", "type": "string", "default": ""})
    return schema


def field_of_another_type(schema: Any) -> Any:
    changed = next(field for field in first(schema)["fields"] if field["type"] in ("string", "long"))
    changed["type"] = "boolean"
    return schema


def record_renamed(schema: Any) -> Any:
    first(schema)["name"] = "Renamed"
    return schema


def branch_removed(schema: Any) -> Any:
    return schema[:-1]


def branch_appended(schema: Any) -> Any:
    branches = schema if isinstance(schema, list) else [schema]
    return [
        *branches,
        {"type": "record", "name": "headrace.Novel", "fields": [{"name": "x", "type": "long"}]},
    ]


def test_ids_are_the_same_after_registering_again(client: SchemaRegistryClient, namespace: str) -> None:
    ids = register(client, namespace)
    assert set(ids) == set(TOPICS)
    assert register(client, namespace) == ids
    for name, number in ids.items():
        kept = canonical(client.get_schema(number).schema_str)
        assert kept == canonical(topic_schema_text(name))


def test_compatibility_is_set_for_every_subject(client: SchemaRegistryClient, namespace: str) -> None:
    register(client, namespace, ["market.bars"])
    assert client.get_config().compatibility_level == COMPATIBILITY


INCOMPATIBLE = [
    (name, change)
    for name, topic in TOPICS.items()
    for change in (field_without_default, field_of_another_type, record_renamed, branch_removed)
    if change is not branch_removed or len(topic.records) > 1
]


@pytest.mark.parametrize("name", TOPICS)
def test_an_incompatible_change_is_refused(
    name: str, client: SchemaRegistryClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change is tried through our own registration, which must say what was refused."""
    ids = register(client, namespace, [name])
    for change in [change for topic, change in INCOMPATIBLE if topic == name]:
        with monkeypatch.context() as patch:
            patch.setattr(registry, "topic_schema_text", lambda n, change=change: changed(n, change))
            with pytest.raises(Incompatible, match=f"{namespace}.{name}-value"):
                register(client, namespace, [name])
    assert register(client, namespace, [name]) == ids


@pytest.mark.parametrize("name", TOPICS)
def test_a_compatible_change_is_taken(name: str, client: SchemaRegistryClient, namespace: str) -> None:
    subject = f"{namespace}.{name}-value"
    numbers = {register(client, namespace, [name])[name]}
    for change in (field_with_default, branch_appended):
        numbers.add(client.register_schema(subject, Schema(changed(name, change), "AVRO")))
    assert len(numbers) == 3


def test_every_older_version_counts(client: SchemaRegistryClient, namespace: str) -> None:
    """A field that came with a default may not lose it: the first version's values would be unreadable."""
    subject = f"{namespace}.market.bars-value"
    register(client, namespace, ["market.bars"])
    client.register_schema(subject, Schema(changed("market.bars", field_with_default), "AVRO"))
    with pytest.raises(Exception, match="409"):
        client.register_schema(subject, Schema(changed("market.bars", field_without_default), "AVRO"))


def test_what_is_no_avro_is_refused(
    client: SchemaRegistryClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "topic_schema_text", lambda name: '{"type": "novelty"}')
    with pytest.raises(Incompatible, match="does not take"):
        register(client, namespace, ["market.bars"])


def test_a_codec_reads_what_another_wrote_and_tells_what_it_cannot(stack: Endpoints, namespace: str) -> None:
    value = codec(stack.registry, namespace).encode("market.ticks", tick())
    other = codec(stack.registry, f"{namespace}x")
    assert other.decode("market.ticks", value) == tick()
    unknown = other.decode("market.ticks", b"\0\x7f\xff\xff\xff" + value[5:])
    assert isinstance(unknown, Unreadable)
    assert unknown.reason is Reason.UNKNOWN_SCHEMA


def test_a_registry_that_does_not_answer_is_told() -> None:
    client = SchemaRegistryClient({"url": NOWHERE, "max.retries": 0})
    with pytest.raises(RegistryUnavailable):
        register(client, "nowhere")


def test_a_registry_that_still_starts_is_waited_for(
    stack: Endpoints, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def starting(*arguments: Any) -> dict[str, int]:
        attempts.append(arguments)
        if len(attempts) < 3:
            raise RegistryUnavailable("still starting")
        return register(*arguments)

    monkeypatch.setattr(registry, "register", starting)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(RegistryUnavailable):
        codec(stack.registry, namespace, attempts=2)
    assert codec(stack.registry, namespace).encode("market.ticks", tick())[0] == 0
