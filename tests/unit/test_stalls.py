"""When a partition counts as stalled."""

from __future__ import annotations

from streams.runtime.stalls import Stall, Stalls, Standing

LIMIT_S, EVERY_S = 15.0, 2.5


def looks(*standings: dict[int, Standing]) -> Stall | None:
    stalls = Stalls(LIMIT_S)
    found = None
    for each in standings:
        found = found or stalls.look(each, EVERY_S)
    return found


def test_what_does_not_move_though_records_wait_is_stalled_after_the_limit() -> None:
    still = {0: Standing(5, 5, 9)}
    assert looks(*[still] * 6) is None
    stall = looks(*[still] * 7)
    assert stall == Stall(0, Standing(5, 5, 9), LIMIT_S)
    assert "stands at 5 of 9 for 15 s; nothing was applied" in str(stall)


def test_a_partition_that_is_applied_but_not_committed_is_stalled_and_says_so() -> None:
    stall = looks(*[{0: Standing(applied, 5, 9)} for applied in range(5, 10)], *[{0: Standing(9, 5, 9)}] * 3)
    assert stall is not None
    assert "not acknowledged" in str(stall)


def test_one_that_moves_or_has_nothing_to_do_is_not() -> None:
    assert looks(*[{0: Standing(n, n, 1000)} for n in range(30)]) is None
    assert looks(*[{0: Standing(9, 9, 9)}] * 30) is None


def test_records_that_have_just_come_have_not_waited() -> None:
    idle = {0: Standing(9, 9, 9)}
    assert looks(*[idle] * 30, *[{0: Standing(9, 9, 20)}] * 6) is None
    assert looks(*[idle] * 30, *[{0: Standing(9, 9, 20)}] * 7) is not None


def test_one_of_several_is_found_and_one_given_up_is_forgotten() -> None:
    both = [{0: Standing(n, n, 100), 1: Standing(3, 3, 8)} for n in range(7)]
    assert looks(*both) == Stall(1, Standing(3, 3, 8), LIMIT_S)
    assert looks(*both[:5], {0: Standing(5, 5, 100)}, *both[5:]) is None


def test_an_outage_of_the_broker_begins_anew() -> None:
    stalls, still = Stalls(LIMIT_S), {0: Standing(5, 5, 9)}
    for _ in range(3):
        for _ in range(6):
            assert stalls.look(still, EVERY_S) is None
        stalls.forget()
