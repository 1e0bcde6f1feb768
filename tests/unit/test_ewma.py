"""The EWMA covariance against pandas and against its definition on panels with gaps."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.states import EwmaState
from streams.correlations import packed
from streams.correlations.ewma import Ewma
from streams.correlations.model import Covariance, CovarianceModel, average

DECAY = 0.94
MODEL: CovarianceModel[EwmaState] = Ewma(DECAY)


def run(*snapshots: dict[str, float], model: CovarianceModel[EwmaState] = MODEL) -> Covariance:
    state = EwmaState()
    for closes in snapshots:
        state, covariance = model.step(state, closes)
    return covariance


def panel(n: int, length: int, seed: int) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    common = rng.normal(0.0, 1e-3, (length, 1))
    returns = common + rng.normal(0.0, 1e-3, (length, n))
    prices = 100.0 * np.exp(np.cumsum(returns, axis=0))
    return [{f"S{k}": float(price) for k, price in enumerate(row)} for row in prices]


@pytest.mark.parametrize("decay", [0.5, 0.94, 0.999])
def test_equals_pandas_on_full_panels(decay: float) -> None:
    snapshots = panel(5, 400, seed=1)
    prices = pd.DataFrame(snapshots)
    returns = np.log(prices / prices.shift()).iloc[1:]
    covariance = run(*snapshots, model=Ewma(decay))
    volatility = np.sqrt(
        [(returns[s] ** 2).ewm(alpha=1 - decay, adjust=False).mean().iloc[-1] for s in prices]
    )
    np.testing.assert_allclose(covariance.volatilities(), volatility, rtol=1e-12, atol=0.0)
    for i, a in enumerate(prices):
        for j, b in enumerate(prices):
            expected = (returns[a] * returns[b]).ewm(alpha=1 - decay, adjust=False).mean().iloc[-1]
            assert covariance.matrix[i, j] == pytest.approx(expected, rel=1e-12, abs=0.0)


def test_first_return_is_its_outer_product() -> None:
    covariance = run({"A": 100.0, "B": 50.0}, {"A": 101.0, "B": 49.0})
    r = [math.log(1.01), math.log(0.98)]
    assert covariance.packed() == (r[0] * r[0], r[0] * r[1], r[1] * r[1])
    assert covariance.observations == (1, 1)


def test_before_the_first_return_nothing_is_known() -> None:
    covariance = run({"A": 100.0, "B": 50.0})
    assert (covariance.packed(), covariance.observations) == ((0.0, 0.0, 0.0), (0, 0))
    assert not covariance.warm(1)


def test_stale_symbols_keep_their_variance_and_correlations_stay_bounded() -> None:
    before = run({"A": 100.0, "B": 50.0}, {"A": 101.0, "B": 50.5})
    after = run({"A": 100.0, "B": 50.0}, {"A": 101.0, "B": 50.5}, *[{"A": 101.0}] * 100)
    assert before.correlations() == (1.0,)
    assert after.matrix[1, 1] == before.matrix[1, 1]
    assert after.matrix[0, 0] == pytest.approx(DECAY**100 * before.matrix[0, 0], rel=1e-12)
    # A has not moved: nothing contradicts the correlation, so it stays.
    assert after.matrix[0, 1] == pytest.approx(DECAY**50 * before.matrix[0, 1], rel=1e-12)
    assert after.correlations()[0] == pytest.approx(1.0, rel=1e-12)
    assert after.observations == (101, 1)


def test_the_return_after_a_gap_covers_the_gap() -> None:
    covariance = run({"A": 100.0}, {"A": 101.0}, {}, {}, {"A": 103.0})
    expected = DECAY * math.log(1.01) ** 2 + (1 - DECAY) * math.log(103.0 / 101.0) ** 2
    assert covariance.packed()[0] == pytest.approx(expected, rel=1e-12)
    assert covariance.observations == (2,)


def test_a_symbol_that_starts_later() -> None:
    full = [{"A": 100.0}, {"A": 101.0}, {"A": 102.0, "0": 10.0}, {"A": 101.0, "0": 9.9}]
    covariance = run(*full)
    a, b = math.log(101.0 / 102.0), math.log(9.9 / 10.0)
    assert covariance.symbols == ("0", "A")
    assert covariance.observations == (1, 3)
    assert covariance.matrix[0, 0] == b * b
    assert covariance.matrix[0, 1] == (1 - DECAY) * (a * b)
    assert covariance.matrix[1, 1] == run(*[{"A": closes["A"]} for closes in full]).matrix[0, 0]


closes_with_gaps = st.lists(
    st.dictionaries(st.sampled_from("ABCD"), st.floats(50.0, 200.0)), min_size=2, max_size=40
)


@settings(max_examples=200, deadline=None)
@given(snapshots=closes_with_gaps, decay=st.floats(0.1, 0.99))
def test_is_positive_semidefinite_whatever_the_gaps(snapshots: list[dict[str, float]], decay: float) -> None:
    covariance = run(*snapshots, model=Ewma(decay))
    if covariance.symbols:
        least = np.linalg.eigvalsh(covariance.matrix).min()
        assert least >= -1e-12 * max(covariance.matrix.diagonal().max(), 1e-12)
    assert all(-1.0 <= c <= 1.0 for c in covariance.correlations())


@settings(deadline=None)
@given(snapshots=closes_with_gaps, cut=st.integers(0, 40))
def test_a_state_that_was_stored_goes_on_the_same(snapshots: list[dict[str, float]], cut: int) -> None:
    state = EwmaState()
    for closes in snapshots[:cut]:
        state, covariance = MODEL.step(state, closes)
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=EwmaState)
    for closes in snapshots[cut:]:
        state, covariance = MODEL.step(state, closes)
    straight = run(*snapshots)
    assert covariance.packed() == straight.packed()
    assert (covariance.symbols, covariance.observations) == (straight.symbols, straight.observations)


def test_the_part_for_some_symbols() -> None:
    whole = run(*panel(4, 30, seed=2))
    part = whole.of(["S3", "S1"])
    assert part.packed() == (whole.matrix[3, 3], whole.matrix[3, 1], whole.matrix[1, 1])
    assert part.observations == (29, 29)
    assert whole.of(whole.symbols) is whole


def test_a_symbol_unknown_to_the_model_is_zero_and_cold() -> None:
    part = run(*panel(2, 30, seed=3)).of(["S0", "X"])
    assert part.packed()[1:] == (0.0, 0.0)
    assert part.correlations() == (0.0,)
    assert part.of(["S0"]).warm(29)
    assert not part.of(["S0"]).warm(30)
    assert not part.warm(1)
    assert not part.of([]).warm(0)


def test_average() -> None:
    assert average([0.5, 0.25]) == 0.375
    assert average([]) == 0.0


def test_packing_is_by_rows() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    matrix = packed.unpack(values, 3)
    assert matrix.tolist() == [[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]]
    assert packed.pack(matrix).tolist() == values
    assert packed.size(3) == 6


@pytest.mark.parametrize("decay", [0.0, 1.0, math.nan])
def test_impossible_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        Ewma(decay)
