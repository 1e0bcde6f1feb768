"""Clocks between ticks, or quotes: "nothing before this is still coming".

A clock of time t stands before the first tick at or after t (plus the lateness that the source is granted),
at each boundary of the step that has one; paced sources ask for the boundaries without ticks too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from connectors.messages import QUOTES, TICKS, BadRow, Message
from schemas.records import Quote, Tick

Row = Tick | Quote | BadRow

LOOK_AHEAD = 8
"""Ticks that are asked whether a jump of the time is real."""


class ClockSettings(BaseModel):
    """When clocks are written. Times in microseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_us: int = Field(
        default=1_000_000, gt=0, description="distance of the boundaries at which a clock is due"
    )
    lateness_us: int = Field(
        default=0, ge=0, description="how far a row may lie behind the latest one before it"
    )
    close_after_us: int = Field(
        default=300_000_000,
        ge=0,
        description="the last clock is this far past the last tick: largest window + its lateness",
    )
    open_end: bool = Field(
        default=False, description="no last clock: more ticks will follow, from another file"
    )
    every_step: bool = Field(
        default=False, description="a clock at boundaries without ticks too, as a live feed has them"
    )
    max_ahead_us: int = Field(
        default=60_000_000, gt=0, description="as in the pipeline's settings: further ahead is bad input"
    )

    @model_validator(mode="after")
    def _ahead_of_clock(self) -> Self:
        if self.step_us + self.lateness_us > self.max_ahead_us:
            raise ValueError(
                f"step_us + lateness_us is {self.step_us + self.lateness_us}, more than max_ahead_us "
                f"({self.max_ahead_us}): good ticks would be refused as too far ahead of the clock"
            )
        return self


def interleave(
    rows: Iterable[Row],
    source: str,
    settings: ClockSettings,
    after: int | None = None,
    topics: tuple[str, ...] = (TICKS,),
) -> Iterator[Message]:
    """``rows`` as messages, with clocks at their places, for each of ``topics``, and a closing clock at the end.

    ``after`` is the clock in force before the first row, where a run is resumed.

    A single row with a time far in the future must not make its neighbours late: where the time jumps by more
    than ``max_ahead_us``, the next rows decide. If most of them lie before the jump, the clock stands still
    and the pipeline refuses the row as too far ahead.
    """
    step, lateness, ahead_limit = settings.step_us, settings.lateness_us, settings.max_ahead_us
    clock = after
    due = None if clock is None else clock + step + lateness
    base = iter(rows)
    rest: Iterator[Row] = base
    while True:
        for row in rest:
            if isinstance(row, BadRow):
                time = clock or 0
                yield Message(row.file, row.dead_letter(time), time, source)
                continue
            time = row.event_time
            if due is not None and time < due:
                yield _message(row, source)
                continue
            ahead: list[Row] | None = None
            safe = time
            if due is None or time - due > ahead_limit:
                ahead = list(islice(rest, LOOK_AHEAD))
                safe = _confirmed(time, due, ahead, lateness + ahead_limit)
            if due is None or safe >= due:
                target = (safe - lateness) // step * step
                if settings.every_step and clock is not None:
                    for boundary in range(clock + step, target, step):
                        yield from _clocks(boundary, source, topics)
                yield from _clocks(target, source, topics)
                clock = target
                due = clock + step + lateness
            yield _message(row, source)
            if ahead is not None:
                rest = chain(
                    ahead, base
                )  # what was looked at is at most what was looked at before, and more of base
                break
        else:
            break
    if clock is not None and not settings.open_end:
        closing = -(-(clock + step + lateness + settings.close_after_us) // step) * step
        yield from _clocks(closing, source, topics)


def _message(row: Tick | Quote, source: str) -> Message:
    topic = TICKS if type(row) is Tick else QUOTES
    return Message(row.symbol, row, row.event_time, source, topic)


def _clocks(time: int, source: str, topics: tuple[str, ...]) -> Iterator[Message]:
    return (Message(None, None, time, source, topic) for topic in topics)


def _confirmed(time: int, due: int | None, ahead: list[Row], slack: int) -> int:
    """The time that the clock may follow to: ``time`` itself, unless most of the next ticks lie before it."""
    following = [row.event_time for row in ahead if not isinstance(row, BadRow)]
    before = [t for t in following if t < time - slack]
    if 2 * len(before) <= len(following):
        return time
    return min(before) if due is None else due - 1
