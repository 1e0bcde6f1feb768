"""Notices a partition that does not move though records wait for it, and ends the process.

A consumer under Faust can die without a word (faust-streaming#175, #523, #532, #640): it keeps its membership and its
partitions, and nothing happens any more. A process that ends is started again, and goes on where it last committed.

The watch is a thread of its own, so that it also sees an event loop that is blocked, and asks the broker itself how
far a partition reaches. While the broker does not answer nothing is a stall: then waiting is right.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import confluent_kafka as ck

log = logging.getLogger("headrace.stalls")

LOOKS = 6
"""In the time after which a partition counts as stalled."""
_ANSWER_S = 5.0


class Standing(NamedTuple):
    """How far a partition is applied and committed, and where it ends: all as next offsets."""

    applied: int
    committed: int
    end: int


class Stall(NamedTuple):
    """A partition that has not moved for ``seconds``."""

    partition: int
    standing: Standing
    seconds: float

    def __str__(self) -> str:
        applied, committed, end = self.standing
        if applied < end:
            why = "nothing was applied: fetching has stopped, or the event loop is blocked"
        else:
            why = "all is applied, but nothing was committed: outputs or transactions are not acknowledged"
        return (
            f"partition {self.partition} stands at {committed} of {end} for {self.seconds:.0f} s; {why}. "
            f"What every thread does stands above"
        )


class Stalls:
    """What has not moved for how long; free of clocks and I/O."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._seen: dict[int, tuple[Standing, float]] = {}

    def look(self, standings: Mapping[int, Standing], passed_s: float) -> Stall | None:
        """Take in where the owned partitions stand, ``passed_s`` after the last look; one that is stalled now."""
        before, self._seen = self._seen, {}
        for partition, standing in standings.items():
            held, seconds = before.get(partition, (None, 0.0))
            stands = held is not None and held.committed == standing.committed < held.end
            seconds = seconds + passed_s if stands else 0.0
            self._seen[partition] = standing, seconds
            if seconds >= self._limit_s:
                return Stall(partition, standing, seconds)
        return None

    def forget(self) -> None:
        """Begin anew: nobody could tell what waits."""
        self._seen = {}


class StallWatch:
    """Looks after the partitions of one worker, in a thread, until the process ends.

    ``owned`` answers how far each partition is applied and committed, and up to where it may go (None: to its end);
    ``stalled`` is called with the first stall, and does not return.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        limit_s: float,
        owned: Callable[[], Mapping[int, tuple[int, int, int | None]]],
        stalled: Callable[[Stall], None],
    ) -> None:
        self._topic = topic
        self._every_s = limit_s / LOOKS
        self._stalls = Stalls(limit_s)
        self._owned, self._stalled = owned, stalled
        self._reader = ck.Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "headrace-stalls"}, logger=log
        )
        threading.Thread(target=self._watch, name="stalls", daemon=True).start()

    def _watch(self) -> None:
        last_s = time.monotonic()
        while True:
            time.sleep(self._every_s)
            now_s = time.monotonic()
            # A process that was stopped, and wakes up, has not stood still by its own fault.
            passed_s, last_s = min(now_s - last_s, 2 * self._every_s), now_s
            try:
                standings = self._standings()
            except ck.KafkaException as error:
                log.debug("the broker does not answer: %s", error)
                self._stalls.forget()
                continue
            stall = self._stalls.look(standings, passed_s)
            if stall is not None:
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                self._stalled(stall)
                return

    def _standings(self) -> dict[int, Standing]:
        standings = {}
        for partition, (applied, committed, until) in self._owned().items():
            place = ck.TopicPartition(self._topic, partition)
            end = self._reader.get_watermark_offsets(place, timeout=_ANSWER_S)[1]
            standings[partition] = Standing(applied, committed, end if until is None else min(end, until))
        return standings
