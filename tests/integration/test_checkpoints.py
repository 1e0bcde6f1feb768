"""`headrace checkpoint --every` stores states while ticks flow; a replay that begins with the last is equal."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from connectors.simulator import SimulatorSettings
from headrace import replay
from headrace.fleet import headrace_argv
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints
from tests import replays
from tests.pipeline import KafkaRun

SIMULATED = SimulatorSettings(minutes=60, ticks_per_minute=18.0, seed=43)
RATE = 250
"""Of ticks a second: two checkpoints are made while they flow."""


def pipeline() -> PipelineSettings:
    return PipelineSettings.model_validate(
        {
            "market": {"sources": [{"name": "simulator"}], "bars": ["1s", "1m", "tick:50"]},
            "universes": [{"name": "all", "symbols": SIMULATED.symbols, "bar": "1m"}],
            "portfolios": [
                {
                    "name": "alpha",
                    "universe": "all",
                    "strategies": [{"name": "momentum", "uses": "momentum"}],
                }
            ],
        }
    )


def test_by_schedule_until_it_is_stopped(stack: Endpoints, namespace: str, tmp_path: Path) -> None:
    run = KafkaRun(stack, namespace, pipeline(), tmp_path, simulator=SIMULATED, with_sink=False)
    with run:
        run.start(["simulator", "--rate", str(RATE)])
        run.wait_until_at_work()
        command = subprocess.Popen(
            headrace_argv("checkpoint", "--every", "0.1"),
            env=replays.environment(run, run_records=5_000),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + 120
        while len(made := clocks(run)) < 2:
            assert command.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert run.fleet.status("ingest") is None, "all was sent before the second checkpoint was there"
        run.fleet.stop("ingest")  # what was sent is enough
        command.send_signal(signal.SIGINT)
        told, _ = command.communicate(timeout=60)
        assert command.returncode != 0
        assert "Traceback" not in told
        assert f"from checkpoint {namespace}" in told, "the second is made from the first"
        run.settle()

    name = f"{namespace}-later"
    told = replays.headrace(
        run, "replay", "--from", replays.at(made[1] + 60_000_000), "--into", name, "--no-sink"
    )
    assert "from checkpoint" in told
    replays.assert_equal(run, name)


def clocks(run: KafkaRun) -> list[int]:
    """Of the checkpoints that are whole (µs), oldest first."""
    there = replay.known(run.stack.kafka, run.namespace, run.codec).values()
    return [each.data_through for each in there if each.is_checkpoint and each.finished]
