"""So that regimes do not flicker: a label changes only once enough bars, one after another, say the same other one."""

from __future__ import annotations

from typing import Protocol

from schemas.records import Label


class Settled(Protocol):
    """A state, as far as it is about its label."""

    label: Label | None
    previous: Label | None
    bars_since_change: int
    candidate: Label | None
    candidate_bars: int


def settle(state: Settled, told: Label, hold: int) -> Label:
    """The label after a bar that by itself says ``told``; the first holds at once. ``state`` moves on in place."""
    state.bars_since_change += 1
    if told is state.label:
        state.candidate, state.candidate_bars = None, 0
    elif told is state.candidate:
        state.candidate_bars += 1
    else:
        state.candidate, state.candidate_bars = told, 1
    if state.label is None or state.candidate_bars >= hold:
        state.previous, state.label, state.bars_since_change = state.label, told, 0
        state.candidate, state.candidate_bars = None, 0
    return state.label
