"""`headrace backtest`: from a small file to figures, Parquet and a plot, without Kafka."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectors.simulator import Simulation, SimulatorSettings
from headrace import backtest
from headrace.cli import app
from headrace.parquet import arrow_schema
from headrace.pipeline import PipelineSettings, PortfolioPart, SourcePart, StrategyPart, UniversePart
from headrace.results import max_drawdown, sharpe
from schemas.topics import TOPICS

SESSION = SimulatorSettings(symbols=("AAA", "BBB", "CCC"), minutes=130, ticks_per_minute=8.0)
BUYER = """
import msgspec
from headrace import Strategy, Target


class Buyer(Strategy):
    class Parameters(msgspec.Struct, frozen=True):
        weight: float = 0.2

    class State(msgspec.Struct):
        bought: bool = False

    def on_snapshot(self, state, view):
        if state.bought:
            return state, []
        state.bought = True
        return state, [Target(symbol, self.parameters.weight, "once") for symbol in view.rows]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder without settings."""
    for name in ("HEADRACE_SETTINGS", "HEADRACE_PIPELINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def file(folder: Path) -> Path:
    """A simulated session as a CSV file, with one row that cannot be read."""
    path = folder / "trades.csv"
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["time_us", "symbol", "price", "size", "side"])
        for at, tick in enumerate(Simulation(SESSION).ticks()):
            writer.writerow([tick.event_time, tick.symbol, tick.price, tick.size, tick.aggressor])
            if at == 100:
                writer.writerow([tick.event_time, tick.symbol, "a lot", tick.size, ""])
    return path


def told(*arguments: str) -> dict[str, Any]:
    ran = CliRunner().invoke(app, ["backtest", *arguments, "--json"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    figures: dict[str, Any] = json.loads(ran.stdout)
    return figures


def test_a_file_goes_all_the_way(file: Path, folder: Path) -> None:
    figures = told(str(file), "--out", "results")
    count = sum(1 for _ in Simulation(SESSION).ticks())
    assert figures["ticks"] == count
    assert figures["ticks_in_bars"] == dict.fromkeys(("time:1s", "time:1m", "time:5m"), count)
    assert figures["dead_letters"] == {"files: BAD_ROW": 1}
    (book,) = figures["books"]
    assert book["portfolio"] == backtest.PORTFOLIO
    assert book["fills"]["momentum"] > 0
    assert book["profit"] == pytest.approx(book["realised"] + book["unrealised"] - book["fees"], abs=0.01)

    bars = pq.read_table("results/market_bars.parquet").to_pylist()
    assert len(bars) == sum(figures["bars"].values())
    minutes = [bar for bar in bars if bar["kind"] == "time:1m" and bar["symbol"] == "AAA"]
    assert minutes[0]["start"] == datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
    equity = pq.read_table("results/trade_equity.parquet").to_pylist()
    assert equity[-1]["equity"] == Decimal(str(book["equity"])).quantize(Decimal("1e-9"))
    assert (folder / "results" / "equity.png").read_bytes().startswith(b"\x89PNG")


def test_the_simulator_and_its_file_give_the_same_trades(file: Path) -> None:
    from_file = told(str(file))
    Path("headrace.toml").write_text(
        "[simulator]\nsymbols = ['AAA', 'BBB', 'CCC']\nminutes = 130\nticks_per_minute = 8.0\n"
    )
    simulated = told("--simulate")
    for name in ("bars", "regimes", "orders", "books"):
        assert simulated[name] == from_file[name], name


def test_a_strategy_of_ones_own_is_tried(file: Path) -> None:
    Path("mine.py").write_text(BUYER)
    (book,) = told(str(file), "--strategy", "mine.py:Buyer")["books"]
    assert list(book["fills"]) == ["Buyer"]


def test_people_are_told_what_came_out(file: Path) -> None:
    ran = CliRunner().invoke(app, ["backtest", str(file)], catch_exceptions=False)
    assert ran.exit_code == 0
    assert "no portfolio is declared: momentum, reversion on 1m bars of 3 symbols" in ran.output
    assert "deepest drawdown" in ran.output
    Path("headrace.toml").write_text(
        "[[pipeline.universes]]\nname = 'u'\nsymbols = ['ELSEWHERE']\n"
        "[[pipeline.portfolios]]\nname = 'p'\nuniverse = 'u'\nstrategies = [{name = 'm', uses = 'momentum'}]\n"
    )
    ran = CliRunner().invoke(app, ["backtest", str(file)], catch_exceptions=False)
    assert "does its universe name the symbols of this feed?" in ran.output


def test_what_is_declared_is_kept_but_for_the_sources() -> None:
    declared = PipelineSettings(
        universes=(UniversePart(name="u", symbols=("A",)),),
        portfolios=(
            PortfolioPart(name="p", universe="u", strategies=(StrategyPart(name="m", uses="momentum"),)),
        ),
    )
    pipeline, defaults = backtest.pipeline_for(
        declared, "files", lambda: pytest.fail("asked for the symbols")
    )
    assert not defaults
    assert pipeline.market.sources == (SourcePart(name="files"),)
    assert (pipeline.universes, pipeline.portfolios) == (declared.universes, declared.portfolios)


def test_every_result_has_columns() -> None:
    for name, topic in TOPICS.items():
        if topic.compared:
            fields = [field.name for field in arrow_schema(name)]
            assert fields == list(topic.compared[0].__struct_fields__), name


def test_drawdown_and_sharpe() -> None:
    def curve(*values: str) -> list[tuple[datetime, Decimal]]:
        start = datetime(2024, 1, 2, tzinfo=UTC)
        return [(start + timedelta(minutes=i), Decimal(v)) for i, v in enumerate(values)]

    assert max_drawdown(curve("110", "99", "120", "90"), Decimal(100)) == 0.25
    assert max_drawdown(curve("80"), Decimal(100)) == 0.2
    assert max_drawdown([], Decimal(100)) == 0.0
    assert sharpe(curve("100", "110")) is None
    assert sharpe(curve("100", "100", "100")) is None
    assert sharpe(curve("100", "110", "99")) == pytest.approx(0.0, abs=1e-15)
    assert sharpe(curve("100", "110", "110")) == pytest.approx(0.05 / (0.1 / 2**0.5))
