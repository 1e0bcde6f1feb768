"""What a connector says: ticks, quotes, clocks, and rows that it could not read."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from schemas.records import DeadLetter, Quote, Reason, Tick
from schemas.topics import DEAD_LETTER_VALUE_BYTES

TICKS, QUOTES = "market.ticks", "market.quotes"


class Message(msgspec.Struct, frozen=True, gc=False):
    """One thing to send, in order. A clock has neither key nor record and goes to every partition of ``topic``.

    ``time_us`` is event time: that of the record, of the clock, and for a dead letter the clock in force.
    """

    key: str | None
    record: Tick | Quote | DeadLetter | None
    time_us: int
    source: str
    topic: str = TICKS

    @property
    def is_clock(self) -> bool:
        return self.record is None


class BadRow(NamedTuple):
    """A row that could not be read, as it was; ``session`` is the hash of the file's content."""

    file: str
    session: str
    line: int
    text: bytes
    error: str

    def dead_letter(self, time_us: int) -> DeadLetter:
        """The row as evidence; its identity is the file's content and the line."""
        return DeadLetter(
            stage="files",
            reason=Reason.BAD_ROW,
            error=self.error,
            input=f"{self.session}:{self.line}",
            topic=self.file,
            partition=-1,
            offset=self.line,
            timestamp_ms=time_us // 1000,
            key=None,
            value=self.text[:DEAD_LETTER_VALUE_BYTES],
            value_size=len(self.text),
        )


class Position(NamedTuple):
    """Where a connector stood: everything up to here is acknowledged.

    ``sequence`` is a record's (for a file, the line), ``clock_us`` the clock in force there, ``finished`` that
    the closing clock was sent too.
    """

    sequence: int = 0
    clock_us: int | None = None
    finished: bool = False


BEGINNING = Position()
