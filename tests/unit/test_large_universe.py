"""A universe of 500 symbols: its records and its state stay within what the topics take, and nothing is left out."""

from __future__ import annotations

import numpy as np
import pytest

from bench.dcc import parameters
from schemas.codec import encode_body
from schemas.records import (
    CorrelationModel,
    Correlations,
    Fit,
    FitSpec,
    Settings,
    Snapshot,
    UniverseBar,
    UniverseSpec,
)
from schemas.states import UniversesPartition, UniverseState
from schemas.topics import LARGEST_BYTES, TOPICS
from streams.agent import Input, Output, SourcePartition
from streams.barrier.fits import LAST
from streams.correlations import packed
from streams.universes import Universes
from tests.examples import DAY0, MINUTE, bar, portfolio, settings

N = 500
SYMBOLS = tuple(f"S{i:03}" for i in range(N))
SPEC = FitSpec(model=CorrelationModel.DCC, every_us=60 * MINUTE, lag_us=MINUTE, regimes=0)


def fit() -> Fit:
    loadings = np.random.default_rng(1).uniform(0.3, 0.9, N)
    target = np.outer(loadings, loadings)
    np.fill_diagonal(target, 1.0)
    told = parameters(SYMBOLS, target)
    upper = tuple(target[np.triu_indices(N, k=1)].tolist())
    return Fit(
        universe="u1",
        model=LAST,
        version=1,
        due=DAY0,
        data_through=DAY0,
        holds_from=DAY0,
        converged=True,
        status="",
        observations=1250,
        symbols=SYMBOLS,
        parameters={**told.to_record(), "tail_dependence": upper, "stress_correlations": upper},
    )


@pytest.fixture(scope="module")
def ran() -> tuple[Settings, list[Output], UniverseState, Fit]:
    """Two snapshots, the fit before them."""
    told = settings(
        universes=(UniverseSpec(name="u1", symbols=SYMBOLS, kind="time:1m", fits=SPEC),),
        portfolios=(portfolio("p1", symbols=SYMBOLS),),
    )
    agent, fitted = Universes(), fit()
    rng = np.random.default_rng(2)
    records: list[UniverseBar | Fit] = [fitted]
    for minute in range(2):
        for symbol in SYMBOLS:
            price = 100.0 * float(np.exp(rng.normal(0.0, 1e-3)))
            records.append(
                UniverseBar(universe="u1", bar=bar(symbol, start=DAY0 + minute * MINUTE, close=price))
            )
    keys: dict[str, UniverseState] = {}
    inputs = [Input(0, 0, None, told, b"")]
    inputs += [Input(number, 0, b"u1", record, b"") for number, record in enumerate(records, 1)]
    outputs, _ = agent.step(SourcePartition("universe.bars", 0), UniversesPartition(), keys, inputs)
    return told, outputs, keys["u1"], fitted


def test_nothing_is_larger_than_the_topics_take(
    ran: tuple[Settings, list[Output], UniverseState, Fit],
) -> None:
    _, outputs, state, fitted = ran
    sizes = {
        "fit": len(encode_body("universe.bars", fitted)),
        "state": len(encode_body("universes.changelog", state)),
        **{type(each.value).__name__: len(encode_body(each.topic, each.value)) for each in outputs},
    }
    assert set(sizes) >= {"Correlations", "Snapshot", "fit", "state"}
    assert max(sizes.values()) < 0.75 * LARGEST_BYTES, sizes
    assert sizes["Correlations"] < 4_000_000
    for topic in ("universe.bars", "market.correlations", "portfolio.events", "universes.changelog"):
        assert TOPICS[topic].config["max.message.bytes"] == str(LARGEST_BYTES)


def test_every_pair_is_there(ran: tuple[Settings, list[Output], UniverseState, Fit]) -> None:
    _, outputs, _, _ = ran
    last = [each.value for each in outputs if isinstance(each.value, Correlations)][-1]
    assert isinstance(last, Correlations)
    assert last.model == "DCC"
    assert len(last.correlations) == N * (N - 1) // 2
    assert np.isfinite(last.correlations).all()
    snapshot = [each.value for each in outputs if isinstance(each.value, Snapshot)][-1]
    assert isinstance(snapshot, Snapshot)
    assert len(snapshot.covariance) == packed.size(N)
