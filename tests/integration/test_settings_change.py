"""Settings applied while ticks flow and workers are killed: results are those of the inline run with them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.simulator import Simulation, SimulatorSettings
from headrace import compare, history, toml, topics
from headrace.compare import Results
from headrace.fleet import headrace_argv
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints
from schemas.records import AlertKind, Bar, Execution, OrderState, RiskAlert, Settings, Snapshot
from streams.agent import Output
from tests.pipeline import KafkaRun, inline
from tests.replays import asked, assert_equal, at, headrace

SIMULATED = SimulatorSettings(minutes=150, ticks_per_minute=18.0, seed=23)
MINUTE_US = 60_000_000
TICKS = int(SIMULATED.minutes * SIMULATED.ticks_per_minute * len(SIMULATED.symbols))
SLOWLY = ("simulator", "--rate", "300")
"""Until the settings are applied: commands take seconds where much else runs. Then the rest comes faster."""
HALF = len(SIMULATED.symbols) // 2
JOINS, LEAVES = SIMULATED.symbols[0], SIMULATED.symbols[-1]
STRATEGIES = [{"name": "momentum", "uses": "momentum"}, {"name": "reversion", "uses": "reversion"}]
SECOND_FROM = SIMULATED.start_us + 70 * MINUTE_US
THIRD_FROM = SIMULATED.start_us + 110 * MINUTE_US + 30_000_000
"""In the middle of a minute."""


def pipeline(version: int) -> PipelineSettings:
    """Version 2 has one more symbol, two more bar kinds and a limit; version 3 a symbol less."""
    values: dict[str, Any] = {
        "version": version,
        "market": {
            "sources": [{"name": "simulator"}],
            "bars": ["1s", "1m", *(["tick:50", "2m"] if version > 1 else [])],
            "regimes": {"bars": ["1m", *(["2m"] if version > 1 else [])]},
            "lateness_ms": 500,
        },
        "universes": [
            {"name": "north", "symbols": list(SIMULATED.symbols[1 if version == 1 else 0 : HALF])},
            {"name": "south", "symbols": list(SIMULATED.symbols[HALF : None if version < 3 else -1])},
        ],
        "portfolios": [
            {
                "name": "alpha",
                "universe": "north",
                "strategies": STRATEGIES,
                "limits": {} if version == 1 else {"max_position": 20},
            },
            {"name": "value", "universe": "south", "strategies": STRATEGIES},
        ],
    }
    return PipelineSettings.model_validate(values)


@pytest.fixture(scope="module")
def live(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaRun]:
    """The session as it was."""
    folder = tmp_path_factory.mktemp("settings")
    file = folder / "headrace.toml"
    name = f"t{time.time_ns():x}"[:13]
    write(file, 1)
    run = KafkaRun(
        stack,
        name,
        pipeline(1),
        folder,
        processes=2,
        simulator=SIMULATED,
        with_sink=False,
        settings_file=file,
    )
    with run:
        run.start()
        run.wait_until_at_work()
        run.ingest(*SLOWLY)
        while sum(run.end("market.ticks")) < TICKS // 50:
            time.sleep(0.05)
        refused = asked(
            run, "settings", "apply", str(write(folder / "next.toml", 2)), "--from", at(SIMULATED.start_us)
        )
        assert refused.exit_code == 1
        assert "too near" in str(refused.exception)
        for version, begins in ((2, SECOND_FROM), (3, THIRD_FROM)):
            told = write(folder / "next.toml", version)
            done = asked(run, "settings", "apply", str(told), "--from", at(begins), "--yes")
            assert done.exit_code == 0, (done.output, done.exception)
            write(file, version)
        run.fleet.stop("ingest")
        run.ingest("simulator", "--rate", "3000")
        for share, agent in ((0.4, "symbols"), (0.47, "universes"), (0.5, "portfolios"), (0.72, "symbols")):
            run.kill_when_reached(f"{agent}-0", int(share * TICKS))
        run.wait_for_ingest()
        run.settle()
    yield run
    for made in (f"{name}-again", name):
        topics.delete(stack.kafka, made)


def write(file: Path, version: int) -> Path:
    file.write_text(toml.dumps({"pipeline": pipeline(version).model_dump(mode="json")}), "utf-8")
    return file


@pytest.fixture(scope="module")
def applied(live: KafkaRun) -> list[Settings]:
    return [each.settings for each in history.read(live.stack.kafka, live.namespace, live.codec)]


@pytest.fixture(scope="module")
def oracle(applied: list[Settings]) -> tuple[Results, list[Output]]:
    outputs: list[Output] = []
    results = inline(pipeline(1), Simulation(SIMULATED).messages(), changes=applied[1:], outputs=outputs)
    return results, outputs


def test_results_are_those_of_the_inline_run(live: KafkaRun, oracle: tuple[Results, list[Output]]) -> None:
    assert len(live.kills) == 4
    results = live.results()
    assert compare.differences(results, oracle[0]) == []
    assert results.dead_letters == set()


def test_what_was_changed_holds_from_its_time_on(oracle: tuple[Results, list[Output]]) -> None:
    values = [output.value for output in oracle[1]]
    bars = [each for each in values if isinstance(each, Bar)]
    assert min(bar.start for bar in bars if bar.kind == "tick:50") >= SECOND_FROM
    assert min(bar.start for bar in bars if bar.kind == "time:2m") == SECOND_FROM
    assert {bar.settings for bar in bars if SECOND_FROM <= bar.start < THIRD_FROM} == {2}
    joined = {
        each.start
        for each in values
        if isinstance(each, Snapshot)
        for row in each.rows
        if row.symbol == JOINS
    }
    left = {
        each.start
        for each in values
        if isinstance(each, Snapshot)
        for row in each.rows
        if row.symbol == LEAVES
    }
    assert min(joined) == SECOND_FROM
    assert max(left) == THIRD_FROM - 30_000_000
    denied = [each for each in values if isinstance(each, Execution) and each.state is OrderState.DENIED]
    assert denied
    assert min(each.start for each in denied) >= SECOND_FROM
    told = [each for each in values if isinstance(each, RiskAlert) and each.kind is AlertKind.SETTINGS]
    assert [(each.portfolio, each.id, each.start) for each in told] == [
        ("alpha", "settings/2", SECOND_FROM),
        ("value", "settings/3", THIRD_FROM + 30_000_000),
    ]
    assert "limits.max_position - → 20" in told[0].message


def test_a_replay_of_it_is_equal(live: KafkaRun) -> None:
    name = f"{live.namespace}-again"
    headrace(live, "replay", "--into", name, "--processes", "2", "--no-sink", run_records=211)
    assert_equal(live, name)


def test_the_history_tells_what_was_changed(live: KafkaRun, applied: list[Settings]) -> None:
    assert [(each.version, each.effective_from) for each in applied[1:]] == [
        (2, SECOND_FROM),
        (3, THIRD_FROM),
    ]
    told = asked(live, "settings", "history").output
    assert "portfolios.alpha.limits.max_position" in told
    assert LEAVES in told
    again = asked(live, "settings", "apply")
    assert "settings 3 are applied already" in again.output
    lower = asked(live, "settings", "apply", str(write(live.folder / "next.toml", 2)))
    assert "pipeline.version = 4" in str(lower.exception)


def test_a_worker_with_settings_of_before_does_not_join(live: KafkaRun, tmp_path: Path) -> None:
    environment = {**live.environment(), "HEADRACE_SETTINGS": str(write(tmp_path / "headrace.toml", 2))}
    done = subprocess.run(
        headrace_argv("worker", "symbols"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "version 3" in done.stderr
    assert "version 2" in done.stderr
