"""The README's strategy, from outside the tree, backtested without Kafka on a file of simulated trades."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from connectors.files import FilesSettings
from connectors.simulator import Simulation, SimulatorSettings
from headrace import backtest
from headrace.pipeline import PipelineSettings
from schemas.records import Equity, Execution, OrderState, Tick
from streams.agent import Output

README = Path(__file__).parents[2] / "README.md"
STRATEGY_LINES = 32
MARKET = SimulatorSettings(symbols=("A", "B", "C", "D", "E", "F"), minutes=60, ticks_per_minute=20.0)


@pytest.fixture
def strategy(tmp_path: Path) -> Path:
    found = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
    path = tmp_path / "leaders.py"
    path.write_text(next(code for code in found if "(Strategy)" in code))
    return path


@pytest.fixture
def trades(tmp_path: Path) -> Path:
    path = tmp_path / "trades.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("time", "symbol", "price", "size"))
        for message in Simulation(MARKET).messages():
            if isinstance(message.record, Tick):
                tick = message.record
                rows.writerow((tick.event_time, tick.symbol, tick.price, tick.size))
    return path


def test_it_is_as_long_as_it_is_said_to_be(strategy: Path) -> None:
    lines = [line for line in strategy.read_text().splitlines() if line.strip()]
    assert len(lines) <= STRATEGY_LINES


def test_it_trades(strategy: Path, trades: Path) -> None:
    declared = PipelineSettings()
    feed = backtest.file_feed(trades, FilesSettings(), declared.market)
    pipeline, defaults = backtest.pipeline_for(declared, feed.source, feed.symbols)
    assert defaults
    pipeline = backtest.with_strategy(pipeline, f"{strategy}:Leaders")
    outputs: list[Output] = []
    backtest.run(feed.parts(), pipeline.record(), [outputs.append])

    records = [output.value for output in outputs]
    executions = [record for record in records if isinstance(record, Execution)]
    states = Counter(record.state for record in executions)
    assert states[OrderState.FILLED] >= 4, "the leaders, at the least"
    assert {record.strategy for record in executions} == {"Leaders"}
    assert "system.dead_letters" not in {output.topic for output in outputs}
    assert sum(isinstance(record, Equity) for record in records) == MARKET.minutes
    first = min(record.decided_on for record in executions)
    assert first >= MARKET.start_us + 29 * 60_000_000, "nothing is ordered before the 30th snapshot"
