"""What follows from a snapshot, of the models in force: the universe's covariance, and a regime for each symbol.

The models bring kernels and their compiler. They are imported where a fit is there, so that others need not wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from schemas.records import Correlations, Fit, HmmRegime, Settings, UniverseSpec
from schemas.states import HmmState, UniverseState
from streams import barrier
from streams.barrier.fits import HMM, LAST
from streams.correlations.ewma import Ewma
from streams.correlations.model import Covariance, average
from streams.correlations.packed import Floats

if TYPE_CHECKING:
    from streams.correlations.dcc import Dcc
    from streams.hmm import Hmm

_COMPONENTS = 5
_ONCE = ("tail_dependence", "stress_correlations", "stress_window")
"""What a fit tells of its data, published in the first snapshot that it holds for."""


class Estimate(NamedTuple):
    """A covariance, who says so, and what else is told about it."""

    covariance: Covariance
    model: str
    unfitted: tuple[str, ...] = ()
    clipped: int = 0
    told: Mapping[str, tuple[float, ...]] = {}


class Estimates:
    """The fits of the universes of a partition, as models: made of the states alone, what is kept is a cache."""

    def __init__(self) -> None:
        self._dccs: dict[str, tuple[Fit, Dcc]] = {}
        self._hmms: dict[str, tuple[Fit, dict[str, Hmm]]] = {}

    def covariance(self, state: UniverseState, closed: barrier.Closed, spec: UniverseSpec) -> Estimate:
        """Take a snapshot into the models of the covariance: the EWMA always, and the fitted one where there is one.

        Symbols that the fit does not have keep their EWMA variance, uncorrelated: what is put together stays positive
        semidefinite.
        """
        told: dict[str, tuple[float, ...]] = {}
        for fit in closed.fits:
            if fit.model == LAST:
                told = self._begin(state, fit)
        if spec.fits is None:  # the settings have no models any more
            state.fit = state.dcc = state.hmm_fit = None
            state.hmm = []
        closes = {row.symbol: row.bar.close for row in closed.rows if not row.stale}
        ewma = Ewma(spec.decay)
        state.ewma, plain = ewma.step(state.ewma, closes)
        if state.fit is None or state.dcc is None:
            return Estimate(plain._replace(fit=None if state.fit is None else state.fit.version), ewma.name)
        dcc = self._dcc(spec.name, state.fit)
        state.dcc, fitted = dcc.step(state.dcc, closes)
        members = {row.symbol for row in closed.rows}
        unfitted = tuple(sorted(members - set(fitted.symbols)))
        covariance = _joined(plain, fitted)
        return Estimate(covariance, dcc.name, unfitted, state.dcc.clipped, told)

    def _begin(self, state: UniverseState, fit: Fit) -> dict[str, tuple[float, ...]]:
        """A fit of the correlations holds from here on; what it tells once."""
        from streams.correlations.dcc import Dcc, from_record

        told = {name: fit.parameters[name] for name in _ONCE if name in fit.parameters}
        if "target" not in fit.parameters:  # it failed, and none before it was good
            state.fit, state.dcc = fit, None
            return told
        closes = {
            symbol: close
            for symbol, close in zip(state.ewma.symbols, state.ewma.closes, strict=True)
            if close is not None
        }
        observations = dict(zip(state.ewma.symbols, state.ewma.observations, strict=True))
        after = Dcc(from_record(fit.symbols, fit.parameters), fit.version)
        if state.fit is not None and state.dcc is not None:
            before = self._dcc(fit.universe, state.fit)
            state.dcc = after.go_on(before, state.dcc, closes, observations)
        else:
            state.dcc = after.begin(closes, observations)
        # The state is written at each commit: what was used once is left out of it. ``q`` has begun, and moves on.
        kept = {name: values for name, values in fit.parameters.items() if name not in _ONCE}
        state.fit = msgspec.structs.replace(fit, parameters=kept)
        return told

    def _dcc(self, universe: str, fit: Fit) -> Dcc:
        from streams.correlations.dcc import Dcc, from_record

        known = self._dccs.get(universe)
        if known is None or known[0] is not fit:
            known = fit, Dcc(from_record(fit.symbols, fit.parameters), fit.version)
            self._dccs[universe] = known
        return known[1]

    def regimes(
        self, state: UniverseState, closed: barrier.Closed, spec: UniverseSpec, settings: Settings
    ) -> Iterator[HmmRegime]:
        """Take a snapshot into the hidden Markov models.

        A verdict for each symbol that has a bar of its own and a model.
        """
        for fit in closed.fits:
            if fit.model == HMM:
                state.hmm_fit = fit
        if spec.fits is None or not spec.fits.regimes:
            return
        from streams import hmm

        models: dict[str, Hmm] = {} if state.hmm_fit is None else self._models(spec.name, state.hmm_fit)
        states = {each.symbol: each for each in state.hmm}
        for row in closed.rows:
            if row.stale:
                continue
            own = states.setdefault(row.symbol, HmmState(symbol=row.symbol))
            features = hmm.follow(own, row.bar.high, row.bar.low, row.bar.close)
            model = models.get(row.symbol)
            if features is None or model is None or state.hmm_fit is None:
                continue
            if own.fit != model.fit:
                model.begin(own)
            verdict = hmm.step(model, own, features)
            yield HmmRegime(
                universe=spec.name,
                symbol=row.symbol,
                start=closed.start,
                end=closed.end,
                label=verdict.label,
                probabilities=verdict.probabilities,
                fit=model.fit,
                settings=settings.version,
                previous=verdict.previous,
                bars_since_change=verdict.bars_since_change,
                expected_duration=verdict.expected_duration,
                states=model.parameters.words,
                transition=tuple(model.parameters.transition.ravel().tolist()),
                features=dict(zip(hmm.FEATURES, features, strict=True)),
                log_likelihood=verdict.log_likelihood,
                fit_converged=state.hmm_fit.converged,
            )
        state.hmm = [states[symbol] for symbol in sorted(states)]

    def _models(self, universe: str, fit: Fit) -> dict[str, Hmm]:
        from streams.hmm import Hmm, from_record, symbols_of

        known = self._hmms.get(universe)
        if known is None or known[0] is not fit:
            told = fit.parameters
            models = {s: Hmm(from_record(s, told), fit.version) for s in symbols_of(told)}
            known = self._hmms[universe] = fit, models
        return known[1]


def _joined(plain: Covariance, fitted: Covariance) -> Covariance:
    """``fitted`` for all symbols of ``plain``: those that it does not have keep their variance there, and no more."""
    if fitted.symbols == plain.symbols:
        return fitted
    joined = fitted.of(plain.symbols)
    others = [k for k, symbol in enumerate(plain.symbols) if symbol not in fitted.symbols]
    joined.matrix[others, others] = plain.matrix[others, others]
    return joined._replace(observations=plain.observations)


def correlations(
    state: UniverseState, closed: barrier.Closed, spec: UniverseSpec, found: Estimate, settings: Settings
) -> Correlations:
    """The record of a snapshot's covariance: of all members that ever had a bar."""
    covariance = found.covariance.of([row.symbol for row in closed.rows])
    packed = covariance.correlations()
    components = _components(len(covariance.symbols), packed)
    fit = state.fit
    return Correlations(
        universe=spec.name,
        start=closed.start,
        end=closed.end,
        kind=spec.kind,
        model=found.model,
        fit=covariance.fit,
        warm=covariance.warm(spec.warm_up),
        observations=closed.ordinal,
        symbols=covariance.symbols,
        stale=tuple(row.stale for row in closed.rows),
        volatilities=covariance.volatilities(),
        correlations=packed,
        average_correlation=average(packed),
        settings=settings.version,
        eigenvalues=tuple(components.tolist()),
        explained=_explained(components),
        diversification_ratio=_diversification(covariance.matrix),
        effective_bets=_bets(components),
        fit_age_us=None if fit is None else closed.end - fit.data_through,
        fit_converged=None if fit is None else fit.converged,
        fit_status="" if fit is None else fit.status,
        log_likelihood=None if fit is None else fit.log_likelihood,
        hmm_fit=None if state.hmm_fit is None else state.hmm_fit.version,
        unfitted=found.unfitted,
        clipped=found.clipped,
        tail_dependence=tuple(found.told.get("tail_dependence", ())),
        stress_correlations=tuple(found.told.get("stress_correlations", ())),
        stress_window=tuple(int(each) for each in found.told.get("stress_window", ())),
    )


def _components(n: int, packed: tuple[float, ...]) -> Floats:
    """Eigenvalues of the correlation matrix, largest first; what rounding puts below 0 is 0."""
    matrix = np.eye(n)
    matrix[np.triu_indices(n, k=1)] = packed
    eigenvalues: Floats = np.maximum(np.linalg.eigvalsh(matrix, UPLO="U")[::-1], 0.0)
    return eigenvalues


def _explained(eigenvalues: Floats) -> tuple[float, ...]:
    shares = np.cumsum(eigenvalues[:_COMPONENTS]) / max(float(eigenvalues.sum()), 1e-300)
    return tuple(np.minimum(shares, 1.0).tolist())


def _diversification(matrix: Floats) -> float:
    """(Choueifaty & Coignard 2008, of equal weights.)"""
    whole = float(matrix.sum())
    return float(np.sqrt(matrix.diagonal()).sum()) / math.sqrt(whole) if whole > 0.0 else 1.0


def _bets(eigenvalues: Floats) -> float:
    shares = eigenvalues[eigenvalues > 0.0] / max(float(eigenvalues.sum()), 1e-300)
    return math.exp(-float(np.sum(shares * np.log(shares)))) if len(shares) else 1.0
