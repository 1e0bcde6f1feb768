"""The whole topology over a simulated Kafka: rule 11 holds, whatever is killed when; and what breaks it is found."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from schemas.partitioner import partition_of
from schemas.records import Reason
from schemas.topics import TOPICS
from tests.simulation.breaches import (
    BREACHES,
    ClosesTwice,
    CommitsBeforeAcknowledgement,
    NamesOrdersItself,
    NobodyIsFenced,
    OffsetsBeforeRows,
    PositionWithoutState,
    SkipsTheNames,
)
from tests.simulation.feeds import KINDS, SCRIPTS, SYMBOLS, script
from tests.simulation.topology_world import Parts
from tests.simulation.verdict import of_script
from tests.simulation.worlds import Outcome, first_violation, play, played

WORLDS = 1000
FOUND_WITHIN = 150
"""Worlds within which each breach must be found; `python -m tests.simulation --breaches` says when each is."""
REPO = Path(__file__).parents[2]


def test_a_thousand_worlds_keep_the_promise() -> None:
    tally: Counter[str] = Counter()
    for outcome in played(0, WORLDS, processes=1):
        assert not outcome.found, f"seed {outcome.seed}: {outcome.found[0]}\n" + "\n".join(outcome.schedule)
        tally.update(outcome.tally)
    assert tally["worlds"] == WORLDS
    seen = ("kills", "stops", "commits", "aborts", "fenced", "faults", "resumed feeds", "repeats")
    takeovers = tuple(f"takeovers {agent}" for agent in Parts().agents)
    assert {what for what in (*seen, *takeovers) if tally[what] < WORLDS // 20} == set()


@functools.cache
def found_in(broken: type) -> Outcome:
    """The first world in which a breach is found."""
    violation = first_violation(BREACHES[broken], FOUND_WITHIN)
    assert violation is not None
    return violation.outcome


@pytest.mark.parametrize("broken", BREACHES, ids=lambda broken: broken.__name__)
def test_a_breach_is_found_out(broken: type) -> None:
    assert found_in(broken).schedule


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (PositionWithoutState, "a state after 0 records at offset"),
        (NobodyIsFenced, "position"),
        (CommitsBeforeAcknowledgement, "records, first difference at"),
        (ClosesTwice, "a differing copy of"),
        (SkipsTheNames, "ticks counted, of"),
        (OffsetsBeforeRows, "the sink's rows of"),
        (NamesOrdersItself, "doubled at the broker"),
    ],
)
def test_every_check_finds_something(broken: type, said: str) -> None:
    outcomes = (play(seed, BREACHES[broken]) for seed in range(FOUND_WITHIN))
    assert any(said in what for outcome in outcomes for what in outcome.found)


def test_a_seed_replays_exactly() -> None:
    """In another process, too, where sets of strings have another order."""
    outcome = found_in(CommitsBeforeAcknowledgement)
    assert play(outcome.seed, BREACHES[CommitsBeforeAcknowledgement]) == outcome

    told = [_elsewhere(outcome.seed, hash_seed) for hash_seed in ("1", "2")]
    assert told[0] == told[1]
    assert f"1 worlds of the seeds {outcome.seed} to" in told[0]
    assert len(re.findall(r"^ *\d+ ", told[0], re.MULTILINE)) > 60


def _elsewhere(seed: int, hash_seed: str) -> str:
    """What the command says of a world in a process of its own; without the time that it took."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", str(seed), "--worlds", "1", "--schedule"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    return re.sub(r"in [\d.,]+ s: [\d.,]+ worlds/s", "", done.stdout)


def test_the_scripts_hold_what_worlds_are_to_be_tried_with() -> None:
    """Every kind of bar, late and refused ticks, orders that fill, one partition with two symbols and one with none."""
    results = [of_script(number) for number in range(SCRIPTS) if not script(number).is_open]
    counts = {
        topic: sum(each.count(topic) for each in results)
        for topic in {t for each in results for t, _ in each.sequences}
    }
    assert counts.keys() >= {
        "market.bars",
        "market.regimes",
        "market.ticks.late",
        "market.correlations",
        "portfolio.events",
        "strategy.signals",
        "trade.executions",
        "trade.positions",
        "trade.equity",
        "risk.metrics",
        "risk.alerts",
    }
    assert min(counts.values()) >= SCRIPTS // 2
    bars = {
        name[1]
        for each in results
        for (topic, _), held in each.sequences.items()
        if topic == "market.bars"
        for name in held
    }
    assert bars == {*KINDS, "tick:2", "time:2s"}
    assert {letter[2] for each in results for letter in each.dead_letters} == {
        Reason.BAD_PRICE,
        Reason.AHEAD_OF_CLOCK,
        Reason.UNDECLARED_SOURCE,
        Reason.LATE,
    }
    assert sum("quotes" in script(number).agents for number in range(SCRIPTS)) == 4
    partitions = Counter(partition_of(symbol, TOPICS["market.ticks"].partitions) for symbol in SYMBOLS)
    assert sorted(partitions.values()) == [1, 1, 2]
    assert sum(script(number).is_open for number in range(SCRIPTS)) == 2
