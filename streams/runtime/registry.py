"""The schema registry: registers the contract, and fetches the schemas of other writers."""

from __future__ import annotations

import time
from collections.abc import Iterable

from confluent_kafka.schema_registry import (
    ConfigCompatibilityLevel,
    Schema,
    SchemaRegistryClient,
    ServerConfig,
)
from confluent_kafka.schema_registry.error import SchemaRegistryError

from schemas.codec import Codec, RegistryUnavailable, UnknownSchema, topic_schema_text
from schemas.topics import TOPICS, physical
from streams.errors import StreamError

COMPATIBILITY = ConfigCompatibilityLevel.BACKWARD_TRANSITIVE
_NOT_FOUND = 404
_CONFLICT = 409
_INVALID = 422


class Incompatible(StreamError):
    """Raised at registration where a schema is invalid or cannot read what older versions of its subject wrote."""


def connect(url: str) -> SchemaRegistryClient:
    """A client of a registry that speaks Confluent's API."""
    return SchemaRegistryClient({"url": url, "timeout": 10})


def register(client: SchemaRegistryClient, namespace: str, names: Iterable[str] = TOPICS) -> dict[str, int]:
    """Register the value schema of each topic and return its id by logical name.

    Sets the global compatibility first: this registry's default is NONE. Raises `Incompatible` and
    `schemas.codec.RegistryUnavailable`.
    """
    ids: dict[str, int] = {}
    texts = {name: topic_schema_text(name) for name in names}
    try:
        _set_compatibility(client)
        for name, text in texts.items():
            subject = f"{physical(namespace, name)}-value"
            ids[name] = client.register_schema(subject, Schema(text, "AVRO"))
    except SchemaRegistryError as error:
        if error.http_status_code == _CONFLICT:
            raise Incompatible(
                f"{subject}: this build's schema cannot read what older versions wrote: {error.error_message}"
            ) from error
        if error.http_status_code == _INVALID:
            raise Incompatible(
                f"{subject}: the registry does not take the schema: {error.error_message}"
            ) from error
        raise RegistryUnavailable(str(error)) from error
    except RegistryUnavailable:
        raise
    except Exception as error:  # the HTTP library's errors of several kinds: the registry does not answer
        raise RegistryUnavailable(f"{type(error).__name__}: {error}") from error
    return ids


def _set_compatibility(client: SchemaRegistryClient) -> None:
    """Processes that start together may all find it unset; the registry refuses all but the first who set it."""
    if client.get_config().compatibility_level == COMPATIBILITY:
        return
    try:
        client.set_config(config=ServerConfig(compatibility=COMPATIBILITY))
    except SchemaRegistryError as error:
        if error.http_status_code != _CONFLICT or client.get_config().compatibility_level != COMPATIBILITY:
            raise RegistryUnavailable(f"the compatibility level cannot be set: {error}") from error


def codec(url: str, namespace: str, *, attempts: int = 30) -> Codec:
    """A codec whose topics are registered at ``url``; waits for a registry that is still starting, 1 s an attempt."""
    client = connect(url)

    def fetch(number: int) -> str:
        try:
            text = client.get_schema(number).schema_str
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                raise UnknownSchema(f"schema id {number} is not in the registry") from error
            raise RegistryUnavailable(str(error)) from error
        except Exception as error:  # as above
            raise RegistryUnavailable(f"{type(error).__name__}: {error}") from error
        return str(text)

    for attempt in range(attempts):
        try:
            return Codec(register(client, namespace), fetch)
        except RegistryUnavailable:
            if attempt + 1 == attempts:
                raise
            time.sleep(1.0)
    raise AssertionError("unreachable")
