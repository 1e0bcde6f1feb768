"""The `fitter` agent: bars of many partitions in, fits of models out, back into the topic that they came from.

universe.bars ─▶ barrier ─▶ history ─▶ (at each due) hmm, correlations ─▶ universe.bars

It is an agent as the others are: what it has seen and what it has fitted are committed with its position, so a fit is
made again after a kill, from the same history, and is the same. Its barrier never waits for fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from schemas.records import Fit, FitSpec, Settings, SnapshotRow, UniverseSpec
from schemas.states import FitterPartition, FitterState, HistoryBlock, UniverseState
from streams import barrier
from streams.agent import Input, Output, SourcePartition
from streams.barrier.fits import HMM, LAST
from streams.bars.kinds import parse_utc
from streams.correlations import fitting
from streams.correlations.packed import Floats
from streams.hmm import fitting as hmm_fitting
from streams.hmm import from_record, symbols_of
from streams.snapshots import Refused, Snapshots

BARS = "universe.bars"
BLOCK = 128
"""Snapshots in a block of history: what a commit writes again is the last one."""
SLOTS = 128
"""Blocks that are kept, and so `BLOCK` times as many snapshots, at most."""
COLUMNS = 5
"""open, high, low, close, volume"""

Mapped = Callable[[Callable[[Floats], fitting.Margin], Iterable[Floats]], Iterable[fitting.Margin]]


class Panel(NamedTuple):
    """A universe's history, oldest first."""

    starts: tuple[int, ...]
    """Of the snapshots, µs."""
    symbols: tuple[str, ...]
    bars: Floats
    """Shape (T, n, 5): open, high, low, close, volume; NaN where a symbol had no bar of its own."""

    def returns(self) -> Floats:
        """Log returns since the last close, shape (T, n); NaN where there is no bar, or none before."""
        close = self.bars[:, :, 3]
        returns = np.full(close.shape, math.nan)
        for i in range(close.shape[1]):
            seen = np.flatnonzero(~np.isnan(close[:, i]))
            returns[seen[1:], i] = np.diff(np.log(close[seen, i]))
        return returns


