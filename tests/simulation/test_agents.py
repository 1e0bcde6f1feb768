"""Each agent of the topology over a simulated Kafka: whoever stops when, the results are those of one undisturbed."""

from __future__ import annotations

import pytest

from streams.topology import agents
from tests.simulation.logs import reference
from tests.simulation.world import World

SEEDS = {"symbols": 120, "quotes": 60, "fitter": 8, "universes": 24, "portfolios": 16}
LOGS = 4
NOT_HERE = {"trade.orders"}
"""Orders for a real broker: none of the portfolios has an account."""


@pytest.mark.parametrize("name", SEEDS)
def test_an_agent_gives_the_same_however_often_it_is_stopped(name: str) -> None:
    worlds = [World(seed, reference(name, seed % LOGS)).run() for seed in range(SEEDS[name])]
    assert sum(world.stops for world in worlds) > 2 * SEEDS[name]
    assert sum(world.committed for world in worlds) > SEEDS[name]
    assert sum(world.aborted for world in worlds) > 0
    assert sum(world.fenced for world in worlds) > 0


def test_every_agent_is_tried_and_writes_to_all_its_topics() -> None:
    assert [agent.name for agent in agents()] == list(SEEDS)
    for agent in agents():
        written = {stream.topic for log in range(LOGS) for stream in reference(agent.name, log).outputs}
        assert written == set(agent.writes) - NOT_HERE
