"""Bad input, whole."""

from __future__ import annotations

from schemas.records.base import Record
from schemas.records.words import Reason


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
