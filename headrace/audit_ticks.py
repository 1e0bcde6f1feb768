"""Which ticks a bar was made of, found among its symbol's records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from headrace.audit_log import Placed
from schemas.records import Bar, Settings, Tick
from streams.admission import MAX_PRICE, MAX_SIZE


def ticks_of(bar: Bar, records: Iterator[Placed], settings: Settings | None) -> list[Placed]:
    """The ticks of a bar of time, by event time, those of the same time as they came.

    ``records`` are the symbol's from the window's start on. The bar was closed after so many good ticks of its window
    as it counts, so what comes behind them was late.
    """
    is_out = _filter(settings)
    found: dict[str, Placed] = {}
    for placed in records:
        if len(found) == bar.count:
            break
        tick = placed.record
        if not isinstance(tick, Tick) or not bar.start <= tick.event_time < bar.end:
            continue
        good = 0.0 < tick.price <= MAX_PRICE and 0.0 <= tick.size <= MAX_SIZE
        if tick.symbol == bar.symbol and good and not is_out(tick):
            found.setdefault(name_of(placed), placed)
    return sorted(found.values(), key=lambda placed: tick_in(placed).event_time)


def adds_up(bar: Bar, ticks: Sequence[Placed]) -> bool:
    """Whether these are the bar's ticks: their number, the first and the last, and their volume."""
    volume = math.fsum(tick_in(placed).size for placed in ticks)
    return (
        len(ticks) == bar.count > 0
        and name_of(ticks[0]) == bar.first_tick
        and name_of(ticks[-1]) == bar.last_tick
        and math.isclose(volume, bar.volume, rel_tol=1e-9)
    )


def name_of(placed: Placed) -> str:
    """A tick's name, as bars cite it."""
    tick = tick_in(placed)
    if tick.sequence is None:
        return f"{tick.source}/@{placed.partition}/{placed.offset}"
    return f"{tick.source}/{tick.session}/{tick.sequence}"


def tick_in(placed: Placed) -> Tick:
    """What is known to be a tick."""
    assert isinstance(placed.record, Tick)
    return placed.record


def _filter(settings: Settings | None) -> Callable[[Tick], bool]:
    """Whether a tick is in no bar: of an undeclared source, or left out by the gate's own rules."""
    if settings is None:
        return lambda tick: False
    sources = {spec.name for spec in settings.sources}
    if not settings.leave_out:
        return lambda tick: tick.source not in sources
    from streams import gate  # its kernels' compiler takes a moment

    (rule,) = gate.rules(settings)
    mask, round_lot, no_suspicious = (
        int(rule["left_out"]),
        float(rule["round_lot"]),
        bool(rule["no_suspicious"]),
    )
    return lambda tick: bool(
        tick.source not in sources
        or tick.conditions & mask
        or tick.size < round_lot
        or (no_suspicious and tick.suspicious)
    )
