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

from connectors.files import FilesSettings
from connectors.simulator import Simulation, SimulatorSettings
from headrace import backtest
from headrace.cli import app
from headrace.parquet import arrow_schema
from headrace.pipeline import (
    MarketPart,
    PipelineSettings,
    PortfolioPart,
    QuotesPart,
    SourcePart,
    StrategyPart,
    UniversePart,
)
from headrace.results import max_drawdown, sharpe
from schemas.records import ClockKind
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


def test_quotes_of_another_file_change_what_orders_pay(file: Path) -> None:
    quotes = file.with_name("quotes.csv")
    with quotes.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["time_us", "symbol", "bid", "ask"])
        for tick in Simulation(SESSION).ticks():
            writer.writerow([tick.event_time, tick.symbol, tick.price * 0.99, tick.price * 1.01])
    plain, quoted = told(str(file)), told(str(file), "--quotes", str(quotes), "--out", "quoted")
    assert (quoted["ticks"], quoted["quotes"], plain["quotes"]) == (plain["ticks"], plain["ticks"], 0)
    assert quoted["bars"] == plain["bars"]
    assert quoted["snapshots"] == plain["snapshots"]
    assert quoted["books"][0]["profit"] < plain["books"][0]["profit"]
    snapshots = pq.read_table("quoted/portfolio_events.parquet").to_pylist()
    spreads = {
        row["quote"]["spread_bps"] for snapshot in snapshots for row in snapshot["rows"] if row["quote"]
    }
    assert spreads
    assert all(spread == pytest.approx(200.0) for spread in spreads)


def test_quotes_that_end_early_hold_no_snapshot_back(file: Path) -> None:
    quotes = file.with_name("quotes.csv")
    first = next(Simulation(SESSION).ticks())
    quotes.write_text(f"time_us,symbol,bid,ask\n{first.event_time},{first.symbol},1,2\n")
    assert told(str(file), "--quotes", str(quotes))["snapshots"] == told(str(file))["snapshots"]


def test_a_file_of_the_wrong_kind_is_told_from_the_right(file: Path) -> None:
    with pytest.raises(backtest.NotQuotes, match=r"trades.csv holds no quotes"):
        backtest.file_feed(file, FilesSettings(), MarketPart(), file)
    quotes = file.with_name("quotes.csv")
    quotes.write_text("time,symbol,bid,ask\n1,A,1,2\n")
    with pytest.raises(backtest.NothingToTrade, match="--quotes"):
        backtest.file_feed(quotes, FilesSettings(), MarketPart())


def test_simulated_quotes_are_switched_on_by_their_setting(folder: Path) -> None:
    settings = "[simulator]\nsymbols = ['AAA', 'BBB']\nminutes = 20\nquotes = true\n"
    (folder / "headrace.toml").write_text(settings)
    figures = told("--simulate")
    assert figures["quotes"] == figures["ticks"] > 0
    assert figures["snapshots"] == 20


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


def test_quotes_are_taken_where_there_are_any_whatever_is_declared() -> None:
    """A universe would wait for ever for the clocks of a feed that does not run."""
    own_clock = SourcePart(name="mine", clock=ClockKind.TICKS)
    market = MarketPart(quotes=QuotesPart(sources=(SourcePart(name="other"), own_clock)))
    declared = PipelineSettings(market=market)
    without, _ = backtest.pipeline_for(declared, "files", lambda: ("A",))
    assert without.market.quotes is None
    with_quotes, _ = backtest.pipeline_for(declared, "files", lambda: ("A",), "mine")
    assert with_quotes.market.quote_sources == (own_clock,)


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
