"""What an agent is: a pure fold over one partition of one input topic.

An agent is handed what was fetched of a partition (a *run*), decoded, together with the partition's own state and
the states of its keys, and answers with outputs and the keys it touched. It does no I/O and reads no clock, so the
answer is a function of the sequence of inputs, however they were cut into runs. The runtime (`streams.runtime`)
commits states, position and outputs together; nothing here has to think of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

from schemas.codec import Unreadable
from schemas.records import DeadLetter, Reason, Record
from schemas.states import State
from schemas.topics import DEAD_LETTER_VALUE_BYTES

DEAD_LETTERS = "system.dead_letters"
MAX_ERROR_CHARS = 1_000
"""A dead letter keeps this much of an error, which may quote the input."""


class SourcePartition(NamedTuple):
    """The partition that an agent folds over."""

    topic: str
    partition: int


class Input(NamedTuple):
    """One record of a run. ``value`` is None where the record has none (a clock)."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: Record | Unreadable | None
    raw: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Output(NamedTuple):
    """One record to send; its Kafka timestamp is ``event_time`` (µs) in milliseconds."""

    topic: str
    key: str
    value: Record
    event_time: int


class Working(Protocol):
    """A key's state in the form that its agent works on, where that is not the contract's."""

    def freeze(self) -> State:
        """The state as the changelog holds it: the same bytes however the input was cut into runs."""
        ...


def frozen(state: State | Working) -> State:
    """A key's state as the changelog holds it."""
    return state if isinstance(state, State) else state.freeze()


P = TypeVar("P", bound=State)
K = TypeVar("K", bound=State)


class Agent(Protocol[P, K]):
    """One of the boxes of `streams.topology`."""

    @property
    def name(self) -> str:
        """Names its group, changelog and transactions."""
        ...

    @property
    def source(self) -> str:
        """Its one input topic."""
        ...

    @property
    def writes(self) -> tuple[str, ...]:
        """Topics that its outputs go to."""
        ...

    @property
    def partition_type(self) -> type[P]:
        """State of a partition; made without arguments."""
        ...

    @property
    def key_type(self) -> type[K]:
        """State of a key, as the changelog holds it."""
        ...

    def step(
        self, where: SourcePartition, partition: P, keys: dict[str, K], inputs: Sequence[Input]
    ) -> tuple[list[Output], set[str]]:
        """Fold ``inputs`` into ``partition`` and ``keys`` (both owned by the call, updated in place).

        Returns the outputs in order and the keys whose state changed. New keys are added to ``keys``; an agent may
        put a `Working` form of a state there instead, and is handed it again.
        """
        ...


def dead_letter(
    where: SourcePartition,
    item: Input,
    *,
    stage: str,
    reason: Reason,
    error: str,
    name: str | None = None,
    symbol: str | None = None,
) -> Output:
    """The whole of ``item`` on its way to the dead-letter topic, keyed by its source topic.

    ``name`` is the input's identity; by default its place: topic/partition/offset.
    """
    raw = item.raw
    if name is None or len(name) > MAX_ERROR_CHARS:
        name = f"{where.topic}/{where.partition}/{item.offset}"
    letter = DeadLetter(
        stage=stage,
        reason=reason,
        error=error[:MAX_ERROR_CHARS],
        input=name,
        topic=where.topic,
        partition=where.partition,
        offset=item.offset,
        timestamp_ms=item.timestamp_ms,
        key=item.key,
        value=None if raw is None else raw[:DEAD_LETTER_VALUE_BYTES],
        value_size=0 if raw is None else len(raw),
        symbol=symbol,
    )
    return Output(DEAD_LETTERS, where.topic, letter, max(item.timestamp_ms, 0) * 1000)
