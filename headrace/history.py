"""Every version of a namespace's settings, in its topic system.settings: what runs, since when, and who said so."""

from __future__ import annotations

import getpass
import time
from typing import Final, NamedTuple

import confluent_kafka as ck
import msgspec

from headrace import sending
from headrace.reading import Reading, TopicMissing
from headrace.sending import Outgoing
from schemas.codec import Codec, decode_body, encode_body
from schemas.records import Settings
from schemas.topics import INPUTS, physical
from streams.errors import HeadraceError

TOPIC: Final = "system.settings"
KEY: Final = "pipeline"
"""One for all: their order is Kafka's."""


class NotWritten(HeadraceError):
    """Raised where Kafka did not take a version of the settings."""


class Applied(NamedTuple):
    """One version as it was written; ``at_ms`` is the wall clock, and for people only."""

    settings: Settings
    at_ms: int
    by: str


def read(bootstrap: str, namespace: str, codec: Codec) -> list[Applied]:
    """Every version, oldest first; of two that were written with the same number the first holds.

    A namespace from before there was a history has the first record of its ticks. Empty: it has no settings.
    Raises `headrace.reading.NotRead` where the broker does not answer.
    """
    with Reading(bootstrap, namespace) as reading:
        found: dict[int, Applied] = {}
        try:
            partition = reading.partition_of(TOPIC, KEY)
            for _, at_ms, _, value, headers in reading.records(TOPIC, partition, ck.OFFSET_BEGINNING):
                settings = codec.decode(TOPIC, value or b"")
                if isinstance(settings, Settings) and settings.version > max(found, default=-1):
                    by = dict(headers).get("by", b"").decode(errors="replace")
                    found[settings.version] = Applied(settings, at_ms, by)
        except TopicMissing:
            pass
        if found:
            return list(found.values())
        try:
            reading.partitions(INPUTS[0])
            for _, _, _, value, _ in reading.records(INPUTS[0], 0, 0):
                settings = codec.decode(INPUTS[0], value or b"")
                return [Applied(settings, 0, "")] if isinstance(settings, Settings) else []
        except TopicMissing:
            pass
    return []


def write(bootstrap: str, namespace: str, codec: Codec, settings: Settings) -> None:
    """Add a version. Raises `NotWritten`."""
    record = Outgoing(
        physical(namespace, TOPIC),
        codec.encode(TOPIC, settings),
        KEY,
        time.time_ns() // 1_000_000,
        headers=(("by", _user().encode()),),
    )
    failed = sending.send(bootstrap, [record])
    if failed:
        raise NotWritten(f"settings {settings.version} were not written: {failed}")


def is_same(one: Settings, other: Settings) -> bool:
    """Whether two versions say the same, from whenever they hold."""
    return _received(one) == _received(msgspec.structs.replace(other, effective_from=one.effective_from))


def _received(settings: Settings) -> object:
    return decode_body(TOPIC, encode_body(TOPIC, settings))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return ""
