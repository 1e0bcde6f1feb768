"""The `portfolios` agent: snapshots and commands in; signals, orders' lives, positions, equity and risk
out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import localcontext
from typing import Any

from schemas.codec import Unreadable
from schemas.partitioner import partition_of
from schemas.records import NEVER, Answer, Command, PortfolioSpec, Reason, Settings, Snapshot, StrategySpec
from schemas.states import PortfoliosPartition, PortfolioState
from schemas.topics import TOPICS
from streams import versions
from streams.agent import Input, Output, SourcePartition, dead_letter
from streams.correlations import packed
from streams.desk import Desk, new_state
from streams.errors import SettingsMissing
from streams.positions.money import ARITHMETIC, MAX_PRICE, MAX_VOLUME, PLACES
from streams.quoting.bars import MAX_SPREAD_BPS
from streams.signals.deciding import Decider
from streams.signals.loading import load
from streams.signals.strategy import Strategy

Refusal = tuple[Reason, str]
"""Why a record goes to the dead letters, and that in words."""

_SMALLEST_PRICE = float(PLACES)
_MAX_ORDINAL = 2**53  # room enough, and the next ones still fit Avro's long


class Portfolios:
    """Folds portfolio.events, keyed by portfolio; see `streams.desk` for what happens to one event.

    ``load_strategy`` makes the strategy that a portfolio's settings name; it raises StrategyError.
    """

    name = "portfolios"
    source = "portfolio.events"
    writes = (
        "strategy.signals",
        "trade.executions",
        "trade.positions",
        "trade.equity",
        "trade.orders",
        "risk.metrics",
        "risk.alerts",
        "system.dead_letters",
    )
    partition_type = PortfoliosPartition
    key_type = PortfolioState

    def __init__(self, load_strategy: Callable[[StrategySpec], Strategy[Any, Any]] = load) -> None:
        self._load = load_strategy
        self._loaded: dict[StrategySpec, Decider] = {}

    def step(
        self,
        where: SourcePartition,
        partition: PortfoliosPartition,
        keys: dict[str, PortfolioState],
        inputs: Sequence[Input],
    ) -> tuple[list[Output], set[str]]:
        """See `streams.agent.Agent`. Raises SettingsMissing, and StrategyError where one cannot be loaded."""
        run = _Run(self._decider, where, partition, keys)
        with localcontext(ARITHMETIC):
            for item in inputs:
                refused = run.take(item)
                if refused is not None:
                    reason, error = refused
                    letter = dead_letter(where, item, stage=self.name, reason=reason, error=error)
                    run.outputs.append(letter)
        return run.outputs, run.touched

    def _decider(self, spec: StrategySpec) -> Decider:
        decider = self._loaded.get(spec)
        if decider is None:
            decider = self._loaded[spec] = Decider(spec.name, self._load(spec))
        return decider


class _Run:
    """One run of a partition."""

    def __init__(
        self,
        decider: Callable[[StrategySpec], Decider],
        where: SourcePartition,
        partition: PortfoliosPartition,
        keys: dict[str, PortfolioState],
    ) -> None:
        self.outputs: list[Output] = []
        self.touched: set[str] = set()
        self._decider = decider
        self._where = where
        self._partition = partition
        self._keys = keys
        self._desks: dict[tuple[str, int], Desk] = {}
        self._know()

    def take(self, item: Input) -> Refusal | None:
        """Fold one record in; why it was refused, if it was."""
        value = item.value
        if isinstance(value, Unreadable):
            return value.reason, value.error
        if value is None:
            return Reason.WRONG_SCHEMA, "a record without value means nothing here"
        if isinstance(value, Settings):
            return self._settle(value)
        if self._partition.settings is None:
            raise SettingsMissing(self._where.topic, self._where.partition)
        if not isinstance(value, Snapshot | Command | Answer):
            return Reason.WRONG_SCHEMA, f"a {type(value).__name__} does not belong here"
        if item.key != value.portfolio.encode():
            return Reason.BAD_KEY, f"the key is {item.key!r}, the record is for portfolio {value.portfolio!r}"
        if isinstance(value, Snapshot):
            return self._decide(value, item)
        number = self._now(value.portfolio)
        if number is None:
            return self._undeclared(value.portfolio)
        if isinstance(value, Answer):
            return (
                Reason.WRONG_SCHEMA,
                f"portfolio {value.portfolio!r} trades on paper: nobody answers to its orders",
            )
        if value.after is not None and not 0 <= value.after.ordinal < _MAX_ORDINAL:
            return Reason.WRONG_SCHEMA, f"there is no ordinal {value.after.ordinal}"
        self._desk(value.portfolio, number).on_command(value)
        self.touched.add(value.portfolio)
        return None

    def _decide(self, snapshot: Snapshot, item: Input) -> Refusal | None:
        name = snapshot.portfolio
        state = self._keys.get(name)
        if state is not None and snapshot.start <= min(state.last_start, self._held[0].effective_from - 1):
            return None  # a repeat, of a time whose settings are forgotten
        number = self._number(snapshot.start)
        spec = self._specs[number].get(name)
        if spec is None or (state is not None and state.epoch > spec.epoch):
            if state is not None and snapshot.start <= max(
                state.last_start, self._held[number].effective_from
            ):
                return None  # left over from a portfolio, or an epoch, that is gone: a repeat
            return self._undeclared(name)
        refused = _check_snapshot(snapshot, spec)
        if refused is not None:
            return refused
        before = None
        if state is not None and state.last_start != NEVER:
            before = self._specs[self._number(state.last_start)].get(name)
        self._desk(name, number).on_snapshot(snapshot, item, self._where, before)
        self.touched.add(name)
        return None

    def _undeclared(self, portfolio: str) -> Refusal:
        return Reason.UNDECLARED_KEY, f"no portfolio {portfolio!r} in settings {self._held[-1].version}"

    def _number(self, start: int) -> int:
        """Which of the settings held are in force for a snapshot that starts at ``start``."""
        return self._held.index(versions.at(self._held, start))

    def _now(self, portfolio: str) -> int | None:
        """Those under which a portfolio stands behind its last snapshot; None where it is not, and will not be."""
        state = self._keys.get(portfolio)
        declared = [number for number, specs in enumerate(self._specs) if portfolio in specs]
        if state is None:
            return next(iter(declared), None)
        number = self._number(state.last_start)
        spec = self._specs[number].get(portfolio)
        if spec is not None and spec.epoch == state.epoch:
            return number
        same = (each for each in declared if self._specs[each][portfolio].epoch == state.epoch)
        return next(same, next(iter(declared), None))

    def _settle(self, told: Settings) -> Refusal | None:
        versions.forget(self._partition, self._is_done)
        past = max((state.last_start for state in self._keys.values()), default=NEVER)
        taken = versions.take(self._partition, told, past)
        self._know()
        if taken.error is None:
            return None
        if taken.settings is not None:
            for name in sorted(self._keys):
                number = self._now(name)
                if number is not None:
                    self._desk(name, number).on_late_settings(told.version, taken.error)
                    self.touched.add(name)
        return Reason.SETTINGS_CHANGED, taken.error

    def _is_done(self, old: Settings, new: Settings) -> bool:
        """Whether every portfolio of this partition has decided on its last snapshot before ``new``."""
        kept = {spec.name for spec in new.portfolios}
        partitions = TOPICS[self._where.topic].partitions
        for spec in old.portfolios:
            state = self._keys.get(spec.name)
            if state is None:
                if partition_of(spec.name, partitions) == self._where.partition:
                    return False
            elif (state.last_start if spec.name in kept else state.last_end) < new.effective_from:
                return False
        return True

    def _know(self) -> None:
        self._held = versions.held(self._partition)
        self._specs = [{spec.name: spec for spec in settings.portfolios} for settings in self._held]
        self._desks = {}
        for strategy in (
            each for specs in self._specs for spec in specs.values() for each in spec.strategies
        ):
            self._decider(strategy)  # what cannot be loaded is told now

    def _desk(self, portfolio: str, number: int) -> Desk:
        spec, version = self._specs[number][portfolio], self._held[number].version
        state = self._keys.get(portfolio)
        desk = self._desks.get((portfolio, version))
        if desk is None or state is None or state.epoch != spec.epoch:
            if state is None or state.epoch != spec.epoch:
                fresh = new_state(spec)
                if state is not None:  # commands wait for snapshots, of whichever epoch those will be
                    fresh.kept, fresh.seen = state.kept, state.seen
                state = self._keys[portfolio] = fresh
            deciders = [self._decider(strategy) for strategy in spec.strategies]
            desk = self._desks[portfolio, version] = Desk(spec, version, state, deciders, self.outputs)
        return desk


def _check_snapshot(snapshot: Snapshot, spec: PortfolioSpec) -> Refusal | None:
    """What would make a snapshot impossible to decide on: anyone may write to the topic."""
    symbols = [row.symbol for row in snapshot.rows]
    if snapshot.universe != spec.universe or not set(symbols) <= set(spec.symbols):
        return (
            Reason.UNDECLARED_KEY,
            f"universe {snapshot.universe!r} with {symbols} is not that of {spec.name!r}",
        )
    if symbols != sorted(set(symbols)):
        return Reason.WRONG_SCHEMA, f"rows are not in the order of their symbols, each once: {symbols}"
    if len(snapshot.covariance) != packed.size(len(symbols)):
        return Reason.WRONG_SCHEMA, f"{len(snapshot.covariance)} covariances for {len(symbols)} rows"
    if not all(map(math.isfinite, snapshot.covariance)):
        return Reason.WRONG_SCHEMA, "a covariance is not finite"
    for row in snapshot.rows:
        bar = row.bar
        for price in (bar.open, bar.high, bar.low, bar.close):
            if not _SMALLEST_PRICE <= price <= MAX_PRICE:
                return Reason.BAD_PRICE, f"{row.symbol}: price {price!r} is out of range"
        if not 0.0 <= bar.volume <= MAX_VOLUME:
            return Reason.BAD_SIZE, f"{row.symbol}: volume {bar.volume!r} is out of range"
        if row.quote is not None and not 0.0 <= row.quote.spread_bps <= MAX_SPREAD_BPS:
            return Reason.BAD_PRICE, f"{row.symbol}: spread {row.quote.spread_bps!r} bps is out of range"
    return None
