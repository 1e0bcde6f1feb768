"""The kernel against its twin in plain Python, byte for byte, on random runs cut in every way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import decode_body, encode_body
from schemas.records import NEVER, Bar, LateTick, Side
from schemas.states import SymbolState
from streams.bars import plain
from streams.bars.plain import Event
from streams.bars.plan import Plan, Version
from streams.bars.state import FOREVER, Outbox, SymbolBars
from tests.examples import DAY0, SECOND, tick
from tests.kernel_bars import exact, frozen, run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # exchange_calendars on pandas 3
CHANGELOG = "symbols.changelog"
KINDS = (
    *("time:1s", "time:5s", "time:2s", "time:1d@XTKS", "time:2s@XTKS", "time:2s@XNYS"),
    *("tick:1", "tick:3", "volume:4.5", "dollar:2", "range:0.3", "renko:0.1", "renko:0.001"),
    *("tick-imbalance:4", "volume-imbalance:2:1", "dollar-imbalance:3:5"),
    *("tick-run:4", "volume-run:2:1", "dollar-run:3:5"),
)
BEGINS = (
    DAY0,  # in no session
    1_381_152_597 * SECOND,  # 2013-10-07 09:29:57 in New York
    1_381_113_000 * SECOND,  # 2013-10-07 11:30 in Tokyo: lunch begins
    1_381_116_597 * SECOND,  # 12:29:57: and ends
)


@st.composite
def streams_of_events(draw: st.DrawFn) -> list[Event]:
    """Ticks in and out of order, equal times, without volume, of several sources; clocks alone and with ticks."""
    clock, time, events = NEVER, draw(st.sampled_from(BEGINS)), list[Event]()
    price = 1.0
    for number in range(draw(st.integers(1, 40))):
        if draw(st.booleans()):
            clock = max(clock, time + draw(st.integers(-8, 4)) * SECOND)
        if not draw(st.integers(0, 4)):
            events.append((clock, None, ""))
            continue
        time += draw(st.integers(0, 6)) * SECOND // 2
        back = draw(st.sampled_from([0, 0, 0, 1, 3, 9])) * SECOND
        price = draw(
            st.one_of(st.just(price), st.integers(1, 12).map(lambda tenths: tenths / 10), st.just(1 / 3))
        )
        item = tick(
            time=time - back,
            price=price,
            size=draw(st.sampled_from([0.0, 0.1, 1.0, 7 / 3, 100.0])),
            aggressor=draw(st.sampled_from([None, None, None, Side.BUY, Side.SELL])),
        )
        events.append((clock, item, f"{draw(st.sampled_from('xyz'))}/{draw(st.integers(0, 2))}/{number - 3}"))
    return events


def body(state: SymbolState) -> bytes:
    """As the changelog keeps it."""
    return encode_body(CHANGELOG, state)


def expected(events: list[Event], plan: Plan) -> tuple[list[Bar], list[LateTick], SymbolState]:
    state, results = plain.step(SymbolState(), "A", events, plan)
    bars = [result for result in results if isinstance(result, Bar)]
    late = [result for result in results if isinstance(result, LateTick)]
    return bars, late, state


def thawed(state: SymbolState, plan: Plan) -> SymbolBars:
    """Through the real codec."""
    read = decode_body(CHANGELOG, body(state))
    assert isinstance(read, SymbolState)
    return SymbolBars.thaw(read, plan)


kinds = st.lists(st.sampled_from(KINDS), min_size=1, max_size=len(KINDS), unique=True)
lateness = st.sampled_from([0, SECOND, 3 * SECOND + 1])


@settings(deadline=None, max_examples=150)
@given(events=streams_of_events(), kinds=kinds, lateness_us=lateness)
def test_the_kernel_equals_its_twin(events: list[Event], kinds: list[str], lateness_us: int) -> None:
    assert_twins(events, Plan.of(kinds, lateness_us, 7))


changes = st.lists(st.tuples(st.integers(-4, 40), kinds), max_size=3)


def changing(
    events: list[Event], first: list[str], later: list[tuple[int, list[str]]], lateness_us: int
) -> Plan:
    """Settings that change at half seconds from the first tick on."""
    begins = next((item.event_time for _, item, _ in events if item is not None), DAY0)
    versions = [Version(7, first)]
    for number, (halves, kinds) in enumerate(sorted(later, key=lambda each: each[0])):
        versions.append(Version(8 + number, kinds, begins + halves * SECOND // 2 + number))
    return Plan.of_versions(versions, lateness_us)


@settings(deadline=None, max_examples=150)
@given(events=streams_of_events(), first=kinds, later=changes, lateness_us=lateness)
def test_they_are_equal_under_settings_that_change(
    events: list[Event], first: list[str], later: list[tuple[int, list[str]]], lateness_us: int
) -> None:
    plan = changing(events, first, later, lateness_us)
    assert_twins(events, plan)
    for kind in plan.kinds:
        assert_windows_are_of_their_settings(events, kind, plan)


def assert_windows_are_of_their_settings(events: list[Event], kind: str, plan: Plan) -> None:
    """Every bar of time is of a kind that the settings at its start name, and names them."""
    if not kind.startswith("time:"):
        return
    for bar in expected(events, plan)[0]:
        if bar.kind == kind:
            version = max(place for place, begins in enumerate(plan.begins) if begins <= bar.start)
            assert plan.active[version, plan.numbers[kind]]
            assert bar.settings == plan.settings[version]


def assert_twins(events: list[Event], plan: Plan) -> None:
    bars = SymbolBars.thaw(SymbolState(), plan)
    closed, late = run(bars, events, plan, Outbox())
    want_closed, want_late, want_state = expected(events, plan)
    assert exact(closed) == exact(want_closed)
    assert late == want_late
    assert exact(frozen(bars, plan)) == exact(want_state)
    assert bars.next_end == min(
        (bar.end for bar in want_state.open_bars if bar.kind.startswith("time:")), default=FOREVER
    )


@settings(deadline=None, max_examples=150)
@given(
    events=streams_of_events(),
    kinds=kinds,
    later=changes,
    lateness_us=lateness,
    cuts=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=6),
)
def test_a_run_may_be_cut_anywhere(
    events: list[Event],
    kinds: list[str],
    later: list[tuple[int, list[str]]],
    lateness_us: int,
    cuts: list[tuple[int, bool]],
) -> None:
    plan = changing(events, kinds, later, lateness_us)
    bars = SymbolBars.thaw(SymbolState(), plan)
    whole = run(bars, events, plan, Outbox())
    state = body(frozen(bars, plan))

    pieces, out = SymbolBars.thaw(SymbolState(), plan), Outbox()
    closed, late, begin = list[Bar](), list[LateTick](), 0
    for end, restart in [*sorted(cuts), (len(events), True)]:
        some_closed, some_late = run(pieces, events[begin:end], plan, out)
        closed += some_closed
        late += some_late
        begin = max(begin, end)
        if restart:
            pieces = thawed(frozen(pieces, plan), plan)
    assert exact(closed) == exact(whole[0])
    assert late == whole[1]
    assert body(frozen(pieces, plan)) == state


@settings(deadline=None, max_examples=50)
@given(events=streams_of_events(), kinds=kinds, lateness_us=lateness)
def test_arrays_that_are_too_short_are_lengthened_in_the_middle(
    events: list[Event], kinds: list[str], lateness_us: int
) -> None:
    plan = Plan.of(kinds, lateness_us, 7)
    cramped, out = SymbolBars.thaw(SymbolState(), plan), Outbox()
    cramped.rows = cramped.rows[: len(kinds)].copy()
    out.bar_rows, out.late_rows = out.bar_rows[:0].copy(), out.late_rows[:0].copy()
    closed, late = run(cramped, events, plan, out)
    want_closed, want_late, want_state = expected(events, plan)
    assert exact(closed) == exact(want_closed)
    assert late == want_late
    assert exact(frozen(cramped, plan)) == exact(want_state)
