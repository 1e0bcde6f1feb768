"""Bars that a kernel encodes are the bytes that the codec gives of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import encode_body
from schemas.records import Bar
from streams.bars import bodies
from streams.bars.plan import Plan
from streams.bars.state import BAR

LONGS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 63, 64, -64, -65, 10**18, -(10**18)])
DOUBLES = st.floats()
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
PLAN = Plan.of(("time:1s", "tick:100", "renko:0.5"), 0, 2**40)


@st.composite
def closed_bars(draw: st.DrawFn) -> tuple[list[str], list[list[str]], list[int], list[tuple[Any, ...]]]:
    """Symbols, the prefixes of each, and bars: their symbols, ascending, and their rows."""
    symbols = draw(st.lists(TEXTS, min_size=1, max_size=4))
    prefixes = [draw(st.lists(TEXTS, min_size=1, max_size=3)) for _ in symbols]
    owners = sorted(draw(st.lists(st.integers(0, len(symbols) - 1), max_size=8)))
    rows = []
    for owner in owners:
        stream = st.integers(0, len(prefixes[owner]) - 1)
        times, prices = (draw(LONGS) for _ in range(3)), (draw(DOUBLES) for _ in range(6))
        volumes, kind = (draw(DOUBLES) for _ in range(2)), draw(st.integers(0, len(PLAN.kinds) - 1))
        names = draw(stream), draw(LONGS), draw(stream), draw(LONGS)
        rows.append((kind, *times, *prices, draw(LONGS), *volumes, *names))
    return symbols, prefixes, owners, rows


@settings(deadline=None, max_examples=200)
@given(closed_bars())
def test_a_bar_is_written_as_the_codec_writes_it(
    drawn: tuple[list[str], list[list[str]], list[int], list[tuple[Any, ...]]],
) -> None:
    symbols, prefixes, owners, rows = drawn
    names = BAR.names or ()
    wanted = []
    for owner, row in zip(owners, rows, strict=True):
        values = dict(zip(names, row, strict=True))
        first = prefixes[owner][values.pop("first_stream")] + str(values.pop("first_number"))
        last = prefixes[owner][values.pop("last_stream")] + str(values.pop("last_number"))
        kind = PLAN.kinds[values.pop("kind")]
        bar = Bar(
            symbol=symbols[owner],
            kind=kind,
            **values,
            first_tick=first,
            last_tick=last,
            settings=int(PLAN.settings[0]),
        )
        wanted.append(encode_body("market.bars", bar))
    encoded = [symbol.encode() for symbol in symbols]
    assert bodies.encode(np.array(rows, BAR), np.array(owners, np.int64), encoded, prefixes, PLAN) == wanted
