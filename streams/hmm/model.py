"""The streaming model of one symbol: a bar in, a verdict out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from schemas.records import Label
from schemas.states import HmmState
from streams.correlations.packed import Floats
from streams.hmm.filter import filtered
from streams.hmm.parameters import HmmParameters
from streams.regimes.hysteresis import settle

SURE = 0.6
"""A regime changes only to a word at least as probable,"""
BARS = 2
"""on so many bars one after another."""


class Verdict(NamedTuple):
    """What a bar says of a symbol."""

    label: Label
    previous: Label | None
    bars_since_change: int
    probabilities: dict[str, float]
    """Of the four words: sums over the states that each stands for."""
    expected_duration: float
    """Bars that the regime lasts on average: 1 / (1 - the probability of staying within its word)."""
    log_likelihood: float
    """Of this bar, given those before."""


@dataclass(frozen=True, slots=True)
class Hmm:
    """A fitted model and what a step needs of it."""

    parameters: HmmParameters
    fit: int = 0
    """Version of the fit."""
    _roots: tuple[Floats, Floats] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_roots", self.parameters.roots())

    def begin(self, state: HmmState) -> HmmState:
        """Let ``state`` go on under this fit, in place: its states are others, so their probabilities begin anew."""
        state.probabilities, state.fit = self.parameters.start.tolist(), self.fit
        return state


def step(hmm: Hmm, state: HmmState, features: tuple[float, float, float]) -> Verdict:
    """Filter one bar; ``state`` moves on in place.

    So that regimes do not flicker, the label changes only once another word has been the most probable one, and at
    least `SURE`, on `BARS` bars one after another; the first label is the most probable word.
    """
    told = hmm.parameters
    x = ((np.array(features) - told.centre) / told.scale).reshape(1, -1)
    out = np.empty((1, len(told.words)))
    likelihood = filtered(
        x, np.array(state.probabilities), False, told.transition, told.means, *hmm._roots, out
    )
    state.probabilities = out[0].tolist()
    words = dict.fromkeys((label.value for label in Label), 0.0)
    for word, probability in zip(told.words, state.probabilities, strict=True):
        words[word.value] += probability
    best = max(Label, key=lambda label: words[label.value])
    is_sure = words[best.value] >= SURE
    label = settle(state, best if is_sure or state.label is None else state.label, BARS)
    return Verdict(
        label,
        state.previous,
        state.bars_since_change,
        words,
        _duration(told, label, state.probabilities),
        likelihood,
    )


def _duration(told: HmmParameters, label: Label, probabilities: list[float]) -> float:
    """Of the states behind ``label``, weighted by their probabilities."""
    mine = [k for k, word in enumerate(told.words) if word is label]
    weights = np.array([probabilities[k] for k in mine])
    if not mine:
        return 0.0
    weights = weights / weights.sum() if weights.sum() > 0.0 else np.full(len(mine), 1.0 / len(mine))
    stay = float(weights @ told.transition[np.ix_(mine, mine)].sum(axis=1))
    return 1.0 / max(1.0 - stay, 1e-6)
