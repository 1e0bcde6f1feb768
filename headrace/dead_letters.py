"""What lies in system.dead_letters: read, chosen, named, decoded, and written as lines that can be repaired."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from headrace import moments
from headrace.reading import Reading
from schemas.codec import Codec, Unreadable
from schemas.records import DeadLetter, Reason, Record
from schemas.states import State
from schemas.topics import TOPICS
from streams.agent import DEAD_LETTERS
from streams.errors import HeadraceError

ID_DIGITS: Final = 12


class DeadLetterError(HeadraceError):
    """Base of what can go wrong with dead letters through a wrong word of the user's."""


class NoSuchLetter(DeadLetterError):
    """Raised where no letter, or more than one, has such an id."""


class LineUnreadable(DeadLetterError):
    """Raised for a line of an edited export that is none any more."""


class Letter(NamedTuple):
    """A dead letter, and where its first copy lies in system.dead_letters."""

    id: str
    record: DeadLetter
    partition: int
    offset: int

    @property
    def time_us(self) -> int:
        """The event time that its record was stamped with."""
        return self.record.timestamp_ms * 1000

    @property
    def source(self) -> str:
        """Where its record lies; for a file, its line."""
        record = self.record
        if record.partition < 0:
            return f"{record.topic}:{record.offset}"
        return f"{record.topic}[{record.partition}]@{record.offset}"

    @property
    def subject(self) -> str:
        """The symbol where it is known, else the key."""
        return self.record.symbol or key_text(self.record.key)

    @property
    def is_whole(self) -> bool:
        """Whether all of the value was kept."""
        return self.record.value_size <= len(self.record.value or b"")


class Choice(NamedTuple):
    """Which letters are wanted; None: whatever it is. Times are event times, ``until_us`` excluded."""

    stage: str | None = None
    reason: Reason | None = None
    topic: str | None = None
    since_us: int | None = None
    until_us: int | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is among them."""
        record = letter.record
        return (
            self.stage in (None, record.stage)
            and self.reason in (None, record.reason)
            and self.topic in (None, record.topic)
            and (self.since_us is None or letter.time_us >= self.since_us)
            and (self.until_us is None or letter.time_us < self.until_us)
        )


ALL: Final = Choice()


def id_of(letter: DeadLetter) -> str:
    """A name for its identity, the same in every copy.

    The symbol is part of it: a tick's name is unique within its symbol only.
    """
    identity = "\0".join((letter.stage, letter.input, letter.reason, letter.symbol or ""))
    return hashlib.sha256(identity.encode()).hexdigest()[:ID_DIGITS]


def read(reading: Reading, codec: Codec, choice: Choice = ALL) -> Iterator[Letter]:
    """The letters that are there, each once, partition by partition."""
    seen: set[str] = set()
    for partition in range(reading.partitions(DEAD_LETTERS)):
        begin = reading.begin(DEAD_LETTERS, partition)
        for message in reading.messages(DEAD_LETTERS, partition, begin):
            record = codec.decode(DEAD_LETTERS, message.value() or b"")
            if not isinstance(record, DeadLetter):
                continue
            letter = Letter(id_of(record), record, partition, message.offset())
            if letter.id not in seen and choice.takes(letter):
                seen.add(letter.id)
                yield letter


def find(letters: Iterable[Letter], ids: Iterable[str]) -> dict[str, Letter]:
    """By each of ``ids`` the letter whose id begins with it. Raises `NoSuchLetter`."""
    wanted = dict.fromkeys(ids)
    found: dict[str, list[Letter]] = {given: [] for given in wanted}
    for letter in letters:
        for given in wanted:
            if letter.id.startswith(given.lower()):
                found[given].append(letter)
    for given, matches in found.items():
        if len(matches) != 1 or not given:
            several = f"{len(matches)} dead letters begin with {given!r}: write more of the id"
            none = f"no dead letter has the id {given!r}: `headrace dead-letters list` shows them"
            raise NoSuchLetter(several if matches else none)
    return {given: matches[0] for given, matches in found.items()}


def decoded(codec: Codec, letter: DeadLetter) -> Record | State | Unreadable:
    """The value, read as its topic's; where it is readable, but no record of that topic, as another topic's."""
    value = letter.value
    if value is None:
        return Unreadable(letter.reason, "there is no value")
    if letter.topic not in TOPICS:
        return Unreadable(letter.reason, "a line of a file")
    own = codec.decode(letter.topic, value)
    if isinstance(own, Unreadable) and own.reason is Reason.WRONG_SCHEMA:
        for topic in TOPICS:
            other = codec.decode(topic, value)
            if not isinstance(other, Unreadable):
                return other
    return own


def summary(letter: Letter) -> dict[str, Any]:
    """A letter without its value, for a line of JSON."""
    record = letter.record
    return {
        "id": letter.id,
        "event_time": moments.shown(letter.time_us),
        "stage": record.stage,
        "reason": record.reason,
        "error": record.error,
        "input": record.input,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "symbol": record.symbol,
        "key": None if record.key is None else key_text(record.key),
        "value_size": record.value_size,
    }


def exported(codec: Codec, letter: Letter) -> bytes:
    """A letter as a line of JSON: ``value`` in base64, ``record`` what can be read of it, to be repaired.

    JSON has no NaN: such a number is null there.
    """
    content = decoded(codec, letter.record)
    record = None if isinstance(content, Unreadable) else msgspec.to_builtins(content)
    line = {**summary(letter), "value": letter.record.value, "record": record}
    return msgspec.json.encode(line) + b"\n"


class Line(NamedTuple):
    """What counts in a line of an edited export: whose repair it is, and the record as it should be."""

    id: str
    record: dict[str, Any]


def repaired_lines(path: Path) -> Iterator[Line]:
    """The lines of an edited export; empty ones are left out. Raises `LineUnreadable`."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise LineUnreadable(f"{path}: {error.strerror}") from error
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise LineUnreadable(f"{path}, line {number}: {error}") from error
        if not (isinstance(line, dict) and isinstance(line.get("id"), str) and line["id"]):
            raise LineUnreadable(f"{path}, line {number}: an object with the letter's id is expected")
        record = line.get("record")
        if not isinstance(record, dict):
            raise LineUnreadable(
                f"{path}, line {number}: {line['id']} has no record: write the fields that it should have had "
                f"into it, or take the line out"
            )
        yield Line(line["id"], record)


def key_text(key: bytes | None) -> str:
    """A key for people: text where it is printable text."""
    if key is None:
        return "–"
    text = key.decode(errors="replace")
    return text if text.isprintable() and "\ufffd" not in text else repr(key)
