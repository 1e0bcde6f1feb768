"""Many worlds, one after the other or in several processes, and what came of them."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.simulation.topology_world import NoRest, Parts, TopologyWorld
from tests.simulation.verdict import judge

REAL = Parts()
_CHUNK = 25


class Outcome(NamedTuple):
    """What came of one seed. ``found`` is empty where the promise was kept; the schedule is kept where it was not."""

    seed: int
    found: tuple[str, ...]
    schedule: tuple[str, ...]
    tally: Counter[str]


class Violation(NamedTuple):
    """The first world that broke the promise: how many were tried, and in how many seconds."""

    worlds: int
    seconds: float
    outcome: Outcome


def play(seed: int, parts: Parts = REAL, *, keeps_schedule: bool = False) -> Outcome:
    """One world from its beginning to its verdict. The same seed plays the same world."""
    world = TopologyWorld(seed, parts)
    try:
        found = judge(world.run())
    except NoRest as error:
        found = [str(error)]
    except Exception as error:  # whatever the code under test raises is found, too
        found = [f"{type(error).__name__}: {error}", traceback.format_exc(limit=-3)]
    world.tally.update(worlds=1, steps=len(world.schedule), repeats=world.database.repeats)
    schedule = tuple(world.schedule) if found or keeps_schedule else ()
    return Outcome(seed, tuple(found), schedule, world.tally)


def _play_some(seeds: Sequence[int]) -> list[Outcome]:
    return [play(seed) for seed in seeds]


def played(first_seed: int, worlds: int, processes: int) -> Iterator[Outcome]:
    """The outcomes of so many seeds, as they come."""
    if processes == 1:
        yield from map(play, range(first_seed, first_seed + worlds))
        return
    end = first_seed + worlds
    chunks = [range(seed, min(seed + _CHUNK, end)) for seed in range(first_seed, end, _CHUNK)]
    with multiprocessing.get_context("forkserver").Pool(processes) as pool:
        for outcomes in pool.imap_unordered(_play_some, chunks):
            yield from outcomes


def first_violation(parts: Parts, most: int, first_seed: int = 0) -> Violation | None:
    """Play worlds of ``parts`` until one breaks the promise; None where ``most`` did not."""
    begin = time.perf_counter()
    for worlds in range(1, most + 1):
        outcome = play(first_seed + worlds - 1, parts)
        if outcome.found:
            return Violation(worlds, time.perf_counter() - begin, outcome)
    return None
