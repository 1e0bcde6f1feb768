"""When a commit begins: behind bursts of outputs, and never much later than it is due."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.runtime.pace import CUTTING_SHARE, IDLE_S, SETTLE_S, Pace

INTERVAL_S = 0.25


def begins(
    bursts_s: list[float], due_s: float, *, run_every_s: float = 0.01, pending_s: float = 0.01
) -> float:
    """When a commit that is due then begins. A burst of ten outputs is sent at each of ``bursts_s``."""

    def at(now_s: float) -> tuple[int, int, bool]:
        sent = [burst for burst in bursts_s if burst <= now_s]
        return 10 * len(sent), int(now_s / run_every_s), bool(sent) and now_s < sent[-1] + pending_s

    pace = Pace(INTERVAL_S)
    assert pace.is_due(due_s, *at(due_s)[:2])
    now_s = due_s + SETTLE_S
    while not pace.may_begin(now_s, *at(now_s)):
        now_s += SETTLE_S
    return now_s


@given(st.floats(0.0, 1.0))
def test_bursts_that_come_soon_are_waited_for(phase: float) -> None:
    bursts = [0.1 * number for number in range(60)]
    began = begins(bursts, 2.0 + phase)
    last = max(burst for burst in bursts if burst <= began)
    assert SETTLE_S - 1e-9 <= began - last <= 2 * SETTLE_S + 0.01 + 1e-9
    assert last >= 2.0 + phase


def test_outputs_that_are_not_acknowledged_yet_are_waited_for() -> None:
    assert begins([1.01], 1.0, pending_s=0.1) >= 1.11


@given(st.floats(0.0, 0.9))
def test_it_never_waits_longer_than_an_interval(phase: float) -> None:
    rare = begins([0.0, 10.0], 1.0 + phase)
    assert rare - (1.0 + phase) <= INTERVAL_S + SETTLE_S
    endless = begins([0.01 * number for number in range(1000)], 1.0 + phase)
    assert endless - (1.0 + phase) <= INTERVAL_S + SETTLE_S


def test_where_nothing_arrives_it_begins_soon() -> None:
    assert IDLE_S <= begins([0.5], 1.0, run_every_s=100.0) - 1.0 <= IDLE_S + 2 * SETTLE_S


@given(st.floats(0.0, 1.0))
def test_who_is_quiet_between_bursts_commits_behind_them_too(phase: float) -> None:
    bursts = [0.1 * number for number in range(60)]
    began = begins(bursts, 2.0 + phase, run_every_s=0.1)
    last = max(burst for burst in bursts if burst <= began)
    assert last >= 2.0 + phase
    assert began - last <= 2 * SETTLE_S + 0.01 + 1e-9


def test_large_cuts_make_commits_rare() -> None:
    pace = Pace(INTERVAL_S)
    pace.committed(1.0, 0.07)
    assert not pace.is_due(1.0 + 0.07 / CUTTING_SHARE - 0.01, 0, 0)
    assert pace.is_due(1.0 + 0.07 / CUTTING_SHARE, 0, 0)