class Fitter:
    """Fits the models of each universe whose settings name some, when they are due (`streams.barrier.fits`).

    ``mapped`` runs the margins, as the built-in ``map`` does; a process pool's gives the same, sooner. ``told`` is
    given a line before and after each fit.
    """

    name = "fitter"
    source = BARS
    writes: tuple[str, ...] = (BARS,)
    partition_type = FitterPartition
    key_type = FitterState
    patience_s = 600.0
    """How long a step may rightly take: fits are made in it."""

    def __init__(self, mapped: Mapped = map, told: Callable[[str], None] = lambda _: None) -> None:
        self._mapped, self._told = mapped, told

    def step(
        self,
        where: SourcePartition,
        partition: FitterPartition,
        keys: dict[str, FitterState | HistoryBlock],
        inputs: Sequence[Input],
    ) -> tuple[list[Output], set[str]]:
        """Fold ``inputs`` into the histories of this partition; see `streams.agent.Agent.step`.

        What is bad input `universes` says, which reads the same records.

        Raises:
            SettingsMissing: a record comes before the settings.
        """
        outputs: list[Output] = []
        touched: set[str] = set()
        barriers = {name: state.barrier for name, state in keys.items() if isinstance(state, FitterState)}

        def fit(due: int, universe: UniverseSpec, spec: FitSpec) -> None:
            state = _state(keys, universe.name, barriers[universe.name])
            state.fits += 1
            now = _Due(universe, spec, state.fits, due, _panel(keys, universe, spec))
            outputs.extend(Output(BARS, universe.name, made, max(due, 0)) for made in self._fits(state, now))

        def on_closed(closed: barrier.Closed, spec: UniverseSpec, settings: Settings) -> None:
            if spec.fits is None:
                return
            if closed.due_before is not None:
                fit(closed.due_before, spec, spec.fits)
            touched.update(_remember(keys, spec.name, closed, spec.fits))
            if closed.due is not None:
                fit(closed.due, spec, spec.fits)

        def on_refused(item: Input, refused: Refused) -> None:
            pass

        run = Snapshots(where, partition, barriers, on_closed, on_refused, waits=False)
        for item in inputs:
            run.take(item)
        run.close()
        for universe in run.touched:
            _state(keys, universe, barriers[universe])
        return outputs, touched | run.touched

    def _fits(self, state: FitterState, now: _Due) -> Iterator[Fit]:
        """The fits of one due, `LAST` behind the others; ``state`` remembers the good ones."""
        universe, spec, panel = now.universe.name, now.spec, now.panel
        of = f"{len(panel.starts)} snapshots of {len(panel.symbols)} symbols of {universe}"
        if spec.regimes:
            self._told(f"fitting {spec.regimes} regimes to {of}")
            yield _kept(state, _regimes(now, state.good.get(HMM)))
        self._told(f"fitting {spec.volatility} margins and {spec.model} to {of}")
        fit = _kept(state, self._correlations(now))
        self._told(f"version {fit.version} of {universe}: {fit.status or 'converged'}")
        yield fit

    def _correlations(self, now: _Due) -> Fit:
        spec, panel = now.spec, now.panel
        returns = panel.returns()[1:]
        seen = [i for i in range(len(panel.symbols)) if not np.isnan(returns[:, i]).all()]
        symbols, returns = tuple(panel.symbols[i] for i in seen), np.ascontiguousarray(returns[:, seen])
        needed = max(spec.minimum, fitting.FEWEST)
        if len(returns) < needed or not symbols:
            return now.failed(LAST, f"{len(returns)} returns of {len(symbols)} symbols, {needed} are needed")
        told = fitting.Spec(spec.model, spec.volatility, spec.distribution)
        try:
            found = fitting.fit(returns, symbols, told, self._mapped)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:  # a fit that fails is a fit too
            return now.failed(LAST, f"{type(error).__name__}: {error}")
        parameters = found.parameters.to_record()
        begin, end, stress = fitting.worst_window(returns)
        upper = np.triu_indices(len(symbols), k=1)
        parameters["tail_dependence"] = tuple(fitting.lower_tail(returns)[upper].tolist())
        parameters["stress_correlations"] = tuple(stress[upper].tolist())
        parameters["stress_window"] = (
            float(panel.starts[begin + 1]),
            float(panel.starts[end] + now.size_us),
        )
        return now.fit(LAST, symbols, parameters, found.log_likelihood, found.notes, found.converged)


class _Due(NamedTuple):
    """One due of one universe, and what is fitted to."""

    universe: UniverseSpec
    spec: FitSpec
    version: int
    due: int
    panel: Panel

    @property
    def size_us(self) -> int:
        """Of a snapshot."""
        return parse_utc(self.universe.kind).size_us

    def fit(
        self,
        model: str,
        symbols: tuple[str, ...],
        parameters: dict[str, tuple[float, ...]],
        likelihood: float | None,
        notes: Sequence[str],
        converged: bool,
    ) -> Fit:
        """The record of a fit."""
        is_told = likelihood is not None and math.isfinite(likelihood)
        return Fit(
            universe=self.universe.name,
            model=model,
            version=self.version,
            due=self.due,
            data_through=self.panel.starts[-1] + self.size_us,
            holds_from=self.due + self.spec.lag_us,
            converged=converged,
            status="; ".join(notes),
            log_likelihood=likelihood if is_told else None,
            observations=len(self.panel.starts),
            symbols=symbols,
            parameters=parameters,
        )

    def failed(self, model: str, why: str) -> Fit:
        """The record of a fit that found nothing."""
        return self.fit(model, (), {}, None, [why], False)


