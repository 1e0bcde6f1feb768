"""The simulated market is what it says: the same bytes for a seed, and the truth that it exports."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from connectors.errors import MatrixError
from connectors.messages import Message, Position
from connectors.simulator import Minute, Simulation, SimulatorSettings, export_truth
from connectors.simulator.regimes import BEHAVIOURS, transition
from schemas.records import Label, Quote, Tick

SMALL = SimulatorSettings(symbols=("A", "B", "C"), minutes=12, ticks_per_minute=40.0)
LABELS = [behaviour.label for behaviour in BEHAVIOURS]


def digest(messages: Iterable[Message]) -> str:
    return hashlib.sha256(msgspec.msgpack.encode([msgspec.structs.astuple(m) for m in messages])).hexdigest()


@pytest.fixture(scope="module")
def day() -> list[Minute]:
    return list(Simulation(SimulatorSettings()).minutes())


def test_a_seed_is_a_market() -> None:
    assert digest(Simulation(SMALL).messages()) == digest(Simulation(SMALL).messages())
    other = SMALL.model_copy(update={"seed": 8})
    assert digest(Simulation(other).messages()) != digest(Simulation(SMALL).messages())
    assert Simulation(other).session != Simulation(SMALL).session


def test_a_longer_session_does_not_reuse_the_name_of_a_shorter() -> None:
    assert Simulation(SMALL.model_copy(update={"minutes": 13})).session != Simulation(SMALL).session


def test_it_goes_on_from_any_message() -> None:
    simulation = Simulation(SMALL)
    whole = list(simulation.messages())
    for cut in (0, 1, 2, 117, len(whole) // 2, len(whole) - 1):
        ticks = [m.record for m in whole[:cut] if isinstance(m.record, Tick)]
        clock = max((m.time_us for m in whole[:cut] if m.is_clock), default=None)
        position = Position(ticks[-1].sequence or 0 if ticks else 0, clock)
        assert list(simulation.messages(position)) == whole[cut:]
    assert not list(simulation.messages(Position(len(whole), 0, finished=True)))


QUOTED = SMALL.model_copy(update={"quotes": True})


def test_a_quote_stands_before_each_trade_and_changes_none() -> None:
    simulation = Simulation(QUOTED)
    messages = list(simulation.messages())
    assert [m for m in messages if m.topic == "market.ticks"] == list(Simulation(SMALL).messages())
    rows = [m.record for m in messages if m.record is not None]
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    for best, trade in pairs:
        assert isinstance(best, Quote)
        assert isinstance(trade, Tick)
        assert (best.symbol, best.event_time, best.sequence) == (
            trade.symbol,
            trade.event_time,
            trade.sequence,
        )
        assert best.bid < best.ask
        assert best.bid - 0.01 < trade.price < best.ask + 0.01
        assert min(best.bid_size, best.ask_size) >= QUOTED.lot
    clocks = [(m.topic, m.time_us) for m in messages if m.is_clock]
    assert clocks[::2] == [("market.ticks", time) for _, time in clocks[1::2]]
    assert clocks[1::2] == [("market.quotes", time) for _, time in clocks[1::2]]


def test_quotes_go_on_from_any_trade() -> None:
    simulation = Simulation(QUOTED)
    whole = list(simulation.messages())
    for cut in (0, 117, len(whole) // 2):
        ticks = [m.record for m in whole[:cut] if isinstance(m.record, Tick)]
        clock = max((m.time_us for m in whole[:cut] if m.is_clock), default=None)
        position = Position(ticks[-1].sequence or 0 if ticks else 0, clock)
        rest = [m for m in simulation.messages(position) if m.record is not None]
        assert rest == [m for m in whole if m.record is not None][2 * len(ticks) :]


def test_ticks_come_in_time_order_within_the_session_on_the_grid_in_round_lots() -> None:
    settings = SMALL.model_copy(update={"grid": 8})
    ticks = list(Simulation(settings).ticks())
    assert [tick.sequence for tick in ticks] == list(range(1, len(ticks) + 1))
    assert all(earlier.event_time <= later.event_time for earlier, later in pairwise(ticks))
    assert settings.start_us <= ticks[0].event_time
    assert ticks[-1].event_time < settings.start_us + settings.minutes * 60_000_000
    assert all((tick.price * 8).is_integer() and tick.price > 0 for tick in ticks)
    assert all(tick.size % 100 == 0 and tick.size > 0 for tick in ticks)
    assert {tick.symbol for tick in ticks} == {"A", "B", "C"}


def test_every_regime_occurs_in_a_default_day_and_lasts(day: list[Minute]) -> None:
    regimes = np.array([minute.regime for minute in day])
    share = np.bincount(regimes.ravel(), minlength=4) / regimes.size
    assert share.min() > 0.03
    changes = (regimes[1:] != regimes[:-1]).sum()
    assert 30 < regimes.size / (changes + regimes.shape[1]) < 90


def test_regimes_are_what_their_labels_say(day: list[Minute]) -> None:
    """Over a quarter of an hour: trends go far for their noise, ranges do not, crises shake most."""
    span = 15
    regimes = np.array([minute.regime for minute in day])
    symbols = regimes.shape[1]
    closes = np.full(regimes.shape, np.nan)
    for number, minute in enumerate(day):
        closes[number, minute.symbol] = minute.price  # the last trade of a symbol stays
    returns = np.diff(np.log(closes), axis=0)
    gone: dict[Label, list[float]] = {label: [] for label in LABELS}
    noise: dict[Label, list[float]] = {label: [] for label in LABELS}
    calm = Simulation(SimulatorSettings()).volatility
    for symbol in range(symbols):
        for start in range(0, len(returns) - span, span):
            stretch = returns[start : start + span, symbol]
            inside = regimes[start : start + span + 1, symbol]
            if (inside == inside[0]).all() and np.isfinite(stretch).all():
                label = LABELS[inside[0]]
                gone[label].append(abs(stretch.sum()) / np.sqrt((stretch**2).sum()))
                noise[label].append(stretch.std() / calm[symbol])
    far = {label: float(np.median(gone[label])) for label in LABELS}
    wild = {label: float(np.median(noise[label])) for label in LABELS}
    assert far[Label.TRENDING] > 1.2  # a random walk: 0.67
    assert far[Label.RANGING] < 0.5
    assert far[Label.CHOPPY] < 0.6
    assert wild[Label.CRISIS] > 2 * wild[Label.CHOPPY] > 3 * wild[Label.RANGING]


@pytest.mark.parametrize("given", [False, True])
def test_shocks_have_the_true_correlation(given: bool) -> None:
    matrix = ((1.0, 0.8, -0.3), (0.8, 1.0, 0.0), (-0.3, 0.0, 1.0)) if given else None
    simulation = Simulation(SMALL.model_copy(update={"correlation": matrix}))
    assert (simulation.correlation == np.array(matrix)).all() if given else True
    draw = np.random.default_rng(1)
    shocks = np.hstack([simulation._shocks(draw, 3) for _ in range(2000)])
    assert np.abs(np.cov(shocks) - simulation.correlation).max() < 0.015


def test_volatility_is_the_true_one_and_clusters(day: list[Minute]) -> None:
    """Returns over true volatility have unit variance where nothing pulls; volatility lasts."""
    simulation = Simulation(SimulatorSettings(half_spread_bps=0.0, ticks_per_minute=120.0, grid=1_000_000))
    minutes = list(simulation.minutes())
    last = np.full((len(minutes), len(simulation.settings.symbols)), np.nan)
    for number, minute in enumerate(minutes):
        last[number, minute.symbol] = np.log(minute.price)
    returns = np.diff(last, axis=0)
    regime = np.array([minute.regime for minute in minutes])
    true = np.array([minute.volatility for minute in minutes])
    drift = np.array([minute.drift for minute in minutes])
    free = (regime[1:] == 0) & (regime[:-1] == 0)
    scaled = ((returns - drift[1:]) / true[1:])[free]
    assert np.nanvar(scaled) == pytest.approx(1.0, abs=0.1)
    factor = true / np.array([[b.volatility for b in BEHAVIOURS]])[0][regime] / simulation.volatility
    quiet = factor[150:240]  # the middle of the day, where the U is flat
    assert np.corrcoef(quiet[:-5].ravel(), quiet[5:].ravel())[0, 1] > 0.5
    assert quiet.std() > 0.05


def test_the_day_is_u_shaped(day: list[Minute]) -> None:
    calm = [
        np.mean([np.count_nonzero(m.symbol[np.isin(m.symbol, np.flatnonzero(m.regime == 0))]) for m in part])
        / np.mean([(m.regime == 0).sum() for m in part])
        for part in (day[:60], day[165:225], day[-60:])
    ]
    assert min(calm[0], calm[2]) > 1.4 * calm[1]


def test_the_chain_leaves_a_regime_after_its_mean_stay() -> None:
    matrix = transition(2.0)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(4))
    assert 1 / (1 - np.diag(matrix)) == pytest.approx([2 * b.dwell_minutes for b in BEHAVIOURS])


def test_the_truth_is_written_beside_the_ticks(tmp_path: Path) -> None:
    simulation = Simulation(SMALL)
    export_truth(simulation, tmp_path / "truth")
    rows = pq.read_table(tmp_path / "truth" / "minutes.parquet").to_pylist()
    minutes = list(simulation.minutes())
    assert len(rows) == 3 * len(minutes)
    for row, (minute, symbol) in zip(rows, ((m, s) for m in minutes for s in range(3)), strict=True):
        assert row["symbol"] == "ABC"[symbol]
        assert row["minute"].timestamp() * 1e6 == minute.start_us
        assert row["regime"] == LABELS[minute.regime[symbol]].value
        assert (row["volatility"], row["drift"]) == (minute.volatility[symbol], minute.drift[symbol])
    with (tmp_path / "truth" / "correlation.csv").open() as file:
        head, *body = csv.reader(file)
    assert head == ["symbol", "A", "B", "C"]
    assert [[float(cell) for cell in line[1:]] for line in body] == simulation.correlation.tolist()
    told = json.loads((tmp_path / "truth" / "parameters.json").read_text())
    assert told["session"] == simulation.session
    assert SimulatorSettings(**told["settings"]) == SMALL
    assert [symbol["symbol"] for symbol in told["symbols"]] == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (((1.0, 0.5), (0.5, 1.0)), "3 rows of 3"),
        (((1.0, 0.5, 0.0), (0.4, 1.0, 0.0), (0.0, 0.0, 1.0)), "symmetric"),
        (((1.0, 0.9, -0.9), (0.9, 1.0, 0.9), (-0.9, 0.9, 1.0)), "positive definite"),
    ],
)
def test_a_correlation_that_is_none_is_refused(matrix: tuple[tuple[float, ...], ...], said: str) -> None:
    with pytest.raises(MatrixError, match=said):
        Simulation(SMALL.model_copy(update={"correlation": matrix}))


@pytest.mark.parametrize(
    "wrong",
    [{"symbols": ("A", "A")}, {"annual_volatility": (0.3, 0.2)}, {"clustering": 0.5, "persistence": 0.5}],
)
def test_settings_that_make_no_market_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SimulatorSettings(**wrong)  # type: ignore[arg-type]
