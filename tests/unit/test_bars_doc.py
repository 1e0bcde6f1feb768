"""docs/bars.md shows which bars come of a few ticks; this runs it and compares every line."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from schemas.records import NEVER, Bar, LateTick, Tick
from schemas.states import SymbolState
from streams.bars import plain
from streams.bars.plan import Plan
from tests.conftest import REPO

KINDS = ("time:1s", "tick:3", "volume:1000", "renko:0.05")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(text: str) -> int:
    moment = datetime.fromisoformat(f"2024-01-02T{text}+00:00")
    return round((moment - EPOCH).total_seconds() * 1e6)


def clock(time_us: int) -> str:
    moment = datetime.fromtimestamp(time_us / 1e6, UTC)
    return moment.isoformat(timespec="milliseconds" if time_us % 1_000_000 else "seconds")[11:].removesuffix(
        "+00:00"
    )


def told(result: Bar | LateTick) -> str:
    if isinstance(result, LateTick):
        return f"late for {', '.join(result.kinds)}"
    prices = " ".join(f"{price:.10g}" for price in (result.open, result.high, result.low, result.close))
    return (
        f"{result.kind} [{result.ordinal}] {clock(result.start)} – {clock(result.end)} ohlc {prices} "
        f"volume {result.volume:g} buy {result.buy_volume:g} sell {result.sell_volume:g}"
    )


def test_the_trace_is_what_happens() -> None:
    text = (REPO / "docs" / "bars.md").read_text("utf-8")
    (trace,) = re.findall(r"```trace\n(.*?)```", text, re.DOTALL)
    plan, state, lines = Plan.of(KINDS, 0, 1), SymbolState(), []
    for line in filter(lambda line: line.startswith("▶"), trace.splitlines()):
        lines.append(line)
        match line[2:].split():
            case ["clock", at]:
                events = [(micros(at), None, "")]
            case [number, at, price, _, size]:
                tick = Tick(
                    symbol="ACME",
                    source="desk",
                    session="a",
                    sequence=int(number[1:]),
                    event_time=micros(at),
                    price=float(price),
                    size=float(size),
                )
                events = [(NEVER, tick, f"desk/a/{tick.sequence}")]
        state, results = plain.step(state, "ACME", events, plan)
        lines += [f"◀ {told(result)}" for result in results]
    assert lines == trace.splitlines()
