"""The `portfolios` agent: snapshots and commands in; signals, orders' lives, positions, equity and risk
out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import localcontext
from typing import Any

from schemas.codec import Unreadable
from schemas.records import Answer, Command, PortfolioSpec, Reason, Settings, Snapshot, StrategySpec
from schemas.states import PortfoliosPartition, PortfolioState
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
        self._desks: dict[str, Desk] = {}
        self._specs: dict[str, PortfolioSpec] = {}
        if partition.settings is not None:
            self._know(partition.settings)

    def take(self, item: Input) -> Refusal | None:
        """Fold one record in; why it was refused, if it was."""
        value = item.value
        if isinstance(value, Unreadable):
            return value.reason, value.error
        if value is None:
            return Reason.WRONG_SCHEMA, "a record without value means nothing here"
        if isinstance(value, Settings):
            return self._take_settings(value)
        if self._partition.settings is None:
            raise SettingsMissing(self._where.topic, self._where.partition)
        if not isinstance(value, Snapshot | Command | Answer):
            return Reason.WRONG_SCHEMA, f"a {type(value).__name__} does not belong here"
        if item.key != value.portfolio.encode():
            return Reason.BAD_KEY, f"the key is {item.key!r}, the record is for portfolio {value.portfolio!r}"
        spec = self._specs.get(value.portfolio)
        if spec is None:
            return Reason.UNDECLARED_KEY, f"no portfolio {value.portfolio!r} in settings {self._version}"
        if isinstance(value, Answer):
            return (
                Reason.WRONG_SCHEMA,
                f"portfolio {spec.name!r} trades on paper: nobody answers to its orders",
            )
        if isinstance(value, Command):
            if value.after is not None and not 0 <= value.after.ordinal < _MAX_ORDINAL:
                return Reason.WRONG_SCHEMA, f"there is no ordinal {value.after.ordinal}"
            self._desk(spec).on_command(value)
        else:
            refused = _check_snapshot(value, spec)
            if refused is not None:
                return refused
            self._desk(spec).on_snapshot(value, item, self._where)
        self.touched.add(spec.name)
        return None

    def _take_settings(self, settings: Settings) -> Refusal | None:
        held = self._partition.settings
        if held is None:
            self._partition.settings = settings
            self._know(settings)
        elif settings.version != held.version:
            return (
                Reason.SETTINGS_CHANGED,
                f"settings {settings.version} after {held.version}: they are fixed for a namespace",
            )
        return None

    def _know(self, settings: Settings) -> None:
        self._version = settings.version
        self._specs = {spec.name: spec for spec in settings.portfolios}
        self._deciders = {
            spec.name: [self._decider(strategy) for strategy in spec.strategies]
            for spec in settings.portfolios
        }

    def _desk(self, spec: PortfolioSpec) -> Desk:
        desk = self._desks.get(spec.name)
        if desk is None:
            state = self._keys.get(spec.name)
            if state is None or state.epoch != spec.epoch:
                state = self._keys[spec.name] = new_state(spec)
            desk = Desk(spec, self._version, state, self._deciders[spec.name], self.outputs)
            self._desks[spec.name] = desk
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
