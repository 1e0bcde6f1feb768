"""What is told of the pipeline itself: bad input, and replays."""

from __future__ import annotations

from schemas.records.base import Record
from schemas.records.settings import Settings
from schemas.records.words import Reason, ReplayStart


class DeadLetter(Record, frozen=True, kw_only=True, tag="headrace.DeadLetter"):
    """Input that could not be processed, whole.

    Identity: (stage, input, reason).
    """

    stage: str
    reason: Reason
    error: str
    input: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None = None
    value: bytes | None = None
    value_size: int
    symbol: str | None = None


class ReplayRange(Record, frozen=True, kw_only=True, tag="headrace.ReplayRange"):
    """What a replay reads of one source topic: from ``begins`` up to, not including, ``ends``, by partition."""

    topic: str
    begins: tuple[int, ...]
    ends: tuple[int, ...]


class Replay(Record, frozen=True, kw_only=True, tag="headrace.Replay"):
    """A stretch of the source topics that is, or was, run again under a namespace of its own.

    Identity: (name).
    """

    name: str
    ranges: tuple[ReplayRange, ...]
    start: ReplayStart
    checkpoint: str | None = None
    data_from: int
    data_through: int | None = None
    settings: Settings
    changed: bool
    is_checkpoint: bool = False
    created_at: int
    finished: bool = False
    later: tuple[Settings, ...] = ()
