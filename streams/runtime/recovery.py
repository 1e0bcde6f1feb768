"""How a partition's state is recovered from a local copy and the changelog behind it; free of I/O.

The changelog is the truth, a copy only a cache of it: the fold of its committed records through one position record,
the copy's *anchor*. Every transaction ends with a position (`streams.runtime.kafka`), so a copy is always one of a
transaction's end. Whoever reads it goes on with the changelog from the anchor, that record included: where the
changelog does not hold the very same record at that offset any more, the copy does not fit, and the whole changelog is
read.

That one comparison finds every way in which a copy may belong to another log than the one that is there: cut off at its
end (a broker that lost its last writes with its power) and perhaps grown again, deleted at its beginning, compacted
beyond the anchor (and with it, perhaps, what had said that a key is gone), or of another topic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from schemas.states import POSITION_KEY
from streams.errors import CopyUnfit


class Anchor(NamedTuple):
    """A position record of a changelog: where it is, and its body."""

    offset: int
    body: bytes


class Held(NamedTuple):
    """What a copy holds: the bodies by key, through the position record at ``offset``, which is among them.

    ``ahead``: some of the bodies may be later ones, through that record: the copy was being written. It fits where the
    changelog has both.
    """

    items: dict[bytes, bytes]
    offset: int
    ahead: Anchor | None = None


class Batch(NamedTuple):
    """What a copy is told at once: whole transactions, of each key the latest body, None for a key that is gone.

    ``begins_anew``: what the copy held before does not count.
    """

    begins_anew: bool
    items: dict[bytes, bytes | None]
    offset: int


class Changes:
    """Committed records behind a copy, on their way into it."""

    __slots__ = ("_anchors", "_begins_anew", "_offset", "_open", "_whole")

    def __init__(self, held: Held | None) -> None:
        """Behind ``held``; None: from the beginning of the changelog."""
        self._begins_anew = held is None
        self._anchors: list[Anchor] = []
        if held is not None:
            own = Anchor(held.offset, held.items[POSITION_KEY])
            self._anchors = [own] if held.ahead is None else [own, held.ahead]
        self._whole: dict[bytes, bytes | None] = {}
        self._open: dict[bytes, bytes | None] = {}
        self._offset: int | None = None

    def add(self, offset: int, key: bytes, value: bytes | None) -> None:
        """Take in the next committed record of the changelog. The first must be the anchor of what it goes behind.

        Raises `CopyUnfit` where it is not, or where the record that what it goes behind may be ahead to is not there.
        """
        if self._anchors and offset >= self._anchors[0].offset:
            anchor = self._anchors.pop(0)
            if key != POSITION_KEY or (offset, value) != anchor:
                raise CopyUnfit(f"its position at {anchor.offset} is not in the changelog any more")
        self._open[key] = value
        if key == POSITION_KEY:
            self._close(offset)

    def commit(self, items: Mapping[bytes, bytes], offset: int | None) -> None:
        """Take in a transaction that was committed; ``offset`` is its position record's, None where it is not known."""
        self._open.update(items)
        if offset is not None:
            self._close(offset)

    def _close(self, offset: int) -> None:
        self._whole.update(self._open)
        self._open.clear()
        self._offset = offset

    @property
    def is_checked(self) -> bool:
        """Whether what it goes behind was found to fit; true where that is nothing."""
        return not self._anchors

    def onto(self, held: Held | None) -> dict[bytes, bytes]:
        """The state: ``held``, and everything that was taken in behind it and not given out yet."""
        before: dict[bytes, bytes | None] = {} if held is None else {**held.items}
        latest = {**before, **self._whole, **self._open}
        return {key: value for key, value in latest.items() if value is not None}

    def take(self) -> Batch | None:
        """Give out what can be written; None where no transaction has ended since the last time."""
        if self._offset is None:
            return None
        batch = Batch(self._begins_anew, self._whole, self._offset)
        self._begins_anew, self._whole, self._offset = False, {}, None
        return batch
