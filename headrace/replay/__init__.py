"""A replay: a stretch of the source topics run again by the same agents, under a namespace of its own.

    planning    from where to where, with which state, under which settings: a `schemas.records.Replay`
    catalogue   the plans, in the topic system.replays of the namespace that is replayed
    seeding     the new namespace as it must be before the first tick: topics, states, recorded commands
    running     the agents at work until each is at its end

A replay reads the source topics themselves and makes everything else anew. Its plan is written before anything else,
so one that was stopped goes on under the same plan. One that has ended holds, in its changelogs, the states of all
agents at one clock: that is what a checkpoint is, and what another replay may begin with.
"""

from headrace.replay.catalogue import drop, ends_of, find, known, remove_results, write
from headrace.replay.errors import ReplayError
from headrace.replay.planning import Wanted, checkpoint, clock, covered, describe, plan
from headrace.replay.running import Progress, run

__all__ = [
    "Progress",
    "ReplayError",
    "Wanted",
    "checkpoint",
    "clock",
    "covered",
    "describe",
    "drop",
    "ends_of",
    "find",
    "known",
    "plan",
    "remove_results",
    "run",
    "write",
]
