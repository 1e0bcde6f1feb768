"""A whole fit: the margins, then the correlations, then what the history says of tails and of stress."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from streams.correlations import packed
from streams.correlations.dcc import CLIP, DccParameters, Margins, Model, Volatility, move
from streams.correlations.fitting.correlation import Estimate, Method, Start, estimate, unfitted
from streams.correlations.fitting.margins import Margin, VarianceStart, fit_margin
from streams.correlations.fitting.targets import Target, correlation
from streams.correlations.packed import Floats

FEWEST = 30
"""Snapshots below which nothing is fitted."""
SHRINK_BEYOND = 0.2
"""Symbols per snapshot; where there are more, the target is shrunk."""
FEWEST_COMMON = 100
"""Bars that two neighbours have in common, on average, below which a and b are not fitted."""
STATIC = 0.02, 0.95
"""a and b where they are not fitted, or have no optimum."""

Map = Callable[[Callable[[Floats], Margin], Iterable[Floats]], Iterable[Margin]]
"""As the built-in ``map``: a process pool's does as well."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What is fitted."""

    model: Model = Model.DCC
    volatility: Volatility = Volatility.GARCH
    distribution: str = "normal"
    method: Method = Method.AUTO
    start: Start = Start.TARGET
    variance_start: VarianceStart = VarianceStart.BACKCAST
    target: Target | None = None
    """None: the correlation of the residuals, shrunk where symbols are many (`SHRINK_BEYOND`)."""
    clip: float = CLIP
    """Standard deviations; of the stream, not of the fit."""

    def margin(self, returns: Floats) -> Margin:
        """Fit one symbol's."""
        return fit_margin(returns, self.volatility, self.distribution, self.variance_start)


@dataclass(frozen=True, slots=True)
class DccFit:
    """A fit. ``converged`` is about the second stage.

    ``log_likelihood`` is that of margins and correlations together; None where the second stage was composite, whose
    likelihood is of another kind, or had no optimum.
    """

    parameters: DccParameters
    margins: tuple[Margin, ...]
    correlation: Estimate | None
    log_likelihood: float | None
    converged: bool
    notes: tuple[str, ...]


def fit(
    returns: Floats,
    symbols: Sequence[str],
    spec: Spec | None = None,
    mapped: Map = map,
) -> DccFit:
    """Fit to log returns, shape (T, n), NaN where a symbol had no bar.

    What could not be done as asked is in ``notes``.
    Raises ValueError for fewer than `FEWEST` rows, or where shapes do not agree.
    """
    spec = spec or Spec()
    observations, n = returns.shape
    if observations < FEWEST or n != len(symbols) or n < 1:
        raise ValueError(
            f"returns of shape {returns.shape} for {len(symbols)} symbols; {FEWEST} rows are needed"
        )
    margins = tuple(mapped(spec.margin, [np.ascontiguousarray(returns[:, i]) for i in range(n)]))
    notes = [f"{s}: {m.note}" for s, m in zip(symbols, margins, strict=True) if m.note]
    z = np.column_stack([margin.residuals for margin in margins])
    z = np.clip(z, -spec.clip, spec.clip) if math.isfinite(spec.clip) else z
    found: Estimate | None = None
    if n > 1:
        kind = spec.target or (Target.SHRINKAGE if n > SHRINK_BEYOND * observations else Target.CORRELATION)
        seen = ~np.isnan(z)
        common = float(np.mean(np.sum(seen[:, :-1] & seen[:, 1:], axis=0)))
        if common < min(FEWEST_COMMON, observations):
            found = unfitted(z, *STATIC, spec.model, method=spec.method, start=spec.start, kind=kind)
            notes.append(f"{common:.0f} bars in common: a = {STATIC[0]}, b = {STATIC[1]}, not fitted")
        else:
            found = estimate(z, spec.model, method=spec.method, start=spec.start, kind=kind)
        notes += found.notes
        if not found.converged:
            notes.append("the second stage did not converge")
    parameters = _parameters(symbols, spec, margins, found)
    likelihood = None
    if found is None or found.method is Method.FULL:
        likelihood = sum(margin.log_likelihood for margin in margins)
        likelihood += 0.0 if found is None else found.log_likelihood
    is_good = found is None or found.converged
    settled = _settled(parameters, returns)
    return DccFit(settled, margins, found, likelihood if is_good else None, is_good, tuple(notes))


def _parameters(
    symbols: Sequence[str], spec: Spec, margins: Sequence[Margin], found: Estimate | None
) -> DccParameters:
    n = len(margins)
    triangle = np.ones(packed.size(n)) if found is None else packed.pack(found.target)
    a, b, g = (0.0, 0.0, 0.0) if found is None else (found.a, found.b, found.g)
    if found is not None and not found.converged:
        a, b, g = *STATIC, 0.0
    by_name = {
        name: np.array([getattr(margin, name) for margin in margins])
        for name in ("mean", "omega", "alpha", "gamma", "beta", "nu")
    }
    return DccParameters(
        symbols=tuple(symbols),
        model=spec.model,
        margins=Margins(
            volatility=np.array([margin.volatility for margin in margins], dtype=np.int64),
            variance=np.array([margin.variance[0] for margin in margins]),
            **by_name,
        ),
        a=a,
        b=b,
        g=g,
        target=triangle,
        downside=np.zeros(packed.size(n)) if found is None else packed.pack(found.downside),
        q=triangle.copy() if spec.start is Start.TARGET else (1.0 - a) * triangle + a,
        clip=spec.clip,
    )


def _settled(begun: DccParameters, returns: Floats) -> DccParameters:
    """The same with variances and Q as they are behind the data: the stream's own steps over it."""
    variance, q = begun.margins.variance.copy(), begun.q.copy()
    for row in np.ascontiguousarray(returns):
        move(begun, variance, q, row)
    return replace(begun, margins=replace(begun.margins, variance=variance), q=q)


def lower_tail(returns: Floats, share: float = 0.1) -> Floats:
    """Empirical lower-tail coefficients, shape (n, n), of log returns, shape (T, n), NaN where missing.

    P(both below their own ``share`` quantile) / ``share``, over the bars that both have (Frahm, Junker & Schmidt 2005,
    eq. 13, at a fixed quantile); 1 on the diagonal, 0 where two have no bar in common.
    """
    seen = ~np.isnan(returns)
    n = returns.shape[1]
    below = np.zeros_like(returns)
    for i in range(n):
        column = returns[seen[:, i], i]
        if len(column):
            below[seen[:, i], i] = column <= np.quantile(column, share)
    common = seen.T.astype(np.float64) @ seen
    both = below.T @ below
    tail: Floats = np.divide(both, share * common, out=np.zeros((n, n)), where=common > 0.0)
    tail = np.minimum(tail, 1.0)
    np.fill_diagonal(tail, 1.0)
    return tail


def worst_window(returns: Floats, share: float = 0.1) -> tuple[int, int, Floats]:
    """The stretch in which the equally weighted portfolio lost most: begin, end, correlations in it, shape (n, n).

    ``returns`` are log returns, shape (T, n), NaN where missing (they count as 0); the stretch has ``share`` of all
    rows, 20 at least.
    """
    filled = np.nan_to_num(returns, nan=0.0)
    length = min(max(int(share * len(filled)), 20), len(filled))
    sums = np.concatenate([[0.0], np.cumsum(filled.mean(axis=1))])
    begin = int(np.argmin(sums[length:] - sums[:-length]))
    window = filled[begin : begin + length]
    centred = window - window.mean(axis=0)
    return begin, begin + length, np.clip(correlation(centred.T @ centred), -1.0, 1.0)
