"""The kernel of streams/bars driven with records, as its twin is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from schemas.columns import SIDES
from schemas.records import NEVER, Bar, LateTick
from schemas.states import SymbolState
from streams.bars import plain
from streams.bars.fold import step
from streams.bars.plain import Event
from streams.bars.plan import Plan
from streams.bars.state import EVENT, Outbox, SymbolBars


def run(
    bars: SymbolBars, events: Sequence[Event], plan: Plan, out: Outbox, symbol: str = "A"
) -> tuple[list[Bar], list[LateTick]]:
    """Fold events of the twin's shape; a clock alone is left to the next tick or to the end, as the agent leaves it."""
    rows, ticks, clock = [], [], NEVER
    for clock, tick, name in events:
        if tick is not None:
            prefix, _, number = name.rpartition("/")
            rows.append(
                (
                    tick.event_time,
                    tick.price,
                    tick.size,
                    clock,
                    int(number),
                    bars.stream(prefix + "/"),
                    SIDES[tick.aggressor],
                )
            )
            ticks.append((tick, name))
    step(bars, np.array(rows, EVENT), clock, plan, out)

    def name_of(stream: int, number: int) -> str:
        return f"{bars.prefixes[stream]}{number}"

    closed = []
    for row in out.bars:
        values = dict(zip(out.bars.dtype.names or (), row.item(), strict=True))
        first = name_of(values.pop("first_stream"), values.pop("first_number"))
        last = name_of(values.pop("last_stream"), values.pop("last_number"))
        kind = plan.kinds[values.pop("kind")]
        version = int(plan.settings[plan.version_of(np.array([values["start"]]))[0]])
        closed.append(
            Bar(symbol=symbol, kind=kind, **values, first_tick=first, last_tick=last, settings=version)
        )
    late = []
    for event, mask, mark, by_clock in out.late.tolist():
        tick, name = ticks[event]
        kinds = tuple(kind for number, kind in enumerate(plan.kinds) if mask >> number & 1)
        reason = "closed by the partition's clock" if by_clock else "closed by a later tick of the symbol"
        late.append(LateTick(symbol=symbol, name=name, tick=tick, kinds=kinds, mark=mark, reason=reason))
    return closed, late


def frozen(bars: SymbolBars, plan: Plan) -> SymbolState:
    """The contract's state of working arrays."""
    return SymbolState(**bars.freeze(plan))


def both(
    events: Sequence[Event], kinds: Sequence[str], lateness_us: int = 0, state: SymbolState | None = None
) -> list[Bar | LateTick]:
    """What kernel and twin both answer, in the twin's order; ``state`` is changed."""
    state = SymbolState() if state is None else state
    plan = Plan.of(kinds, lateness_us, 1)
    bars = SymbolBars.thaw(state, plan)
    closed, late = run(bars, events, plan, Outbox())
    _, results = plain.step(state, "A", events, plan)
    assert exact(closed) == exact([result for result in results if isinstance(result, Bar)])
    assert exact(late) == exact([result for result in results if isinstance(result, LateTick)])
    assert exact(frozen(bars, plan)) == exact(state)
    return results


def exact(value: Any) -> bytes:
    """Records as bytes, every double by all its bits: equal only where nothing differs."""
    return msgspec.msgpack.encode(value)
