"""History run again gives the same records: in other processes and runs, killed on the way, from a checkpoint."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import pytest

from connectors.simulator import SimulatorSettings
from headrace import compare, replay
from headrace.cli.diff import DIFFERENT
from headrace.compare import Results
from headrace.fleet import headrace_argv
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints
from schemas.codec import decode_body
from schemas.records import Replay
from tests import database, replays
from tests.conftest import REPO
from tests.pipeline import KafkaRun
from tests.replays import COMMANDS, asked, assert_equal, at, headrace

SIMULATED = SimulatorSettings(minutes=150, ticks_per_minute=18.0, seed=5)
HALFWAY = SIMULATED.start_us + 75 * 60_000_000
STRATEGIES = [{"name": "momentum", "uses": "momentum"}, {"name": "reversion", "uses": "reversion"}]


def pipeline() -> PipelineSettings:
    half = len(SIMULATED.symbols) // 2
    return PipelineSettings.model_validate(
        {
            "market": {
                "sources": [{"name": "simulator"}],
                "bars": ["1s", "1m", "tick:50", "tick-imbalance:50"],
                "lateness_ms": 500,
            },
            "universes": [
                {"name": "north", "symbols": SIMULATED.symbols[:half]},
                {"name": "south", "symbols": SIMULATED.symbols[half:]},
            ],
            "portfolios": [
                {"name": "alpha", "universe": "north", "strategies": STRATEGIES},
                {"name": "value", "universe": "south", "strategies": STRATEGIES},
            ],
        }
    )


@pytest.fixture(scope="module")
def live(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaRun]:
    name = f"t{time.time_ns():x}"[:13]
    run = KafkaRun(
        stack, name, pipeline(), tmp_path_factory.mktemp("live"), simulator=SIMULATED, with_sink=False
    )
    ticks = int(SIMULATED.minutes * SIMULATED.ticks_per_minute * len(SIMULATED.symbols))
    odd = ("simulator", SIMULATED.symbols[0], SIMULATED.start_us)
    yield from replays.session(run, ["simulator", "--rate", "6000"], ticks, odd)


def of(live: KafkaRun, name: str) -> str:
    """A name for a replay that no other test has."""
    return f"{live.namespace}-{name}"


@pytest.fixture(scope="module")
def was(live: KafkaRun) -> Results:
    """The results of the session."""
    return compare.read(live.stack.kafka, live.namespace)


def test_killed_and_continued_in_other_processes_it_is_equal(live: KafkaRun, was: Results) -> None:
    name = of(live, "again")
    arguments = ("replay", "--into", name, "--processes", "2", "--no-sink")
    replays.kill_at_work(live, name, arguments, run_records=137)
    assert not find(live, name).finished

    headrace(live, *arguments, run_records=137)
    assert_equal(live, name)
    again = compare.read(live.stack.kafka, name)
    assert again.sequences.keys() == was.sequences.keys()
    assert len(was.sequences["risk.alerts", "alpha"]) >= len(COMMANDS)
    assert was.count("market.ticks.late") == len(was.dead_letters) == len(COMMANDS)
    assert was.count("trade.positions") > 0
    the_order_is_as_the_documentation_says(live, name)


def the_order_is_as_the_documentation_says(live: KafkaRun, name: str) -> None:
    """docs/order.md: between keys of a partition it depends on the runs, within a key on nothing."""
    text = (REPO / "docs" / "order.md").read_text("utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    topics_of_both = [f"{namespace}.market.bars" for namespace in (live.namespace, name)]
    told = subprocess.run(
        [sys.executable, "-c", script, live.stack.kafka, *topics_of_both],
        capture_output=True,
        text=True,
        timeout=replays.DEADLINE_S,
        check=True,
    ).stdout
    lines = told.splitlines()
    assert [line.endswith("each key by itself: the same") for line in lines] == [True] * 4, told
    assert "another order, from record" in told


def test_from_a_checkpoint_into_the_database(live: KafkaRun, was: Results) -> None:
    """The checkpoint is of the middle; the replay goes on from it, and equals what came after it."""
    headrace(live, "checkpoint", "--at", at(HALFWAY))
    assert "checkpoint" in asked(live, "replay", "list").output
    name = of(live, "later")
    told = headrace(live, "replay", "--from", at(HALFWAY + 60_000_000), "--into", name)
    assert "from checkpoint" in told
    assert_equal(live, name)
    held = compare.read(live.stack.kafka, name)
    assert 0 < held.count("market.bars") < was.count("market.bars")
    assert held.count("trade.equity") > 0
    assert not database.mismatches(live.stack.database, name, held)

    assert "topics and its rows removed" in asked(live, "replay", "drop", name).output
    assert not database.mismatches(live.stack.database, name, compare.Results())
    listed = asked(live, "replay", "list")
    assert listed.exit_code == 0
    assert name not in listed.output


def test_a_stretch_with_another_strategy_has_the_same_market_and_other_trades(live: KafkaRun) -> None:
    name = of(live, "what-if")
    headrace(live, "replay", "--to", at(HALFWAY), "--into", name, "--no-sink", "--strategy", "reversion")
    told = asked(live, "diff", name, live.namespace)
    assert told.exit_code == DIFFERENT
    assert "with other settings" in " ".join(told.output.split())
    window = replay.covered(live.stack.kafka, live.namespace, find(live, name), live.codec)
    assert window.through == HALFWAY
    market = ("market.bars", "market.regimes", "market.correlations")
    part, whole = (compare.read(live.stack.kafka, each, market, window) for each in (name, live.namespace))
    assert not compare.differences(part, whole)
    assert part.count("market.bars") > 1_000
    assert [strategies(live, each, window) for each in (name, live.namespace)] == [set(), {"momentum"}]


def find(live: KafkaRun, name: str) -> Replay:
    return replay.find(live.stack.kafka, live.namespace, live.codec, name)


def strategies(live: KafkaRun, namespace: str, window: compare.Window) -> set[str]:
    """Who wanted something."""
    found = compare.read(live.stack.kafka, namespace, ["strategy.signals"], window).sequences
    bodies = [body for records in found.values() for body, _ in records.values()]
    return {msgspec.to_builtins(decode_body("strategy.signals", body))["strategy"] for body in bodies}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--into", "{live}"), "is a namespace already"),
        (("--into", "none", "--to", "1999-01-01"), "nothing to replay"),
        (("--into", "none", "--only", "market.quotes"), "only market.ticks"),
        (("--into", "none", "--to", "yesterday"), "is no time"),
        (("--into", "none", "--from-offset", "market.ticks"), "is no offset"),
        (("--into", "a b"), "say --into NAME"),
    ],
)
def test_what_cannot_be_is_refused(live: KafkaRun, arguments: tuple[str, ...], said: str) -> None:
    told = [each.format(live=live.namespace) for each in arguments]
    done = asked(live, "replay", *told)
    assert done.exit_code in (1, 2)
    assert said in " ".join(f"{done.output} {done.exception}".replace("│", " ").split())


def test_a_refusal_is_one_line(live: KafkaRun) -> None:
    """As any error of ours that reaches the command."""
    argv = headrace_argv("replay", "--into", live.namespace)
    environment = replays.environment(live, run_records=5_000)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {live.namespace} is a namespace already")
