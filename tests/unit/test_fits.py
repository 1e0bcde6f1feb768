"""When fits are due, what waits for them, and that models made of bad bars publish nothing that is no number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import encode_body
from schemas.records import (
    Clock,
    CorrelationModel,
    Correlations,
    Fit,
    FitSpec,
    HmmRegime,
    Record,
    UniverseBar,
    UniverseSpec,
)
from schemas.states import (
    EwmaState,
    FitterPartition,
    FitterState,
    HistoryBlock,
    UniversesPartition,
    UniverseState,
)
from streams import barrier
from streams.agent import Input, Output, SourcePartition
from streams.barrier import fits
from streams.barrier.fits import LAST
from streams.fitter import BLOCK, Fitter
from streams.universes import Universes
from tests import examples
from tests.examples import DAY0, MINUTE

WHERE = SourcePartition("universe.bars", 0)
SPEC = FitSpec(
    model=CorrelationModel.DCC,
    every_us=40 * MINUTE,
    lag_us=2 * MINUTE,
    window=120,
    minimum=30,
    regimes=2,
    waits=True,
)
SYMBOLS = ("A", "B", "C")


def told(spec: FitSpec | None = SPEC, symbols: tuple[str, ...] = SYMBOLS) -> Any:
    universe = UniverseSpec(name="u1", symbols=symbols, kind="time:1m", warm_up=2, fits=spec)
    return examples.settings(universes=(universe,), portfolios=())


def bars(closes: dict[str, np.ndarray]) -> list[Record]:
    """A bar of each symbol each minute, NaN: none; then the clocks that close the minute."""
    records: list[Record] = []
    for minute in range(len(next(iter(closes.values())))):
        start = DAY0 + minute * MINUTE
        for symbol, path in closes.items():
            close = float(path[minute])
            if not math.isnan(close):
                bar = examples.bar(symbol, start, close, high=close * 1.001, low=close / 1.001)
                records.append(UniverseBar(universe="u1", bar=bar))
        records += [
            Clock(universe="u1", topic="market.ticks", partition=number, through=start + MINUTE)
            for number in range(4)
        ]
    return records


def walk(seed: int, minutes: int, scale: float = 1e-3) -> np.ndarray:
    return 50.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0.0, scale, minutes)))


def inputs(records: list[Record], settings: Any) -> list[Input]:
    first = Input(0, 0, None, settings, b"")
    return [first, *(Input(number, 0, b"u1", record, b"") for number, record in enumerate(records, 1))]


def fitted(records: list[Record], cuts: list[int] = [], spec: FitSpec | None = SPEC) -> tuple[list[Fit], Any]:  # noqa: B006
    """What the fitter writes, its input cut into runs, and its states."""
    agent, partition = Fitter(), FitterPartition()
    keys: dict[str, FitterState | HistoryBlock] = {}
    whole, outputs = inputs(records, told(spec)), list[Output]()
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        outputs += agent.step(WHERE, partition, keys, whole[begin:end])[0] if begin < end else []
    return [each.value for each in outputs if isinstance(each.value, Fit)], keys


def published(records: list[Record], made: list[Fit], settings: Any) -> list[Output]:
    """What `universes` makes of the bars, the fits behind all of them: snapshots wait."""
    agent, partition, keys = Universes(), UniversesPartition(), dict[str, UniverseState]()
    outputs, _ = agent.step(WHERE, partition, keys, inputs([*records, *made], settings))
    return outputs


def test_dues_are_a_function_of_the_snapshots() -> None:
    state = UniverseState(ewma=EwmaState())
    every = SPEC.every_us

    def closes(start: int) -> tuple[int | None, int | None]:
        return fits.closed(state, SPEC, start, start + MINUTE)

    assert closes(DAY0) == (None, None), "none before the first snapshot"
    assert closes(DAY0 + every - MINUTE) == (None, DAY0 + every), "one that ends at the due"
    assert closes(DAY0 + every) == (None, None)
    assert closes(DAY0 + 3 * every) == (DAY0 + 3 * every, None), "in a gap, the last due before it"
    assert closes(DAY0 + 5 * every - MINUTE) == (DAY0 + 4 * every, DAY0 + 5 * every)
    assert closes(DAY0 + 9 * every + MINUTE) == (None, None), "nothing is new since the last"
    assert state.dues == [DAY0 + n * every for n in (1, 3, 4, 5)]


def test_a_snapshot_waits_for_the_fit_that_should_hold_and_no_longer() -> None:
    records = bars({symbol: walk(number, 90) for number, symbol in enumerate(SYMBOLS)})
    made, _ = fitted(records)
    assert [(each.model, each.due) for each in made] == [
        (model, DAY0 + n * SPEC.every_us) for n in (1, 2) for model in ("hmm", LAST)
    ]
    assert [each.converged for each in made] == [False, True, True, True], "39 bars are few for regimes"
    assert [each.log_likelihood is None for each in made] == [True, False, False, False]
    without = [each.value for each in published(records, [], told()) if isinstance(each.value, Correlations)]
    assert [each.start for each in without][-1] == DAY0 + 41 * MINUTE
    seen = [each.value for each in published(records, made, told()) if isinstance(each.value, Correlations)]
    assert len(seen) == 90
    begins = {fit: next(each.start for each in seen if each.fit == fit) for fit in (1, 2)}
    assert begins == {1: DAY0 + 42 * MINUTE, 2: DAY0 + 82 * MINUTE}
    assert [each.model for each in seen] == ["ewma"] * 42 + ["DCC"] * 48
    first = next(each for each in seen if each.fit == 1)
    assert len(first.tail_dependence) == len(first.stress_correlations) == 3
    assert sum(bool(each.tail_dependence) for each in seen) == 2


def test_live_a_late_fit_holds_from_the_snapshot_after_it() -> None:
    spec = msgspec.structs.replace(SPEC, waits=False, regimes=0)
    records = bars({symbol: walk(number, 90) for number, symbol in enumerate(SYMBOLS)})
    made, _ = fitted(records, spec=spec)
    late = next(
        number
        for number, each in enumerate(records)
        if isinstance(each, UniverseBar) and each.bar.start == DAY0 + 60 * MINUTE
    )
    whole = [*records[:late], *made[:1], *made[:1], *records[late:]]
    seen = [each.value for each in published(whole, [], told(spec)) if isinstance(each.value, Correlations)]
    assert len(seen) == 90
    assert next(each.start for each in seen if each.fit == 1) == DAY0 + 60 * MINUTE


@given(st.lists(st.integers(1, 500), max_size=6))
@settings(max_examples=8, deadline=None)
def test_fits_do_not_depend_on_how_the_input_is_cut(cuts: list[int]) -> None:
    records = bars({symbol: walk(number, 82) for number, symbol in enumerate(SYMBOLS)})
    spec = msgspec.structs.replace(SPEC, regimes=0)
    whole, cut = (fitted(records, each, spec)[0] for each in ([], sorted(cuts)))
    assert [encode_body("universe.bars", fit) for fit in cut] == [
        encode_body("universe.bars", fit) for fit in whole
    ]
    assert len(whole) == 2


def test_history_is_kept_for_the_window_and_let_go() -> None:
    spec = msgspec.structs.replace(SPEC, every_us=1440 * MINUTE, window=BLOCK, regimes=0)
    records = bars({"A": walk(1, 6 * BLOCK)})
    _, keys = fitted(records, spec=spec)
    blocks = [state for state in keys.values() if isinstance(state, HistoryBlock)]
    assert sum(bool(block.starts) for block in blocks) in (3, 4)
    assert max(len(block.starts) for block in blocks) == BLOCK
    assert all(len(block.columns["A"]) == 5 * len(block.starts) for block in blocks if block.starts)


def paths(kind: str) -> Iterator[tuple[str, np.ndarray]]:
    for number, symbol in enumerate(SYMBOLS):
        path = walk(number, 130)
        if symbol == "B":
            match kind:
                case "constant":
                    path = np.full(130, 20.0)
                case "jump":
                    path[95:] *= 2.0
                case "silent":
                    path[50:110] = np.nan
                case "identical":
                    path = walk(0, 130)
                case "never":
                    path[:] = np.nan
        yield symbol, path


@pytest.mark.parametrize("model", CorrelationModel)
@pytest.mark.parametrize("kind", ["constant", "jump", "silent", "identical", "never"])
def test_bad_prices_make_no_number_that_is_none(kind: str, model: CorrelationModel) -> None:
    regimes = 2 if model is CorrelationModel.DCC else 0  # they have nothing to do with each other
    spec = msgspec.structs.replace(SPEC, model=model, regimes=regimes)
    records = bars(dict(paths(kind)))
    made, _ = fitted(records, spec=spec)
    outputs = published(records, made, told(spec))
    seen = [each.value for each in outputs if isinstance(each.value, Correlations)]
    assert len(seen) == 130
    for each in seen:
        numbers = [*each.volatilities, *each.correlations, *each.eigenvalues, *each.explained]
        numbers += [each.diversification_ratio, each.effective_bets, each.average_correlation]
        assert all(map(math.isfinite, numbers))
        assert all(-1.0 <= value <= 1.0 for value in each.correlations)
    for regime in (each.value for each in outputs if isinstance(each.value, HmmRegime)):
        assert all(map(math.isfinite, [*regime.probabilities.values(), regime.expected_duration]))
    last = seen[-1]
    assert last.model == model.value
    match kind:
        case "constant":
            assert "B: " in last.fit_status
        case "jump":
            assert max(each.clipped for each in seen) >= 1
        case "silent":
            assert any(each.stale[each.symbols.index("B")] for each in seen if "B" in each.symbols)
        case "identical" if model is not CorrelationModel.DECO:
            assert "singular" in last.fit_status
        case "never":
            assert "B" not in last.symbols


def test_a_symbol_that_joins_is_told_as_not_fitted() -> None:
    path = walk(5, 60)
    path[:45] = np.nan
    records = bars({"A": walk(1, 60), "B": walk(2, 60), "C": path})
    made, _ = fitted(records)
    seen = [each.value for each in published(records, made, told()) if isinstance(each.value, Correlations)]
    assert seen[-1].unfitted == ("C",)
    assert seen[-1].model == "DCC"
    place = seen[-1].symbols.index("C")
    assert seen[-1].volatilities[place] > 0.0


def test_terms_without_a_wish_to_wait() -> None:
    settings = told()
    spec = settings.universes[0]
    assert barrier.terms(spec, settings).fits == SPEC
    alone = barrier.terms(spec, settings, waits=False).fits
    assert alone is not None
    assert not alone.waits
