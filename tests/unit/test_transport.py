"""The order in which fetched runs of several partitions are handed over, and how fetches wait."""

from __future__ import annotations

import itertools

from aiokafka.cluster import ClusterMetadata
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns import Packed
from streams.runtime.config import RuntimeConfig
from streams.runtime.runs import Run
from streams.runtime.transport import assignor_of, by_event_time, together


def run_of(begin: int, *times_ms: int) -> Run:
    records = [(begin + number, time_ms, b"S", b"", ()) for number, time_ms in enumerate(times_ms)]
    next_offset = begin + max(len(times_ms), 1)  # a run without records covers a marker
    return Run(begin, next_offset, Packed.of(records))


@given(
    st.lists(
        st.lists(st.lists(st.integers(1, 1_000), max_size=3).map(sorted), max_size=5), min_size=1, max_size=4
    )
)
def test_the_partition_with_the_lowest_event_time_goes_first(partitions: list[list[list[int]]]) -> None:
    fetched = {
        TP("t", number): [run_of(10 * place, *times) for place, times in enumerate(runs)]
        for number, runs in enumerate(partitions)
    }
    waiting = {tp: list(runs) for tp, runs in fetched.items()}
    for tp, run in by_event_time(fetched):
        heads = [runs[0].first_timestamp_ms for runs in waiting.values() if runs]
        assert run.first_timestamp_ms == min(heads)
        assert waiting[tp].pop(0) is run, "a partition's own order is kept"
    assert not any(waiting.values()), "none is left out"


def test_a_partition_that_is_behind_catches_up_before_the_others_go_on() -> None:
    ahead, behind = TP("t", 0), TP("t", 1)
    fetched = {
        ahead: [run_of(0, 500), run_of(1, 600)],
        behind: [run_of(0, 100), run_of(1, 200), run_of(2, 550)],
    }
    assert [tp.partition for tp, _ in by_event_time(fetched)] == [1, 1, 0, 1, 0]


def test_ticks_are_paced_and_inner_topics_answered_at_once() -> None:
    config = RuntimeConfig(bootstrap="", registry="", fetch_max_wait_ms=3, fetch_min_bytes=5_000)
    assert config.fetch_wait("market.ticks") == (3, 5_000)
    wait_ms, min_bytes = config.fetch_wait("universe.bars")
    assert min_bytes == 1, "the broker answers with the first record"
    assert wait_ms >= 50, "and an idle worker asks seldom"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=12))
def test_short_runs_go_together_and_none_is_lost_or_overtaken(sizes: list[tuple[int, int]]) -> None:
    most = 10
    runs = [
        (TP("t", partition), run_of(100 * place, *range(1, size + 1)))
        for place, (partition, size) in enumerate(sizes)
    ]
    messages = list(together(iter(runs), most))
    assert [run for _, message in messages for run in message] == [(tp.partition, run) for tp, run in runs]
    for tp, message in messages:
        assert message[0][0] == tp.partition
        assert len(message) == 1 or sum(len(run) for _, run in message) <= most
    for (_, message), (_, following) in itertools.pairwise(messages):
        assert sum(len(run) for _, run in message) + len(following[0][1]) > most


def test_all_partitions_are_assigned_whatever_the_client_has_heard_of_the_topic() -> None:
    """A broker that has just come back may know it no longer, or not yet; nobody would get anything, and stay so."""
    assignor = assignor_of("ns.market.ticks", 4)
    member = assignor.metadata(["ns.market.ticks"])
    found = assignor.assign(ClusterMetadata(), {"one": member, "two": member})
    told = {name: each.partitions() for name, each in found.items()}
    assert sorted(tp.partition for partitions in told.values() for tp in partitions) == [0, 1, 2, 3]
    assert {len(partitions) for partitions in told.values()} == {2}
    assert assignor.name == "roundrobin", "a group has builds with and without this while they are replaced"
