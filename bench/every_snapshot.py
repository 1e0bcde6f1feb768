"""A strategy that wants to turn its position round on every snapshot: each one gives an order to measure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace import Strategy, Target, View


class EverySnapshotParameters(msgspec.Struct, frozen=True):
    """Of `EverySnapshot`."""

    weight: float = 0.001
    """of the position, long and short in turn"""


class EverySnapshotState(msgspec.Struct):
    """Of `EverySnapshot`."""

    long: bool = False


class EverySnapshot(Strategy[EverySnapshotParameters, EverySnapshotState]):
    """Long and short in turn in the first symbol."""

    Parameters = EverySnapshotParameters
    State = EverySnapshotState

    def on_snapshot(
        self, state: EverySnapshotState, view: View
    ) -> tuple[EverySnapshotState, Sequence[Target]]:
        """See `headrace.Strategy.on_snapshot`."""
        state.long = not state.long
        weight = self.parameters.weight if state.long else -self.parameters.weight
        return state, [Target(next(iter(view.rows)), weight, "the other way")]
