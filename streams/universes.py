"""The `universes` agent: bars of many partitions in, one snapshot per universe and bar start out.

universe.bars ─▶ barrier ─▶ hmm ─▶ correlations ─▶ market.regimes.hmm; market.correlations; portfolio.events, a part for
                                                   each portfolio
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from schemas.records import Settings, Snapshot, UniverseSpec
from schemas.states import UniversesPartition, UniverseState
from streams import barrier
from streams.agent import DEAD_LETTERS, Input, Output, SourcePartition, dead_letter
from streams.correlations.model import Covariance
from streams.estimates import Estimates, correlations
from streams.snapshots import Refused, Snapshots

REGIMES = "market.regimes.hmm"
CORRELATIONS = "market.correlations"
SNAPSHOTS = "portfolio.events"


class Universes:
    """Closes each universe's snapshots and estimates the covariance of its members on them."""

    name = "universes"
    source = "universe.bars"
    writes: tuple[str, ...] = (REGIMES, CORRELATIONS, SNAPSHOTS, DEAD_LETTERS)
    partition_type = UniversesPartition
    key_type = UniverseState

    def __init__(self) -> None:
        self._estimates = Estimates()

    def step(
        self,
        where: SourcePartition,
        partition: UniversesPartition,
        keys: dict[str, UniverseState],
        inputs: Sequence[Input],
    ) -> tuple[list[Output], set[str]]:
        """Fold ``inputs`` into the universes of this partition; see `streams.agent.Agent.step`.

        Raises:
            SettingsMissing: a record comes before the settings.
            UnknownKind: the settings name a universe whose bar kind does not exist.
        """
        outputs: list[Output] = []

        def on_closed(closed: barrier.Closed, spec: UniverseSpec, settings: Settings) -> None:
            outputs.extend(_results(keys[spec.name], closed, spec, settings, self._estimates))

        def on_refused(item: Input, refused: Refused) -> None:
            outputs.append(dead_letter(where, item, stage="barrier", **refused._asdict()))

        run = Snapshots(where, partition, keys, on_closed, on_refused)
        for item in inputs:
            run.take(item)
        run.close()
        return outputs, run.touched


def _results(
    state: UniverseState,
    closed: barrier.Closed,
    spec: UniverseSpec,
    settings: Settings,
    estimates: Estimates,
) -> Iterator[Output]:
    """What follows from a snapshot; the models' states move on."""
    for regime in estimates.regimes(state, closed, spec, settings):
        yield Output(REGIMES, spec.name, regime, closed.end)
    found = estimates.covariance(state, closed, spec)
    record = correlations(state, closed, spec, found, settings)
    yield Output(CORRELATIONS, spec.name, record, closed.end)
    yield from _snapshots(closed, found.covariance, spec, found.model, settings)


def _snapshots(
    closed: barrier.Closed, covariance: Covariance, spec: UniverseSpec, model: str, settings: Settings
) -> Iterator[Output]:
    for portfolio in settings.portfolios:
        if portfolio.universe != spec.name:
            continue
        wanted = frozenset(portfolio.symbols)
        rows = tuple(row for row in closed.rows if row.symbol in wanted)
        part = covariance.of([row.symbol for row in rows])
        record = Snapshot(
            portfolio=portfolio.name,
            universe=spec.name,
            start=closed.start,
            end=closed.end,
            kind=spec.kind,
            rows=rows,
            warm=part.warm(spec.warm_up),
            model=model,
            fit=part.fit,
            covariance=part.packed(),
            settings=settings.version,
        )
        yield Output(SNAPSHOTS, portfolio.name, record, closed.end)
