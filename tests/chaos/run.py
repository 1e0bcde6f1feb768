"""One seeded run of chaos over a simulated session."""

from __future__ import annotations

import functools
import random
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from connectors.simulator import Simulation, SimulatorSettings
from headrace import compare, topics
from headrace.compare import Results
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints, StackSettings
from schemas.states import POSITION_KEY, SourcePosition
from schemas.topics import physical
from tests import database
from tests.chaos.faults import FAULTS, Field
from tests.pipeline import DEADLINE_S, KafkaRun, inline

RATE = 2_500
"""Ticks a second: the session takes long enough to be disturbed."""
STRATEGIES = [{"name": "momentum", "uses": "momentum"}, {"name": "reversion", "uses": "reversion"}]

FITS = {"every": "30m", "lag": "2m", "minimum": 30, "window": 200, "regimes": 3, "waits": True}
"""Of one of two universes, so that both kinds run."""


class Done(NamedTuple):
    """How a run ended: ``wrong`` is empty where all is equal."""

    seed: int
    ticks: int
    seconds: float
    struck: tuple[str, ...]
    restarts: int
    copies: int
    wrong: tuple[str, ...]


class Session(NamedTuple):
    """The session of a run, and what it gives undisturbed."""

    simulated: SimulatorSettings
    pipeline: PipelineSettings
    ticks: int
    oracle: Results


@functools.cache
def session(ticks: int) -> Session:
    """A simulated session of about so many ticks: bars with running state, two universes, models fitted to one."""
    plain = SimulatorSettings(seed=3, ticks_per_minute=30.0)
    minutes = max(30, round(ticks / (plain.ticks_per_minute * len(plain.symbols))))
    simulated = plain.model_copy(update={"minutes": minutes})
    half = len(simulated.symbols) // 2
    pipeline = PipelineSettings.model_validate(
        {
            "market": {
                "sources": [{"name": "simulator"}],
                "bars": ["1s", "1m", "tick:100", "renko:0.5", "dollar-imbalance:100"],
            },
            "universes": [
                {"name": "north", "symbols": simulated.symbols[:half], "fits": FITS},
                {"name": "south", "symbols": simulated.symbols[half:]},
            ],
            "portfolios": [
                {"name": "alpha", "universe": "north", "strategies": STRATEGIES},
                {"name": "value", "universe": "south", "strategies": STRATEGIES},
            ],
        }
    )
    messages = list(Simulation(simulated).messages())
    count = sum(message.record is not None for message in messages)
    return Session(simulated, pipeline, count, inline(pipeline, messages, run_records=20_000))


def drawn(rng: random.Random, count: int) -> list[str]:
    """Names of faults: each once before any comes again."""
    names: list[str] = []
    while len(names) < count:
        names += rng.sample(list(FAULTS), len(FAULTS))
    return names[:count]


def chaos(
    stack: StackSettings,
    found: Endpoints,
    folder: Path,
    seed: int,
    *,
    ticks: int,
    faults: int | Sequence[str],
    breach: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Done:
    """Run a session of ``ticks``, let ``faults`` (their names, or how many) strike, and compare.

    ``breach`` breaks the workers on purpose (`tests.chaos.breaches`).
    """
    rng = random.Random(seed)
    own = session(ticks)
    names = drawn(rng, faults) if isinstance(faults, int) else list(faults)
    places = sorted(rng.uniform(0.05, 0.9) for _ in names)
    began_s = time.monotonic()
    namespace = f"chaos{seed}-{uuid.uuid4().hex[:6]}"
    struck = []
    with KafkaRun(
        found, namespace, own.pipeline, folder / namespace, processes=2, simulator=own.simulated
    ) as run:
        run.breach = breach
        run.is_patient = True
        run.start()
        run.wait_until_at_work()
        run.ingest("simulator", "--rate", str(RATE))
        field = Field(run, stack, rng)
        for name, place in zip(names, places, strict=True):
            reached = wait_for_ticks(run, int(place * own.ticks))
            told = f"{name} at {reached:,}: {FAULTS[name](field)}"
            tell(told)
            struck.append(told)
        wrong: list[str] = []
        try:
            run.wait_for_ingest()
            run.settle()
        except AssertionError as error:
            wrong.append(str(error))
        results = run.results()
        restarts = run.fleet_restarts()
        for agent in run.agents:
            wrong += went_back(run, agent)
    apart = compare.differences(own.oracle, results)
    wrong += [f"{each.topic} {each.key}: {each.what}" for each in apart]
    wrong += database.mismatches(found.database, namespace, own.oracle)
    topics.delete(found.kafka, namespace)
    seconds = time.monotonic() - began_s
    return Done(seed, own.ticks, seconds, tuple(struck), restarts, results.copies, tuple(wrong))


def went_back(run: KafkaRun, agent: str) -> list[str]:
    """Where a committed position is behind the one before it: whoever wrote that was no longer the owner.

    Looked for in itself, since the results seldom show it: the next commit of the owner hides it.
    """
    topic = f"{agent}.changelog"
    found: list[str] = []
    reached: dict[int, int] = {}
    for message in compare.messages(run.stack.kafka, physical(run.namespace, topic)):
        if message.key() != POSITION_KEY:
            continue
        position = run.codec.decode(topic, message.value())
        assert isinstance(position, SourcePosition)
        before = reached.get(position.partition, 0)
        if position.next_offset < before:
            found.append(f"{topic}[{position.partition}] went back from {before} to {position.next_offset}")
        reached[position.partition] = position.next_offset
    return found


def wait_for_ticks(run: KafkaRun, ticks: int) -> int:
    """Until so many records are in market.ticks, or the connector has ended; how many there are."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        run.fleet.check()
        reached = sum(run.end("market.ticks"))
        if reached >= ticks or run.fleet.status("ingest") is not None:
            return reached
        assert time.monotonic() < deadline, f"market.ticks stands at {reached} of {ticks}"
        time.sleep(0.1)
