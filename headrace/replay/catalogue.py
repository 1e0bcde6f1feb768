"""The replays of a namespace, in its compacted topic system.replays: the last record of a name holds."""

from __future__ import annotations

from headrace import compare, sending, topics
from headrace.reading import TopicMissing
from headrace.replay.errors import ReplayError
from headrace.sending import Outgoing
from headrace.stack import Endpoints
from schemas.codec import Codec
from schemas.records import Replay
from schemas.topics import TOPICS, physical
from sinks.timescale import queries, run_of

TOPIC = "system.replays"


def known(bootstrap: str, namespace: str, codec: Codec) -> dict[str, Replay]:
    """The replays of ``namespace``, by name, oldest first. Raises `ReplayError` where it has no such topic."""
    found: dict[str, Replay] = {}
    try:
        for key, value, _ in compare.records(bootstrap, namespace, TOPIC):
            name = (key or b"").decode()
            record = None if value is None else codec.decode(TOPIC, value)
            if isinstance(record, Replay):
                found[name] = record
            else:
                found.pop(name, None)
    except TopicMissing as error:
        missing = f"{error}; `headrace topics create` adds what a namespace of an older version lacks"
        raise ReplayError(missing) from error
    return dict(sorted(found.items(), key=lambda item: item[1].created_at))


def find(bootstrap: str, namespace: str, codec: Codec, name: str) -> Replay:
    """One replay of ``namespace``. Raises `ReplayError` where there is none of that name."""
    replays = known(bootstrap, namespace, codec)
    if name not in replays:
        there = ", ".join(replays) or "none"
        raise ReplayError(f"{namespace or 'live'} has no replay {name!r}; there are: {there}")
    return replays[name]


def ends_of(replay: Replay, source: str) -> tuple[int, ...] | None:
    """Where a replay ends in a source topic, by partition; None for a topic of its own, which ends by itself."""
    return next((each.ends for each in replay.ranges if each.topic == source), None)


def write(bootstrap: str, namespace: str, codec: Codec, replay: Replay) -> None:
    """Keep a replay, in place of what is known of its name."""
    _send(bootstrap, namespace, replay.name, codec.encode(TOPIC, replay))


def drop(found: Endpoints, namespace: str, codec: Codec, name: str) -> int:
    """Remove a replay: its topics, its rows, and last what is known of it. Returns how many topics there were.

    Raises `ReplayError` where there is none of that name: no other namespace is ever removed by it.
    """
    find(found.kafka, namespace, codec, name)
    removed = topics.delete(found.kafka, name)
    with queries.connect(found.database) as connection:
        queries.drop_run(connection, run_of(name))
    _send(found.kafka, namespace, name, None)
    return len(removed)


def remove_results(bootstrap: str, name: str) -> None:
    """Remove all topics of a replay but those that hold its last state."""
    kept = {topic.name for topic in TOPICS.values() if topic.role == "changelog"}
    topics.delete(bootstrap, name, kept=kept)


def _send(bootstrap: str, namespace: str, name: str, value: bytes | None) -> None:
    failed = sending.send(bootstrap, [Outgoing(physical(namespace, TOPIC), value, name)])
    if failed:
        raise ReplayError(f"the replay was not written: {failed}")
