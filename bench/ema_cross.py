"""The strategy of `bench.backtest`: long while the fast average is above the slow one, else short."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace import Strategy, Target
from streams.signals.strategy import View


class Averages(msgspec.Struct):
    """Of `EmaCross`: by symbol, of the closes so far."""

    fast: dict[str, float] = {}
    slow: dict[str, float] = {}


class Spans(msgspec.Struct, frozen=True):
    """Of `EmaCross`: bars, as in nautilus_trader's EMACross."""

    fast: int = 10
    slow: int = 20
    weight: float = 0.1


class EmaCross(Strategy[Spans, Averages]):
    """As nautilus_trader's example EMACross: always in the market, turned round where the averages cross."""

    Parameters = Spans
    State = Averages

    @property
    def warm_up(self) -> int:
        """See `Strategy.warm_up`."""
        return self.parameters.slow

    def on_snapshot(self, state: Averages, view: View) -> tuple[Averages, Sequence[Target]]:
        """See `Strategy.on_snapshot`."""
        given, targets = self.parameters, []
        fast_share, slow_share = 2.0 / (given.fast + 1), 2.0 / (given.slow + 1)
        for symbol, row in view.rows.items():
            if row.stale:
                continue
            close = row.close
            fast = state.fast[symbol] = (
                state.fast.get(symbol, close) * (1.0 - fast_share) + close * fast_share
            )
            slow = state.slow[symbol] = (
                state.slow.get(symbol, close) * (1.0 - slow_share) + close * slow_share
            )
            held = view.positions.get(symbol, 0.0) + view.pending.get(symbol, 0.0)
            if fast >= slow and held <= 0.0:
                targets.append(Target(symbol, given.weight, "crossed upwards"))
            elif fast < slow and held >= 0.0:
                targets.append(Target(symbol, -given.weight, "crossed downwards"))
        return state, targets
