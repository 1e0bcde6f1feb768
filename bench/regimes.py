"""How well the hidden Markov model finds regimes whose truth is known, beside hmmlearn's smoothed path.

The smoothed path knows the future and is the upper bound of what a filter, which does not, can find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hmmlearn.hmm import GaussianHMM
from numpy.typing import NDArray

from bench.rig import put
from schemas.records import Label
from schemas.states import HmmState
from streams.hmm import Hmm, HmmParameters, step
from streams.hmm.fitting import features_of, fit

Floats = NDArray[np.float64]

SEEDS = (0, 1, 2, 3, 4)
DOCS = Path(__file__).parent.parent / "docs" / "regimes.md"
STAY = 0.98
"""Probability that a regime goes on: 50 bars on average."""
_STEPS = 30
"""Moves within a bar."""
_KINDS = {
    # per bar: drift in deviations, deviation in basis points
    Label.TRENDING: (0.5, 6.0),
    Label.RANGING: (0.0, 3.0),
    Label.CHOPPY: (0.0, 12.0),
    Label.CRISIS: (-0.2, 40.0),
}


@dataclass(frozen=True, slots=True)
class Panel:
    """Simulated bars, shape (T,), and the regime behind each."""

    high: Floats
    low: Floats
    close: Floats
    truth: tuple[Label, ...]


def simulated(seed: int, bars: int) -> Panel:
    """A market that switches between the four regimes, each a random walk of its own drift and deviation."""
    rng = np.random.default_rng(seed)
    kinds = list(_KINDS)
    current, price = 0, 4.0
    high, low, close, truth = [], [], [], []
    for _ in range(bars):
        if rng.random() > STAY:
            current = (current + int(rng.integers(1, len(kinds)))) % len(kinds)
        drift, points = _KINDS[kinds[current]]
        deviation = points * 1e-4
        moves = drift * deviation / _STEPS + deviation / np.sqrt(_STEPS) * rng.standard_normal(_STEPS)
        path = price + np.concatenate([[0.0], np.cumsum(moves)])
        price = float(path[-1])
        high.append(path.max())
        low.append(path.min())
        close.append(price)
        truth.append(kinds[current])
    return Panel(np.exp(high), np.exp(low), np.exp(close), tuple(truth))


@dataclass(frozen=True, slots=True)
class Score:
    """How well one simulated market was told. Delays are means over the changes that were found at all."""

    filtered: float
    """Share of the bars whose most probable word is right."""
    settled: float
    """The same of the label, after hysteresis."""
    smoothed: float
    """The same of the smoothed path's most probable word."""
    delay: float
    """Bars from a change until the label says so."""
    smoothed_delay: float
    """The same of the smoothed path."""
    missed: float
    """Share of the changes that the label never says."""


def score(seed: int, fitted_to: int = 4000, bars: int = 4000) -> Score:
    """Fit to the first bars, filter the ones after them, one by one; and hmmlearn's smoothed path at that fit."""
    panel = simulated(seed, fitted_to + bars)
    features = features_of(panel.high, panel.low, panel.close)
    found = fit(features[: fitted_to - 1], len(Label))
    assert found.parameters is not None
    told = found.parameters
    truth = panel.truth[fitted_to:]
    hmm = Hmm(told)
    state = hmm.begin(HmmState(symbol="S"))
    verdicts = [step(hmm, state, (row[0], row[1], row[2])) for row in features[fitted_to - 1 :].tolist()]
    best = [max(Label, key=lambda label, v=v: v.probabilities[label.value]) for v in verdicts]  # type: ignore[misc]
    settled = [verdict.label for verdict in verdicts]
    smoothed = _smoothed(told, features[fitted_to - 1 :])
    delay, missed = _delay(truth, settled)
    return Score(
        filtered=_share(truth, best),
        settled=_share(truth, settled),
        smoothed=_share(truth, smoothed),
        delay=delay,
        smoothed_delay=_delay(truth, smoothed)[0],
        missed=missed,
    )


def _smoothed(told: HmmParameters, features: Floats) -> list[Label]:
    model = GaussianHMM(len(told.words), covariance_type="full")
    model.n_features = told.means.shape[1]
    model.startprob_, model.transmat_ = told.start, told.transition
    model.means_, model.covars_ = told.means, told.covariances
    posterior = model.predict_proba((features - told.centre) / told.scale)
    by_word = np.zeros((len(features), len(Label)))
    labels = list(Label)
    for k, word in enumerate(told.words):
        by_word[:, labels.index(word)] += posterior[:, k]
    return [labels[k] for k in by_word.argmax(axis=1)]


def _share(truth: tuple[Label, ...], told: list[Label]) -> float:
    return float(np.mean([a is b for a, b in zip(truth, told, strict=True)]))


def _delay(truth: tuple[Label, ...], told: list[Label]) -> tuple[float, float]:
    """Mean bars from a change of the truth to the first bar that says so, and the share of changes never said."""
    changes = [t for t in range(1, len(truth)) if truth[t] is not truth[t - 1]]
    waits = []
    for t, end in zip(changes, [*changes[1:], len(truth)], strict=True):
        found = next((k - t for k in range(t, end) if told[k] is truth[k]), None)
        if found is not None:
            waits.append(found)
    return float(np.mean(waits)), 1.0 - len(waits) / len(changes)


def table(advance: Callable[[str], None]) -> str:
    """A row for each seed, as in the docs."""
    lines = [
        "| market | filtered | after hysteresis | smoothed | filtered / smoothed | delay, bars | smoothed | missed |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for seed in SEEDS:
        advance(f"market {seed}")
        found = score(seed)
        lines.append(
            f"| {seed} | {found.filtered:.1%} | {found.settled:.1%} | {found.smoothed:.1%} "
            f"| {found.filtered / found.smoothed:.3f} | {found.delay:.1f} | {found.smoothed_delay:.1f} "
            f"| {found.missed:.1%} |"
        )
    return "\n".join(lines)


def write(told: str) -> None:
    """Put the table in its place in docs/regimes.md."""
    put(DOCS, "<!-- headrace bench regimes -->", told)
