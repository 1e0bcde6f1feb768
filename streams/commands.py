"""Where a person's command takes hold among a portfolio's snapshots (DESIGN: the portfolio's order is
Kafka's).

A command without ``after``, or whose snapshot has passed, holds where it lies. Otherwise it is kept until
that snapshot has been decided on. The place where it held, (snapshot, ordinal), is recorded, always above
every ordinal already taken there, so that a replay which puts that place into ``after`` applies the same
commands in the same order.
"""

from __future__ import annotations

from schemas.records import Command
from schemas.states import PortfolioState

MAX_SEEN = 1000
"""A repeated command is known as such among this many."""


def arrives(state: PortfolioState, command: Command) -> int | None:
    """The ordinal at which ``command`` holds now; None where it is a repeat, or kept for its snapshot.

    Whether the state has changed is told by ``state.seen``: a repeat leaves it alone.
    """
    if command.id in state.seen:
        return None
    state.seen.append(command.id)
    del state.seen[:-MAX_SEEN]
    if command.after is not None and command.after.start > state.last_start:
        state.kept.append(command)
        return None
    return _take(state, 0)


def fall_due(state: PortfolioState) -> list[tuple[Command, int]]:
    """The kept commands that hold after the snapshot just decided on, in order, with their ordinals."""
    due: list[Command] = []
    waiting: list[Command] = []
    for command in state.kept:
        (due if _place(command)[0] <= state.last_start else waiting).append(command)
    state.kept = waiting
    placed = []
    for command in sorted(due, key=_place):
        start, ordinal, _ = _place(command)
        placed.append((command, _take(state, ordinal if start == state.last_start else 0)))
    return placed


def _take(state: PortfolioState, wanted: int) -> int:
    ordinal = max(wanted, state.ordinal)
    state.ordinal = ordinal + 1
    return ordinal


def _place(command: Command) -> tuple[int, int, str]:
    assert command.after is not None
    return command.after.start, command.after.ordinal, command.id
