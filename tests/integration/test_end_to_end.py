"""The law of the house: over Kafka, however it is cut, shared out or killed, results are those of the inline run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.files import FilesSettings, TradesFile
from connectors.files.settings import ClockSettings
from connectors.simulator import Simulation, SimulatorSettings
from headrace import compare, topics
from headrace.compare import Results
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints
from schemas.partitioner import partition_of
from schemas.records import Command, Execution, OrderState, Place, TradingState
from schemas.topics import GROUP_PARTITIONS
from streams.agent import Output
from tests import database
from tests.pipeline import AGENTS, KafkaRun, inline

SIMULATED = SimulatorSettings(minutes=300, ticks_per_minute=18.0, seed=11)
REAL_ROWS = 60_000
KILLS_PER_VICTIM = 2

STRATEGIES = [
    {"name": "momentum", "uses": "momentum"},
    {"name": "reversion", "uses": "reversion"},
]
TIGHT: dict[str, dict[str, Any]] = {
    "max_position": {"max_position": 50},
    "max_order_notional": {"max_order_notional": 2_000},
    "max_position_notional": {"max_position_notional": 3_000},
    "max_leverage": {"max_leverage": "0.02"},
    "max_daily_loss": {"max_daily_loss": 5},
    "max_orders": {"max_orders": 1, "order_window_s": 3600},
}
"""A portfolio for each limit, so tight that it denies within the session."""


def simulated_settings() -> PipelineSettings:
    symbols = SIMULATED.symbols
    half = len(symbols) // 2
    tight = [
        {"name": f"tight-{name}", "universe": "north", "strategies": STRATEGIES, "limits": limits}
        for name, limits in TIGHT.items()
    ]
    return PipelineSettings.model_validate(
        {
            "market": {"sources": [{"name": "simulator"}]},
            "universes": [
                {"name": "north", "symbols": symbols[:half]},
                {"name": "south", "symbols": symbols[half:]},
            ],
            "portfolios": [
                {"name": "alpha", "universe": "north", "strategies": STRATEGIES},
                {"name": "value", "universe": "south", "strategies": STRATEGIES},
                {
                    "name": "drawn",
                    "universe": "north",
                    "strategies": STRATEGIES,
                    "limits": {"max_drawdown": "0.0002"},
                },
                *tight,
            ],
        }
    )


def real_settings() -> PipelineSettings:
    return PipelineSettings.model_validate(
        {
            "market": {"sources": [{"name": "files"}]},
            "universes": [
                {"name": "north", "symbols": ["AIG", "BAC", "IBM", "SPY"]},
                {"name": "south", "symbols": ["AIG", "BAC"]},
            ],
            "portfolios": [
                {"name": "alpha", "universe": "north", "strategies": STRATEGIES},
                {"name": "value", "universe": "south", "strategies": STRATEGIES},
            ],
        }
    )


def halt_in_the_middle() -> Command:
    """Placed by event time, so that every run, inline too, takes it at the same place in the order of events."""
    at = SIMULATED.start_us + (SIMULATED.minutes * 2 // 3) * 60_000_000
    return Command(
        portfolio="value",
        id="stop",
        state=TradingState.HALTED,
        reason="a test of the brake",
        issued_at=0,
        after=Place(start=at, ordinal=0),
    )


@pytest.fixture(scope="module")
def simulated() -> tuple[Results, list[Output]]:
    """The inline run of the simulated session."""
    outputs: list[Output] = []
    results = inline(
        simulated_settings(),
        Simulation(SIMULATED).messages(),
        commands=[halt_in_the_middle()],
        outputs=outputs,
    )
    return results, outputs


def executions(outputs: list[Output]) -> Iterator[Execution]:
    for output in outputs:
        if isinstance(output.value, Execution):
            yield output.value


def test_the_session_is_worth_comparing(simulated: tuple[Results, list[Output]]) -> None:
    results, _ = simulated
    assert partition_of("north", GROUP_PARTITIONS) != partition_of("south", GROUP_PARTITIONS)
    assert partition_of("alpha", GROUP_PARTITIONS) != partition_of("value", GROUP_PARTITIONS)
    ticks = sum(1 for message in Simulation(SIMULATED).messages() if message.record is not None)
    assert ticks >= 100_000
    empty = {"market.ticks.late", "market.regimes.hmm", "trade.orders", "system.dead_letters"}
    assert {name for name in compare.COMPARED if not results.count(name)} == empty


def test_each_limit_denies_and_says_why(simulated: tuple[Results, list[Output]]) -> None:
    denied = [e for e in executions(simulated[1]) if e.state is OrderState.DENIED]
    for name in TIGHT:
        own = [e for e in denied if e.portfolio == f"tight-{name}" and e.limit == name]
        assert own, f"{name} never denied"
        assert all(e.value is not None and e.figure is not None and name in e.reason for e in own)


def test_a_halt_stops_orders(simulated: tuple[Results, list[Output]]) -> None:
    halt = halt_in_the_middle()
    assert halt.after is not None
    later = [
        e for e in executions(simulated[1]) if e.portfolio == "value" and e.decided_on > halt.after.start
    ]
    assert later, "nothing was asked for after the halt: the test shows nothing"
    assert {e.state for e in later} == {OrderState.DENIED}


def run_over_kafka(
    stack: Endpoints,
    namespace: str,
    folder: Path,
    settings: PipelineSettings,
    ingest: list[str],
    *,
    commands: list[Command] | None = None,
    kills: int | None = None,
    **shape: Any,
) -> tuple[Results, KafkaRun]:
    with KafkaRun(stack, namespace, settings, folder, **shape) as run:
        run.simulator = SIMULATED
        for command in commands or ():
            run.send("portfolio.events", command.portfolio, command)
        if kills is None:
            run.start(ingest)
        else:
            run.start()
            run.wait_until_at_work()
            run.ingest(*ingest)
            kill_everything(run, kills)
        run.wait_for_ingest()
        run.settle()
        return run.results(), run


def kill_everything(run: KafkaRun, total_ticks: int) -> None:
    """kill -9, ten in all: every agent, the sink and the connector twice, at seeded offsets of market.ticks."""
    rng = random.Random(7)
    shares = sorted(rng.uniform(0.08, 0.85) for _ in range(5 * KILLS_PER_VICTIM))
    victims = [f"{name}-0" for name in AGENTS] + ["sink", "ingest"]
    order = victims[:]
    rng.shuffle(order)
    order += rng.sample(victims, len(victims))
    for victim, share in zip(order, shares, strict=True):
        run.kill_when_reached(victim, int(total_ticks * share))


def check(results: Results, oracle: Results) -> None:
    found = compare.differences(oracle, results)
    assert not found, "\n".join(f"{d.topic} {d.key}: {d.what}" for d in found[:5])


def test_kafka_equals_inline(
    stack: Endpoints, namespace: str, tmp_path: Path, simulated: tuple[Results, list[Output]]
) -> None:
    results, _ = run_over_kafka(
        stack, namespace, tmp_path, simulated_settings(), ["simulator"], commands=[halt_in_the_middle()]
    )
    check(results, simulated[0])
    assert database.mismatches(stack.database, namespace, simulated[0]) == []


def test_real_trades_with_kills(stack: Endpoints, namespace: str, tmp_path: Path, trades: Path) -> None:
    clocks = ClockSettings()
    file = TradesFile(trades, FilesSettings(limit=REAL_ROWS, clocks=clocks))
    oracle = inline(real_settings(), file.messages())
    assert oracle.count("trade.positions") > 0
    ingest = ["files", str(trades), "--limit", str(REAL_ROWS), "--rate", "1500"]
    results, run = run_over_kafka(
        stack, namespace, tmp_path, real_settings(), ingest, kills=REAL_ROWS, max_run_records=1_000
    )
    assert len(run.kills) == 10, run.kills
    check(results, oracle)
    assert database.mismatches(stack.database, namespace, oracle) == []


def test_a_differing_repeat_is_a_failure(
    stack: Endpoints, namespace: str, simulated: tuple[Results, list[Output]]
) -> None:
    """A second copy of one bar with another close: the comparison must report it, or it compares nothing."""
    bar = next(output for output in simulated[1] if output.topic == "market.bars")
    other = msgspec.structs.replace(bar.value, close=bar.value.close + 0.01)  # type: ignore[attr-defined]
    results = Results()
    results.output(bar)
    results.output(bar)
    assert results.copies == 1
    assert not results.differing
    results.output(bar._replace(value=other))
    assert [d.topic for d in results.differing] == ["market.bars"]
    assert compare.differences(results, results)


def test_settings_travel_in_the_environment() -> None:
    """What the child processes are told is what the oracle ran with."""
    settings = simulated_settings()
    again = PipelineSettings.model_validate(json.loads(settings.model_dump_json()))
    assert again.record() == settings.record()
    assert topics.INPUTS[0] == "market.ticks"
