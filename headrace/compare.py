"""Rule 11: when two runs are equal.

In every result topic, per key, the same sequence of (Avro body without its frame, timestamp), taking the first of
each identity; a later copy that differs is a failure of its run. Dead letters compare as a set, without the error's
text and their place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import confluent_kafka as ck
import msgspec

from headrace.reading import Reading
from schemas.codec import Codec, decode_body, encode_body, identity_of
from schemas.records import NEVER, DeadLetter, Record
from schemas.topics import TOPICS, physical
from streams.agent import DEAD_LETTERS, Output
from streams.runtime.runs import record_time_ms

FRAME_BYTES = 5
_SHOWN_CHARS = 400
LATE = "market.ticks.late"
COMPARED = tuple(name for name, topic in TOPICS.items() if topic.compared)


class Difference(NamedTuple):
    """One way in which two runs are not equal."""

    topic: str
    key: str
    what: str


class Window(NamedTuple):
    """The results stamped after ``after`` and at or before ``through`` (µs; None: to the end): what a replay covers.

    Late ticks are stamped with a time that had passed already, bad input with any: where a window has a bound, it is
    not told which of them it holds, see `differences`.
    """

    after: int = NEVER
    through: int | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether there is anything before or behind it."""
        return self != Window()

    def holds(self, timestamp_ms: int) -> bool:
        """Whether a result lies within."""
        time_us = timestamp_ms * 1000
        return time_us > self.after and (self.through is None or time_us <= self.through)


class Results:
    """The results of one run, gathered record by record; those within ``window`` where there is one."""

    def __init__(self, window: Window | None = None) -> None:
        self.window = window
        self.sequences: dict[tuple[str, str], dict[tuple[Any, ...], tuple[bytes, int]]] = defaultdict(dict)
        self.dead_letters: set[tuple[Any, ...]] = set()
        self.copies = 0
        self.differing: list[Difference] = []

    def add(self, topic: str, key: str, record: Record, body: bytes, timestamp_ms: int) -> None:
        """Take one record of a result topic; kinds that are not compared are ignored."""
        if isinstance(record, DeadLetter):
            if self.window and record.partition < 0:
                return  # a connector's, of a row that never came into a topic: no replay can meet it
            self.dead_letters.add(_letter(record))
            return
        if not isinstance(record, TOPICS[topic].compared):
            return
        if self.window and topic != LATE and not self.window.holds(timestamp_ms):
            return
        held = self.sequences[topic, key]
        name = identity(record)
        first = held.setdefault(name, (body, timestamp_ms))
        if first[0] is not body:
            self.copies += 1
            if first != (body, timestamp_ms):
                self.differing.append(Difference(topic, key, f"a differing copy of {name}"))

    def output(self, output: Output) -> None:
        """Take an output of the inline runner."""
        if output.topic in COMPARED:
            body = encode_body(output.topic, output.value)
            timestamp = record_time_ms(output.event_time)
            self.add(output.topic, output.key, output.value, body, timestamp)

    def count(self, topic: str) -> int:
        """Records of a topic, copies left out."""
        if topic == DEAD_LETTERS:
            return len(self.dead_letters)
        return sum(len(held) for (name, _), held in self.sequences.items() if name == topic)


def identity(record: Record) -> tuple[Any, ...]:
    """The values of the fields that make a record's identity."""
    values = []
    for path in identity_of(type(record)):
        value: Any = record
        for name in path.split("."):
            value = getattr(value, name)
        values.append(value)
    return tuple(values)


def _letter(letter: DeadLetter) -> tuple[Any, ...]:
    value = letter.value
    if value is not None and value[:1] == b"\0":
        value = value[FRAME_BYTES:]
    return letter.stage, letter.input, letter.reason, letter.key, value


def differences(left: Results, right: Results) -> list[Difference]:
    """Every way in which two runs differ; empty: they are equal. Differing copies within either count too.

    In a window with a bound, ``left`` is the part: what it has of late ticks and bad input must be in ``right`` too,
    which may have more.
    """
    is_part = left.window is not None and left.window.is_bounded
    found = [*left.differing, *right.differing]
    for topic, key in sorted({*left.sequences, *right.sequences}):
        a = list(left.sequences.get((topic, key), {}).items())
        b = list(right.sequences.get((topic, key), {}).items())
        if is_part and topic == LATE:
            b = [item for item in b if item[0] in left.sequences[topic, key]]
        if a != b:
            found.append(Difference(topic, key, _first(topic, a, b)))
    letters = left.dead_letters - right.dead_letters if is_part else left.dead_letters ^ right.dead_letters
    for letter in sorted(letters, key=repr):
        side = "left" if letter in left.dead_letters else "right"
        found.append(Difference(DEAD_LETTERS, str(letter[1]), f"only {side}: {letter[:3]}"))
    return found


def _first(topic: str, a: list[Any], b: list[Any]) -> str:
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    text = f"{len(a)} and {len(b)} records, first difference at {at}"
    if at == len(a) or at == len(b):
        side, other = ("left", b) if at == len(a) else ("right", a)
        return f"{text}: nothing {side}, but {_shown(topic, other[at])}"
    x, y = (_fields(topic, side[at]) for side in (a, b))
    if a[at][0] != b[at][0]:
        return f"{text}:\n  left  {_shown(topic, a[at])}\n  right {_shown(topic, b[at])}"
    apart = [f"  {name}: {x.get(name)} left, {y.get(name)} right" for name in x if x[name] != y.get(name)]
    return "\n".join((f"{text}, {a[at][0]}:", *apart))


def _shown(topic: str, item: Any) -> str:
    shown = str(_fields(topic, item))
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}…"


def _fields(topic: str, item: Any) -> dict[str, Any]:
    body, timestamp_ms = item[1]
    return {"@": timestamp_ms, **msgspec.to_builtins(decode_body(topic, body))}


def read(
    bootstrap: str,
    namespace: str,
    topics: Iterable[str] = COMPARED,
    window: Window | None = None,
    codec: Codec | None = None,
) -> Results:
    """The results of a run from its topics, as they are now.

    ``codec`` reads what another build has written, as this one would have; without it all must be of this build.
    """
    results = Results(window)
    for topic in topics:
        for key, value, timestamp_ms in records(bootstrap, namespace, topic):
            body = (value or b"")[FRAME_BYTES:] if codec is None else codec.body(topic, value or b"")
            record = decode_body(topic, body)
            if isinstance(record, Record):
                results.add(topic, "" if key is None else key.decode(), record, body, timestamp_ms)
    return results


def records(bootstrap: str, namespace: str, topic: str) -> Iterator[tuple[bytes | None, bytes | None, int]]:
    """Key, value and timestamp (ms) of every record of a topic up to its present end, partition by partition."""
    for message in messages(bootstrap, physical(namespace, topic)):
        yield message.key(), message.value(), message.timestamp()[1]


def messages(bootstrap: str, name: str) -> Iterator[ck.Message]:
    """Every committed message of a topic (its name on the broker) up to its present end.

    Raises `headrace.reading.TopicMissing`: a wrong namespace would otherwise compare as empty.
    """
    with Reading(bootstrap, "") as reading:
        for partition in range(reading.partitions(name)):
            yield from reading.messages(name, partition, ck.OFFSET_BEGINNING)
