"""Two processes of each agent are replaced one by one by those of the next version, and back, while ticks flow."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from connectors.simulator import Simulation, SimulatorSettings
from headrace import compare
from headrace.compare import FRAME_BYTES
from headrace.fleet import headrace_argv
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints
from schemas.topics import SYMBOL_PARTITIONS
from streams.runtime import registry
from tests import builds, database
from tests.integration.kafka_log import Log
from tests.pipeline import KafkaRun, inline

SIMULATED = SimulatorSettings(minutes=60, ticks_per_minute=30.0, seed=31)
SLOWLY = ("simulator", "--rate", "200")
"""The session is on its way for as long as processes are replaced; afterwards the rest is sent at once."""
ORDER = ("sink", "portfolios", "universes", "symbols")
"""Who reads before who writes (docs/maintenance.md)."""
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


def compile_kernels(build: Path) -> None:
    """As docs/maintenance.md has it: in its first worker, the compiler would take up to a minute beside all others."""
    argv = headrace_argv("backtest", "--simulate", "--minutes", "1")
    environment = {**os.environ, "PYTHONPATH": str(build)}
    subprocess.run(argv, check=True, capture_output=True, env=environment, cwd=build)


def replace(run: KafkaRun, name: str, build: Path | None) -> None:
    """End a process as an operator does, and start it again with ``build``; returns when it is at work."""
    log = run.fleet.log(name)
    said = log.read_text().count("owns partitions")
    run.fleet.stop(name)
    assert run.fleet.status(name) == 0, f"{name} did not end by itself; its log is {log}"
    run.build = build
    if name == "sink":
        run.start_sink()
        return
    run.join(name.rpartition("-")[0], name)
    deadline = time.monotonic() + 60
    while log.read_text().count("owns partitions") == said:
        run.fleet.check()
        assert time.monotonic() < deadline, f"{name} is not at work again; its log is {log}"
        time.sleep(0.05)


def test_the_next_version_takes_over_process_by_process_and_gives_back(
    stack: Endpoints, namespace: str, log: Log, tmp_path: Path
) -> None:
    build = builds.next_version(tmp_path / "build")
    compile_kernels(build)
    messages = list(Simulation(SIMULATED).messages())
    oracle = inline(pipeline(), messages)
    assert oracle.count("trade.positions") > 0

    with KafkaRun(
        stack, namespace, pipeline(), tmp_path, processes=2, simulator=SIMULATED, is_patient=True
    ) as run:
        run.start(SLOWLY)
        run.wait_until_at_work()
        names = [name for agent in ORDER for name in run.fleet.names() if name.startswith(agent)]
        for name in names:
            replace(run, name, build)
        upgraded_at = sum(run.end("market.ticks"))
        for name in reversed(names):
            replace(run, name, None)
        assert run.fleet.status("ingest") is None, "all was sent before the last process was replaced"
        run.fleet.stop("ingest")
        run.ingest("simulator")
        run.wait_for_ingest()
        run.settle()
        found = compare.differences(oracle, run.results())
        assert not found, "\n".join(f"{each.topic} {each.key}: {each.what}" for each in found[:5])
        assert database.mismatches(stack.database, namespace, oracle) == []
        assert 0 < upgraded_at < sum(run.end("market.ticks"))
    written = [by_the_next(log, stack, partition) for partition in range(SYMBOL_PARTITIONS)]
    assert any(True in each for each in written), "the next version has written no state"
    assert any(False in each[each.index(True) :] for each in written if True in each), (
        "nor the older one after it"
    )


def by_the_next(log: Log, stack: Endpoints, partition: int) -> list[bool]:
    """Of each state in a changelog of `symbols`, whether its writer's schema has the next version's field."""
    client = registry.connect(stack.registry)
    raws = [item.raw for item in log.read("symbols.changelog", partition).records if item.raw is not None]
    ids = [int.from_bytes(raw[1:FRAME_BYTES], "big") for raw in raws]
    has = {number: builds.FIELD in str(client.get_schema(number).schema_str) for number in set(ids)}
    return [has[number] for number in ids]
