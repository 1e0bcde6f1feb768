"""Baum-Welch by hmmlearn from starts that are the same every time, and words for the states that it finds."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from hmmlearn.hmm import GaussianHMM

from schemas.records import Label
from schemas.states import HmmState
from streams.correlations.packed import Floats
from streams.hmm.features import FEATURES, follow
from streams.hmm.filter import filtered
from streams.hmm.parameters import HmmParameters

FEWEST = 60
"""Bars below which nothing is fitted."""
_ITERATIONS, _TOLERANCE = 60, 1e-4
"""The tolerance is of the log-likelihood per bar."""
_FLOOR = 1e-3
"""Least variance of a state, in squared standard deviations of the feature."""
_STAY = 0.9
"""Probability of staying in a state, where Baum-Welch begins."""

logging.getLogger("hmmlearn").setLevel(logging.ERROR)  # a fit says itself whether it converged


@dataclass(frozen=True, slots=True)
class HmmFit:
    """A fitted model; ``parameters`` is None where there was nothing to fit to, and ``note`` says why."""

    parameters: HmmParameters | None
    log_likelihood: float
    converged: bool
    note: str | None = None


def features_of(high: Floats, low: Floats, close: Floats) -> Floats:
    """Features of one symbol's bars, shape (T', d), T' one less than the bars that are there (NaN: none)."""
    state = HmmState(symbol="")
    rows = [
        row
        for bar in zip(high.tolist(), low.tolist(), close.tolist(), strict=True)
        if not math.isnan(bar[2]) and (row := follow(state, *bar)) is not None
    ]
    return np.array(rows).reshape(len(rows), len(FEATURES))


def fit(features: Floats, states: int, near: HmmParameters | None = None) -> HmmFit:
    """Fit ``states`` Gaussian states with full covariances to features, shape (T, d).

    Baum-Welch begins at the parameters ``near`` by, those of the last fit: a few iterations then do. Without, or where
    that breaks, it begins twice: with the states as bands of the volatility, and as bands of the efficiency; the
    likelier end counts. A feature that does not vary keeps its scale of 1, and its variance the floor.
    """
    if len(features) < FEWEST:
        return HmmFit(None, math.nan, False, f"{len(features)} bars, {FEWEST} are needed")
    centre, scale = features.mean(axis=0), features.std(axis=0)
    if float(scale[0]) < 1e-9:
        return HmmFit(None, math.nan, False, "the price does not move")
    scale = np.where(scale > 1e-9, scale, 1.0)
    x = (features - centre) / scale
    begun = _again(near, centre, scale) if near is not None and len(near.words) == states else None
    ends = [] if begun is None else [end for end in [_end(x, begun)] if end is not None]
    if not ends:
        ends = [end for column in (1, 2) if (end := _end(x, _bands(x, states, column))) is not None]
    if not ends:
        return HmmFit(None, math.nan, False, "no start came to an end")
    model, likelihood, converged = max(ends, key=lambda end: end[1])
    covariances = model.covars_ + _FLOOR * np.eye(x.shape[1])
    transition = np.maximum(model.transmat_, 1e-6)
    transition /= transition.sum(axis=1, keepdims=True)
    parameters = HmmParameters(
        words=words(model.means_),
        start=np.maximum(model.startprob_, 0.0) / model.startprob_.sum(),
        transition=transition,
        means=model.means_,
        covariances=covariances,
        centre=centre,
        scale=scale,
    )
    path = np.empty((len(x), states))
    likelihood = filtered(x, parameters.start, True, transition, parameters.means, *parameters.roots(), path)
    note = None if converged else f"not converged in {_ITERATIONS} iterations"
    return HmmFit(replace(parameters, start=path[-1]), likelihood, converged, note)


class _Begin(NamedTuple):
    """Where Baum-Welch begins: of standardised features."""

    start: Floats
    transition: Floats
    means: Floats
    covariances: Floats


def _again(near: HmmParameters, centre: Floats, scale: Floats) -> _Begin:
    ratio = near.scale / scale
    means = (near.means * near.scale + near.centre - centre) / scale
    return _Begin(near.start, near.transition, means, near.covariances * np.outer(ratio, ratio))


def _bands(x: Floats, states: int, column: int) -> _Begin:
    order = np.argsort(x[:, column], kind="stable")
    bands = np.array_split(order, states)
    spread = 0.1 * np.eye(x.shape[1])
    off = (1.0 - _STAY) / (states - 1)
    return _Begin(
        start=np.full(states, 1.0 / states),
        transition=np.full((states, states), off) + (_STAY - off) * np.eye(states),
        means=np.array([x[band].mean(axis=0) for band in bands]),
        covariances=np.array([np.cov(x[band], rowvar=False) + spread for band in bands]),
    )


def _end(x: Floats, begin: _Begin) -> tuple[GaussianHMM, float, bool] | None:
    """Where Baum-Welch ends; None where it breaks."""
    model = GaussianHMM(
        n_components=len(begin.start),
        covariance_type="full",
        min_covar=_FLOOR,
        n_iter=_ITERATIONS,
        tol=_TOLERANCE * len(x),
        init_params="",
        random_state=0,
    )
    model.startprob_, model.transmat_ = begin.start, begin.transition
    model.means_, model.covars_ = begin.means, begin.covariances
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.fit(x)
            likelihood = float(model.score(x))
        except ValueError:  # a state that no bar is left in, or a covariance that is none
            return None
    return (model, likelihood, bool(model.monitor_.converged)) if math.isfinite(likelihood) else None


def words(means: Floats) -> tuple[Label, ...]:
    """The word for each state, by its mean features, shape (K, d):

    1. the most volatile: CRISIS;
    2. of the others the most efficient: TRENDING (where there are three states or more);
    3. of the others, those below their own median volatility or at it: RANGING, the others: CHOPPY.
    """
    left = list(range(len(means)))
    told = [Label.RANGING] * len(means)
    crisis = max(left, key=lambda k: means[k, 1])
    told[crisis] = Label.CRISIS
    left.remove(crisis)
    if len(left) > 1:
        trending = max(left, key=lambda k: means[k, 2])
        told[trending] = Label.TRENDING
        left.remove(trending)
    by_volatility = sorted(left, key=lambda k: means[k, 1])
    for state in by_volatility[(len(left) + 1) // 2 :]:
        told[state] = Label.CHOPPY
    return tuple(told)
