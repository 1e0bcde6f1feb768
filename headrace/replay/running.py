"""A replay at work: the agents as processes of their own, watched until each has come to its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import msgspec
from confluent_kafka.admin import AdminClient

from headrace.fleet import Fleet, sink_argv, worker_argv
from headrace.lags import AWAY, SINK, ends, sink_lag
from headrace.positions import Positions
from headrace.replay import catalogue, seeding
from headrace.replay.errors import ReplayError
from headrace.replay.planning import agents_of
from headrace.stack import Endpoints
from schemas.codec import Codec
from schemas.records import NEVER, Replay

log = logging.getLogger("headrace.replay")

_LOOK_EVERY_S = 0.3
_STALLED_S = 120.0


class Progress(NamedTuple):
    """Where a replay stands.

    ``records`` of ``total`` are read from the source topics; ``clock`` is the event time that they have come to
    (µs; NEVER at first), ``behind`` how many records each process that reads no source has still to do (None: it cannot
    be told at the moment).
    """

    records: int
    total: int
    clock: int
    behind: dict[str, int | None]


def run(
    found: Endpoints,
    source: str,
    replay: Replay,
    codec: Codec,
    folder: Path,
    *,
    processes: int = 1,
    with_sink: bool = True,
    report: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Run, or go on with, a replay of namespace ``source``; returns when all of it is done, and notes that it is.

    ``codec`` is that of ``source``; logs go into ``folder``. Stopped at any point, the next call goes on where it was.
    Raises `headrace.fleet.GaveUp` where a process keeps ending, `ReplayError` where nothing moves any more.
    """
    seeding.seed(found.kafka, source, replay, codec)
    environment = {
        "HEADRACE_NAMESPACE": replay.name,
        "HEADRACE_KAFKA__BOOTSTRAP": found.kafka,
        "HEADRACE_REGISTRY__URL": found.registry,
        "HEADRACE_DATABASE__URL": found.database,
    }
    agents = agents_of(replay)
    with ExitStack() as stack:
        watch = stack.enter_context(closing(_Watch(found, replay, codec, with_sink)))
        fleet = stack.enter_context(Fleet(folder, environment))
        for agent in agents:
            for number in range(1, processes + 1):
                instance = f"{agent.name}-{number}"
                fleet.start(instance, [*worker_argv(agent.name, instance), "--replay-of", source or "live"])
        if with_sink:
            fleet.start("sink", sink_argv("sink-1"))
        watch.until_done(fleet, report)
    catalogue.write(found.kafka, source, codec, msgspec.structs.replace(replay, finished=True))


class _Watch:
    """Asks where everything stands, upstream first.

    A position is committed after its outputs: where an agent is found at its end, all that it will ever write is there
    to be counted when the next one is asked.
    """

    def __init__(self, found: Endpoints, replay: Replay, codec: Codec, with_sink: bool) -> None:
        self._admin = AdminClient({"bootstrap.servers": found.kafka}, logger=log)
        self._database = found.database if with_sink else None
        self._name = replay.name
        self._ranges = {each.topic: each for each in replay.ranges}
        self._agents = [
            (agent.name, agent.source, Positions(found.kafka, replay.name, agent.name, codec))
            for agent in agents_of(replay)
        ]

    def until_done(self, fleet: Fleet, report: Callable[[Progress], None]) -> None:
        last, moved_s = None, time.monotonic()
        while True:
            fleet.check()
            progress = self._progress()
            report(progress)
            if progress.records == progress.total and set(progress.behind.values()) <= {0}:
                return
            if progress != last:
                last, moved_s = progress, time.monotonic()
            elif time.monotonic() - moved_s > _STALLED_S:
                raise ReplayError(f"nothing has moved for {_STALLED_S:.0f} s: {progress}; see the logs")
            time.sleep(_LOOK_EVERY_S)

    def _progress(self) -> Progress:
        records = total = 0
        clocks: list[int] = []
        behind: dict[str, int | None] = {}
        for name, source, positions in self._agents:
            reached = positions.read()
            own = self._ranges.get(source)
            if own is None:
                upto = ends(self._admin, self._name, [source]).values()
                behind[name] = sum(max(end - at, 0) for end, at in zip(upto, reached.offsets, strict=True))
                continue
            clocks.append(reached.clock)
            for at, begin, end in zip(reached.offsets, own.begins, own.ends, strict=True):
                total += end - begin
                records += max(min(at, end) - begin, 0)
        if self._database is not None:
            try:
                behind[SINK] = sink_lag(self._admin, self._database, self._name)
            except AWAY:
                behind[SINK] = None
        return Progress(records, total, min(clocks, default=NEVER), behind)

    def close(self) -> None:
        for *_, positions in self._agents:
            positions.close()
