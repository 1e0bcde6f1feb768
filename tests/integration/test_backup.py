"""A whole installation is backed up while ticks flow; that one goes on, and so does another machine from the backup."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.simulator import Simulation, SimulatorSettings
from headrace import compare, stack
from headrace.compare import Results
from headrace.fleet import headrace_argv
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints, StackSettings
from headrace.stack.settings import Memory
from tests import database
from tests.pipeline import KafkaRun, inline

SIMULATED = SimulatorSettings(minutes=60, ticks_per_minute=18.0, seed=19)
NAMESPACE = "kept"
SLOWLY = ("simulator", "--rate", "400")
"""The session is on its way for as long as the backup takes; afterwards the rest is sent at once."""
STRATEGIES = [{"name": "momentum", "uses": "momentum"}, {"name": "reversion", "uses": "reversion"}]


def pipeline() -> PipelineSettings:
    half = len(SIMULATED.symbols) // 2
    return PipelineSettings.model_validate(
        {
            "market": {"sources": [{"name": "simulator"}], "bars": ["1s", "10s", "1m", "tick:50"]},
            "universes": [
                {"name": "north", "symbols": SIMULATED.symbols[:half], "bar": "10s"},
                {"name": "south", "symbols": SIMULATED.symbols[half:], "bar": "10s"},
            ],
            "portfolios": [
                {"name": "alpha", "universe": "north", "strategies": STRATEGIES},
                {"name": "value", "universe": "south", "strategies": STRATEGIES},
            ],
        }
    )


class Machine:
    """A machine with a stack of its own, and the `headrace` command on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = StackSettings(data_dir=folder / "stack", memory=Memory(kafka_heap_mb=256))

    def headrace(self, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        environment["HEADRACE_STACK__DATA_DIR"] = str(self.settings.data_dir)
        environment["HEADRACE_STACK__MEMORY__KAFKA_HEAP_MB"] = "256"
        done = subprocess.run(
            headrace_argv(*arguments),
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def up(self) -> Endpoints:
        self.headrace("up")
        found = stack.endpoints(self.settings)
        assert found is not None
        return found

    def run(self, found: Endpoints) -> KafkaRun:
        return KafkaRun(
            found,
            NAMESPACE,
            pipeline(),
            self.folder / "run",
            simulator=SIMULATED,
            is_patient=True,
            data_dir=self.settings.data_dir,
        )


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    both = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        both.append(Machine(tmp_path / name))
    yield both[0], both[1]
    for machine in both:
        stack.down(machine.settings)


def until_records(run: KafkaRun, records: int) -> None:
    deadline = time.monotonic() + 120
    while sum(run.end("market.ticks")) < records:
        run.fleet.check()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def equal(run: KafkaRun, oracle: Results) -> None:
    run.wait_for_ingest()
    run.settle()
    found = compare.differences(oracle, run.results())
    assert not found, "\n".join(f"{d.topic} {d.key}: {d.what}" for d in found[:5])
    assert database.mismatches(run.stack.database, NAMESPACE, oracle) == []


def test_one_goes_on_where_it_was_and_another_where_the_backup_was_made(
    machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    here, there = machines
    messages = list(Simulation(SIMULATED).messages())
    oracle = inline(pipeline(), messages)
    assert oracle.count("trade.positions") > 0

    found = here.up()
    with here.run(found) as run:
        run.start(SLOWLY)
        until_records(run, len(messages) // 4)
        told = here.headrace("backup", str(tmp_path / "backups"))
        assert stack.endpoints(here.settings) == found, "the services came back elsewhere"
        assert run.fleet.status("ingest") is None, "all was sent before the backup was made"
        run.fleet.stop("ingest")
        run.ingest("simulator")
        equal(run, oracle)
        whole = sum(run.end("market.ticks"))
    stopped = re.search(r"(\S+)  .* the stack stood for [\d.]+ s", told)
    assert stopped is not None, told
    here.headrace("down")
    here.settings.data_dir.rename(tmp_path / "lost")

    there.headrace("restore", stopped[1])
    found = there.up()
    with there.run(found) as run:
        at, end = run.position("symbols"), run.end("market.ticks")
        assert min(at) > 0
        assert len(messages) // 4 <= sum(end) < whole
        run.start(["simulator"])
        equal(run, oracle)
        assert "goes on behind" in run.fleet.log("ingest").read_text()
