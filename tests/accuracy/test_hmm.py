"""The hidden Markov filter against hmmlearn, and against regimes whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM

from bench import regimes
from schemas.records import Label
from schemas.states import HmmState
from streams.correlations.packed import Floats
from streams.hmm import FEATURES, Hmm, HmmParameters, filtered, follow, from_record, step, symbols_of
from streams.hmm.fitting import FEWEST, features_of, fit
from streams.hmm.fitting.fit import words
from streams.hmm.model import BARS

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def panel() -> regimes.Panel:
    return regimes.simulated(5, 1500)


@pytest.fixture(scope="module")
def features(panel: regimes.Panel) -> Floats:
    return features_of(panel.high, panel.low, panel.close)


@pytest.fixture(scope="module")
def told(features: Floats) -> HmmParameters:
    found = fit(features, 4)
    assert found.parameters is not None
    return found.parameters


def test_the_likelihood_is_hmmlearns_at_the_same_parameters(features: Floats, told: HmmParameters) -> None:
    model = GaussianHMM(4, covariance_type="full")
    model.n_features = len(FEATURES)
    model.startprob_, model.transmat_ = told.start, told.transition
    model.means_, model.covars_ = told.means, told.covariances
    x = (features - told.centre) / told.scale
    out = np.empty((len(x), 4))
    ours = filtered(x, told.start, True, told.transition, told.means, *told.roots(), out)
    assert ours == pytest.approx(model.score(x), abs=1e-8)
    np.testing.assert_allclose(out[-1], model.predict_proba(x)[-1], rtol=0, atol=1e-10)


def test_bar_by_bar_is_one_pass_also_across_a_restart(
    panel: regimes.Panel, features: Floats, told: HmmParameters
) -> None:
    x = (features - told.centre) / told.scale
    out = np.empty((len(x), 4))
    whole = filtered(x, told.start, False, told.transition, told.means, *told.roots(), out)
    hmm = Hmm(told, 3)
    state = hmm.begin(HmmState(symbol="A"))
    likelihood = 0.0
    for t, bar in enumerate(zip(panel.high.tolist(), panel.low.tolist(), panel.close.tolist(), strict=True)):
        seen = follow(state, *bar)
        if seen is None:
            continue
        if t == 700:  # a restart, with what a record of the fit carries
            hmm = Hmm(from_record("A", told.to_record("A")), 3)
        likelihood += step(hmm, state, seen).log_likelihood
        np.testing.assert_allclose(state.probabilities, out[t - 1], rtol=0, atol=1e-12)
    assert likelihood == pytest.approx(whole, abs=1e-8)
    assert state.fit == 3


@pytest.mark.parametrize("seed", SEEDS)
def test_the_filter_is_nearly_as_right_as_the_smoothed_path(seed: int) -> None:
    found = regimes.score(seed)
    assert found.smoothed > 0.8
    assert found.filtered >= 0.95 * found.smoothed
    assert found.settled >= 0.93 * found.smoothed
    assert found.delay < found.smoothed_delay + 3.0


def test_a_label_changes_only_once_it_is_sure(told: HmmParameters) -> None:
    """Bars as if each were from the middle of a state."""
    hmm = Hmm(told)
    state = hmm.begin(HmmState(symbol="A"))

    def bar(word: Label) -> Label:
        mean = told.means[told.words.index(word)] * told.scale + told.centre
        return step(hmm, state, (mean[0], mean[1], mean[2])).label

    for _ in range(10):
        bar(Label.RANGING)
    assert state.label is Label.RANGING
    since = state.bars_since_change
    labels = [bar(Label.CRISIS) for _ in range(6)]
    changed = labels.index(Label.CRISIS)
    assert changed >= BARS - 1
    assert state.previous is Label.RANGING
    assert state.bars_since_change == 5 - changed
    assert since > 0


def test_words_for_states() -> None:
    means = np.array([[0.0, 2.0, 0.1], [0.0, -1.0, 0.2], [0.0, 0.0, 0.9], [0.0, 0.5, 0.1]])
    assert words(means) == (Label.CRISIS, Label.RANGING, Label.TRENDING, Label.CHOPPY)
    assert words(means[:2]) == (Label.CRISIS, Label.RANGING)


def test_a_verdict_says_all_four_words(features: Floats, told: HmmParameters) -> None:
    hmm = Hmm(told)
    state = hmm.begin(HmmState(symbol="A"))
    for row in features[:50].tolist():
        verdict = step(hmm, state, (row[0], row[1], row[2]))
        assert set(verdict.probabilities) == {label.value for label in Label}
        assert math.fsum(verdict.probabilities.values()) == pytest.approx(1.0)
        assert verdict.expected_duration >= 1.0


@pytest.mark.parametrize("kind", ["constant", "few", "one jump", "no range"])
def test_nothing_bad_makes_a_number_that_is_none(kind: str) -> None:
    panel = regimes.simulated(9, 30 if kind == "few" else 300)
    high, low, close = panel.high.copy(), panel.low.copy(), panel.close.copy()
    if kind == "constant":
        high[:] = low[:] = close[:] = 50.0
    if kind == "one jump":
        high[100:] *= 2.0
        low[101:] *= 2.0
        close[100:] *= 2.0
    if kind == "no range":
        high[:] = low[:] = close
    found = fit(features_of(high, low, close), 4)
    if kind in ("constant", "few"):
        assert found.parameters is None
        assert found.note is not None
        assert ("move" if kind == "constant" else str(FEWEST)) in found.note
        return
    assert found.parameters is not None
    record = found.parameters.to_record("A")
    assert symbols_of(record) == ("A",)
    assert all(np.isfinite(values).all() for values in record.values())
    hmm = Hmm(from_record("A", record))
    state = hmm.begin(HmmState(symbol="A"))
    for bar in [*zip(high, low, close, strict=True), (1e9, 1e-9, 1.0)]:
        seen = follow(state, *map(float, bar))
        if seen is None:
            continue
        verdict = step(hmm, state, seen)
        assert all(map(math.isfinite, verdict.probabilities.values()))
        assert math.isfinite(verdict.log_likelihood)
