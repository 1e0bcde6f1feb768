"""Where a connector stopped, in a small file: what was acknowledged need not be sent again.

The file may be older than what Kafka holds, never newer: ticks sent twice are dropped by their name.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from connectors.messages import BEGINNING, Position


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    topic: str
    topic_id: str
    source: str
    session: str
    sequence: int
    clock_us: int | None
    finished: bool


class ProgressFile:
    """The position of one session of one source in one topic.

    ``topic_id`` is the broker's id of the topic, so that a topic made anew starts from nothing.
    """

    def __init__(self, folder: Path, *, topic: str, topic_id: str, source: str, session: str) -> None:
        self.path = folder / f"{topic_id}-{session}.json"
        self._topic, self._topic_id, self._source, self._session = topic, topic_id, source, session

    def load(self) -> Position:
        """The stored position; the beginning where there is none, or where the file cannot be read."""
        try:
            entry = msgspec.json.decode(self.path.read_bytes(), type=_Entry)
        except (FileNotFoundError, msgspec.DecodeError):
            return BEGINNING
        return Position(entry.sequence, entry.clock_us, entry.finished)

    def save(self, position: Position) -> None:
        """Replace the stored position, whole or not at all."""
        entry = _Entry(self._topic, self._topic_id, self._source, self._session, *position)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(entry))
        draft.replace(self.path)

    def forget(self) -> None:
        """Start over the next time."""
        self.path.unlink(missing_ok=True)