def _regimes(now: _Due, before: Fit | None) -> Fit:
    """``before`` is the last good one, near which the next begins."""
    near = {} if before is None else before.parameters
    known = symbols_of(near)
    parameters: dict[str, tuple[float, ...]] = {}
    notes, likelihood, good = [], 0.0, list[str]()
    for i, symbol in enumerate(now.panel.symbols):
        _, high, low, close, _ = now.panel.bars[:, i, :].T
        begin = from_record(symbol, near) if symbol in known else None
        found = hmm_fitting.fit(hmm_fitting.features_of(high, low, close), now.spec.regimes, begin)
        if found.note is not None:
            notes.append(f"{symbol}: {found.note}")
        if found.parameters is not None:
            good.append(symbol)
            likelihood += found.log_likelihood
            parameters |= found.parameters.to_record(symbol)
    return now.fit(HMM, tuple(good), parameters, likelihood if good else None, notes, bool(good))


def _kept(state: FitterState, fit: Fit) -> Fit:
    """The fit as it is written: one that did not converge has the parameters of the last that did, if there is one."""
    if fit.converged:
        state.good[fit.model] = fit
        return fit
    good = state.good.get(fit.model)
    if good is None:
        return fit
    status = f"{fit.status}; parameters of version {good.version}"
    return msgspec.structs.replace(
        fit,
        symbols=good.symbols,
        parameters=good.parameters,
        status=status,
        log_likelihood=good.log_likelihood,
    )


def _state(
    keys: dict[str, FitterState | HistoryBlock], universe: str, of_barrier: UniverseState
) -> FitterState:
    state = keys.get(universe)
    if state is None:
        state = keys[universe] = FitterState(barrier=of_barrier)
    assert isinstance(state, FitterState)
    return state


# ---- history


def _slot(universe: str, ordinal: int) -> str:
    return f"{universe}\0{ordinal // BLOCK % SLOTS:03}"


def _remember(
    keys: dict[str, FitterState | HistoryBlock], universe: str, closed: barrier.Closed, spec: FitSpec
) -> list[str]:
    """Write a snapshot behind the history; blocks that the window has left are emptied. Returns the keys changed."""
    name = _slot(universe, closed.ordinal)
    block = keys.get(name)
    touched = [name]
    if block is None or (isinstance(block, HistoryBlock) and block.first // BLOCK != closed.ordinal // BLOCK):
        block = keys[name] = HistoryBlock(first=closed.ordinal)
        gone = closed.ordinal - BLOCK - spec.window - BLOCK
        left = keys.get(_slot(universe, gone)) if gone > 0 else None
        if isinstance(left, HistoryBlock) and left.first <= gone and left.starts:
            left.starts, left.columns = [], {}
            touched.append(_slot(universe, gone))
    assert isinstance(block, HistoryBlock)
    _append(block, closed.start, closed.rows)
    return touched


def _append(block: HistoryBlock, start: int, rows: Sequence[SnapshotRow]) -> None:
    count = len(block.starts)
    block.starts.append(start)
    absent = [math.nan] * COLUMNS
    own = {row.symbol: row.bar for row in rows if not row.stale}
    for symbol in own.keys() - block.columns.keys():
        block.columns[symbol] = absent * count
    for symbol, column in block.columns.items():
        bar = own.get(symbol)
        column += absent if bar is None else [bar.open, bar.high, bar.low, bar.close, bar.volume]
    block.columns = dict(sorted(block.columns.items()))


def _panel(keys: dict[str, FitterState | HistoryBlock], universe: UniverseSpec, spec: FitSpec) -> Panel:
    """The last ``window`` snapshots and the one before them, of the symbols that the universe has now."""
    begin = f"{universe.name}\0"
    blocks = sorted(
        (block for key, block in keys.items() if key.startswith(begin) and isinstance(block, HistoryBlock)),
        key=lambda block: block.first,
    )
    starts = [start for block in blocks for start in block.starts]
    bars = np.full((len(starts), len(universe.symbols), COLUMNS), math.nan)
    at = 0
    for block in blocks:
        length = len(block.starts)
        for i, symbol in enumerate(universe.symbols):
            column = block.columns.get(symbol)
            if column is not None:
                bars[at : at + length, i] = np.array(column).reshape(length, COLUMNS)
        at += length
    kept = slice(max(len(starts) - spec.window - 1, 0), None)
    return Panel(tuple(starts[kept]), universe.symbols, bars[kept])
