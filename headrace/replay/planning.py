"""From where to where a replay goes, with which state it begins, and under which settings it runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import confluent_kafka as ck
import msgspec
from confluent_kafka.admin import AdminClient, OffsetSpec

from headrace import compare, history, moments
from headrace.positions import Positions
from headrace.replay.errors import ReplayError
from schemas.codec import Codec
from schemas.records import NEVER, Replay, ReplayRange, ReplayStart, Settings
from schemas.topics import TOPICS, physical
from streams.agent import Agent
from streams.topology import needed

TIMEOUT_S = 30.0
CLOCK_STEP_US = 1_000_000
"""Clocks come at least so often while there are ticks: the one that closes a window may be so far behind its end."""
_CATCH_UP_S = 30.0
Offsets = Mapping[tuple[str, int], int]
"""By source topic and partition."""


class Wanted(NamedTuple):
    """What a replay was asked to be; times in µs, None where they were left out.

    ``settings`` are others than those recorded. ``cold`` begins ``warm_up_us`` before ``from_us`` with no state.
    ``only``: this source topic alone. ``begins`` and ``ends`` come before the times, for the partitions they name.
    """

    name: str
    from_us: int | None = None
    to_us: int | None = None
    settings: Settings | None = None
    cold: bool = False
    warm_up_us: int = 0
    only: str | None = None
    begins: Offsets = MappingProxyType({})
    ends: Offsets = MappingProxyType({})


def plan(
    bootstrap: str, namespace: str, recorded: Sequence[Settings], wanted: Wanted, replays: Iterable[Replay]
) -> Replay:
    """The plan of a replay of ``namespace``, whose settings are ``recorded``, oldest first; ``replays`` are its others.

    It begins with the last checkpoint before ``from_us`` (any one ended replay of the same settings is one), or at
    the beginning, or cold. It ends a little behind ``to_us``, where the clock that closes what ends by then is in.
    Raises `ReplayError`.
    """
    settings, *later = _settings(recorded, wanted)
    sources = [agent.source for agent in needed(settings) if TOPICS[agent.source].role == "source"]
    log = _Log(bootstrap, namespace)
    lows, highs = log.offsets(sources, OffsetSpec.earliest()), log.offsets(sources, OffsetSpec.latest())
    ends = dict(highs)
    if wanted.to_us is not None:
        ends = log.behind(highs, wanted.to_us + _reach_us(settings))
    ends.update(wanted.ends)

    changed = [settings, *later] != list(recorded)
    # Any record may lie between two offsets of a partition, so only at a clock of all is there a state to begin with.
    checkpoint = None if wanted.cold or wanted.begins or changed else _nearest(replays, wanted.from_us, ends)
    if wanted.cold or wanted.begins:
        start, data_from = ReplayStart.COLD, NEVER if wanted.from_us is None else wanted.from_us
        warm_from = NEVER if wanted.from_us is None else wanted.from_us - wanted.warm_up_us
        begins = {**log.behind(highs, warm_from - 1), **wanted.begins}
    elif checkpoint is not None:
        # It had read a little further, and may have closed bars there.
        start, data_from = ReplayStart.CHECKPOINT, (checkpoint.data_through or NEVER) + _reach_us(settings)
        begins = {(r.topic, number): end for r in checkpoint.ranges for number, end in enumerate(r.ends)}
    else:
        start, data_from, begins = ReplayStart.BEGINNING, NEVER, dict(lows)
        trimmed = [f"{topic}[{number}] begins at {low}" for (topic, number), low in lows.items() if low]
        if trimmed:
            raise ReplayError(f"{', '.join(trimmed)}: what lay before is gone; say --cold, and from when")
    # The settings lie first in every partition; the replay has its own.
    begins = {place: max(offset, lows[place], 1) for place, offset in begins.items()}
    unknown = {*wanted.begins, *wanted.ends} - lows.keys()
    if unknown:
        raise ReplayError(f"the replay reads no {', '.join(f'{t}[{p}]' for t, p in sorted(unknown))}")
    ends = {place: min(end, highs[place]) for place, end in ends.items()}
    behind = [f"{t}[{p}]" for (t, p), end in ends.items() if begins[t, p] > end]
    if behind or not sum(ends[place] - begins[place] for place in ends):
        where = f" in {', '.join(behind)}" if behind else ""
        raise ReplayError(f"there is nothing to replay{where}: it would end where it begins, or before")
    return Replay(
        name=wanted.name,
        ranges=tuple(
            ReplayRange(topic=topic, begins=_of(begins, topic), ends=_of(ends, topic)) for topic in sources
        ),
        start=start,
        checkpoint=None if checkpoint is None else checkpoint.name,
        data_from=data_from,
        data_through=wanted.to_us,
        settings=settings,
        changed=changed,
        created_at=time.time_ns() // 1000,
        later=tuple(later),
    )


def agents_of(replay: Replay) -> tuple[Agent[Any, Any], ...]:
    """The agents that a replay runs.

    The fitter is none of them where nothing was changed: the recorded fits are used. With other settings models are
    fitted anew, and snapshots wait for them.
    """
    return tuple(agent for agent in needed(replay.settings) if replay.changed or agent.name != "fitter")


def _reach_us(settings: Settings) -> int:
    """How far behind a time a replay reads that goes up to it."""
    return settings.lateness_us + CLOCK_STEP_US


def checkpoint_clock(replay: Replay) -> int:
    """The clock (µs) of the checkpoint that a replay begins with; NEVER without one."""
    return NEVER if replay.checkpoint is None else replay.data_from - _reach_us(replay.settings)


def _settings(recorded: Sequence[Settings], wanted: Wanted) -> list[Settings]:
    """All versions; other settings hold for all of the time, and none that the ticks bring replaces them."""
    told = list(recorded)
    if wanted.settings is not None:
        version = max(wanted.settings.version, recorded[-1].version)
        told = [msgspec.structs.replace(wanted.settings, version=version, effective_from=NEVER)]
        if len(recorded) == 1 and history.is_same(recorded[0], wanted.settings):
            told = list(recorded)
    if wanted.only == "market.ticks":
        return [msgspec.structs.replace(each, quote_sources=(), quote_partitions=0) for each in told]
    if wanted.only is not None:
        raise ReplayError(
            f"only market.ticks can be replayed alone: nothing is made of {wanted.only} by itself"
        )
    return told


def _nearest(replays: Iterable[Replay], from_us: int | None, ends: Offsets) -> Replay | None:
    """The ended replay that goes furthest of those that end at a clock at or before ``from_us``."""
    if from_us is None:
        return None
    fit = [
        each
        for each in replays
        if each.finished
        and each.start is not ReplayStart.COLD
        and not each.changed
        and each.data_through is not None
        and each.data_through <= from_us
        and all(ends.get((r.topic, n), -1) >= end for r in each.ranges for n, end in enumerate(r.ends))
    ]
    return max(fit, key=lambda each: each.data_through or NEVER, default=None)


def _of(offsets: Offsets, topic: str) -> tuple[int, ...]:
    return tuple(offsets[topic, number] for number in range(TOPICS[topic].partitions))


class _Log:
    """The source topics of a namespace, by offset and by time."""

    def __init__(self, bootstrap: str, namespace: str) -> None:
        self._namespace = namespace
        self._admin = AdminClient({"bootstrap.servers": bootstrap})

    def offsets(self, topics: Iterable[str], spec: OffsetSpec) -> dict[tuple[str, int], int]:
        """What ``spec`` asks for, of every partition; -1 where there is no record at or after a time."""
        asked = {(topic, number): spec for topic in topics for number in range(TOPICS[topic].partitions)}
        request = {
            ck.TopicPartition(physical(self._namespace, topic), number): each
            for (topic, number), each in asked.items()
        }
        futures = self._admin.list_offsets(request, request_timeout=TIMEOUT_S)
        return {place: future.result().offset for place, future in zip(asked, futures.values(), strict=True)}

    def behind(self, highs: Offsets, time_us: int) -> dict[tuple[str, int], int]:
        """Of every partition, the first offset stamped after a time; its end where there is none."""
        after = OffsetSpec.for_timestamp(max(time_us // 1000 + 1, 0))
        found = self.offsets(dict.fromkeys(topic for topic, _ in highs), after)
        return {place: high if found[place] < 0 else found[place] for place, high in highs.items()}


def clock(bootstrap: str, namespace: str, recorded: Settings, codec: Codec) -> int:
    """An event time (µs) through which every agent of a namespace has done its work.

    Waits until the agents downstream have done what was written by then: afterwards no command can take hold before
    that time. Raises `ReplayError` where one does not get there.
    """
    log = _Log(bootstrap, namespace)
    clocks = []
    deadline_s = time.monotonic() + _CATCH_UP_S
    for agent in needed(recorded):
        is_inner = TOPICS[agent.source].role != "source"
        upto = list(log.offsets([agent.source], OffsetSpec.latest()).values()) if is_inner else []
        with closing(Positions(bootstrap, namespace, agent.name, codec)) as positions:
            reached = positions.read()
            while any(at < end for at, end in zip(reached.offsets, upto, strict=False)):
                if time.monotonic() > deadline_s:
                    raise ReplayError(
                        f"{agent.name} is behind: is its worker up? Or say --at, for a time past"
                    )
                reached = positions.read()
        if not is_inner:
            clocks.append(reached.clock)
    if NEVER in clocks:
        raise ReplayError("no clock has struck yet: there is nothing to store")
    return min(clocks) - recorded.lateness_us


def checkpoint(
    bootstrap: str, namespace: str, recorded: Sequence[Settings], clock: int, replays: Iterable[Replay]
) -> Replay:
    """The plan of a replay that is made for its last state, at ``clock`` (µs)."""
    stamp = datetime.fromtimestamp(clock / 1e6, UTC).strftime("%Y%m%d-%H%M%S")
    wanted = Wanted(name=f"{(namespace or 'live')[:16]}-at-{stamp}", from_us=clock, to_us=clock)
    planned = plan(bootstrap, namespace, recorded, wanted, replays)
    return msgspec.structs.replace(planned, is_checkpoint=True)


def covered(bootstrap: str, namespace: str, replay: Replay, codec: Codec) -> compare.Window:
    """What a replay of ``namespace`` can be held to.

    One that goes to the end covers all, unless the source topics have grown since it was planned. Otherwise it is what
    was closed by the clock that it has come to: in a silence, the one that closes the last windows may be hours away.
    """
    highs = _Log(bootstrap, namespace).offsets([each.topic for each in replay.ranges], OffsetSpec.latest())
    is_to_the_end = all(
        highs[each.topic, number] == end for each in replay.ranges for number, end in enumerate(each.ends)
    )
    if is_to_the_end:
        return compare.Window(replay.data_from, None)
    with closing(Positions(bootstrap, replay.name, "symbols", codec)) as positions:
        closed = positions.read().clock - replay.settings.lateness_us
    through = closed if replay.data_through is None else min(closed, replay.data_through)
    return compare.Window(replay.data_from, through)


def describe(replay: Replay) -> str:
    """In words: how it begins, what it covers, and whether it could be equal at all."""
    begins = {
        ReplayStart.BEGINNING: "from the beginning",
        ReplayStart.CHECKPOINT: f"from checkpoint {replay.checkpoint}",
        ReplayStart.COLD: "cold",
    }[replay.start]
    if replay.data_from != NEVER:
        begins += f", after {moments.shown(replay.data_from)}"
    through = "to the end" if replay.data_through is None else f"through {moments.shown(replay.data_through)}"
    records = sum(end - begin for r in replay.ranges for begin, end in zip(r.begins, r.ends, strict=True))
    changed = ", with other settings" if replay.changed else ""
    return f"{begins}, {through}, {records:,} records{changed}"
