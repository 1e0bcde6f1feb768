"""What a dead letter may become: which can be re-driven at all, and the record with its faults put right."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from headrace import moments
from headrace.dead_letters import DeadLetterError, Letter, decoded
from schemas.codec import Codec, Unreadable
from schemas.records import Command, Quote, Reason, Tick

TICKS, QUOTES, EVENTS = "market.ticks", "market.quotes", "portfolio.events"
KINDS: Final[MappingProxyType[str, type[Tick | Quote | Command]]] = MappingProxyType(
    {TICKS: Tick, QUOTES: Quote, EVENTS: Command}
)
"""What people and feeds write; every other record is made by an agent."""
_TIMES: Final = ("event_time", "issued_at")
_NAMES: Final = ("session", "sequence")
_FOR_GOOD: Final[MappingProxyType[Reason, str]] = MappingProxyType(
    {
        Reason.STRATEGY_RAISED: "the snapshot was decided on, by every strategy but this one, and cannot come again; "
        "put the strategy right and run the time again under a namespace of its own",
        Reason.SETTINGS_CHANGED: "settings are applied by `headrace settings apply`, which says what is wrong",
        Reason.BAD_CLOCK: "the next clock of its source says all that this one would have",
        Reason.LATE: "it counted in the windows that were open, and is late for the others for ever",
    }
)


class NotRedriven(DeadLetterError):
    """Raised for a letter that has no place to go back to."""


class RepairInvalid(DeadLetterError):
    """Raised where the repaired fields make no record."""


class Repair(NamedTuple):
    """A letter with the record that it should have been, and the topic where that belongs."""

    letter: Letter
    topic: str
    record: Tick | Quote | Command

    @property
    def key(self) -> str:
        """Of the record: its symbol, or portfolio."""
        return self.record.portfolio if isinstance(self.record, Command) else self.record.symbol

    @property
    def time_us(self) -> int:
        """The time that the record is stamped with."""
        return self.record.issued_at if isinstance(self.record, Command) else self.record.event_time


def edited(codec: Codec, letter: Letter, edits: Mapping[str, str]) -> Repair:
    """The letter's record with some fields set anew; all of them where it could not be read.

    Raises:
        NotRedriven: there is no repairing such a letter.
        RepairInvalid: a field is unknown, missing or of a wrong type.
    """
    named = [name for name in _NAMES if name in edits]
    if named and letter.record.topic != EVENTS:
        raise RepairInvalid(
            f"{letter.id}: {' and '.join(named)} cannot be set: what is re-driven gets a name of its own"
        )
    return _repair(codec, letter, dict(edits), whole=False)


def rewritten(codec: Codec, letter: Letter, record: Mapping[str, Any]) -> Repair:
    """The letter with ``record`` in its place, as an edited export has it. Raises as `edited` does."""
    return _repair(codec, letter, dict(record), whole=True)


def _repair(codec: Codec, letter: Letter, fields: dict[str, Any], *, whole: bool) -> Repair:
    content = decoded(codec, letter.record)
    told = None if isinstance(content, Unreadable) else type(content).__name__
    topic = _home(letter, told, fields)
    kind = KINDS[topic]
    if not whole and isinstance(content, kind):
        fields = {**msgspec.to_builtins(content), **fields}
    if kind is Command:
        fields.setdefault("id", letter.id)
    return Repair(letter, topic, _convert(letter, kind, fields))


def _home(letter: Letter, told: str | None, fields: Mapping[str, Any]) -> str:
    """The topic that a letter's record belongs to; ``told`` is the kind of what it was, where that was readable."""
    record = letter.record
    if record.reason in _FOR_GOOD:
        raise NotRedriven(f"{letter.id} is {record.reason}: {_FOR_GOOD[record.reason]}")
    if not letter.is_whole:
        kept = len(record.value or b"")
        raise NotRedriven(
            f"{letter.id}: only {kept:,} of its {record.value_size:,} bytes were kept, so nobody knows what it was"
        )
    if record.partition < 0:
        return QUOTES if "bid" in fields else TICKS
    if record.topic not in KINDS:
        raise NotRedriven(
            f"{letter.id} comes from {record.topic}, which agents write: put right what they were given; "
            f"re-driven is what goes into {', '.join(KINDS)}"
        )
    if record.key is None and record.value is None:
        raise NotRedriven(
            f"{letter.id} is a clock: the next one of its source says all that this one would have"
        )
    if record.topic == EVENTS and told not in (None, Command.__name__):
        raise NotRedriven(f"{letter.id} is a {told}: of {EVENTS} only commands come from people")
    return record.topic


def _convert(
    letter: Letter, kind: type[Tick | Quote | Command], fields: dict[str, Any]
) -> Tick | Quote | Command:
    known = {field.name for field in msgspec.structs.fields(kind)}
    unknown = sorted(fields.keys() - known - {"-type"})
    if unknown:
        raise RepairInvalid(
            f"{letter.id}: a {kind.__name__} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    for name in _TIMES:
        told = fields.get(name)
        if isinstance(told, str) and not told.lstrip("-").isdigit():
            fields[name] = moments.parse(told)
    after = fields.get("after")
    try:
        if isinstance(after, str) and after.startswith("{"):
            fields["after"] = msgspec.json.decode(after)
        return msgspec.convert(fields, kind, strict=False)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise RepairInvalid(f"{letter.id}: {error}") from error
