"""The versions of the settings that a partition runs under: from when each holds, and what may differ between them.

A window belongs to the settings in force at its start: the last whose ``effective_from`` is at or before it. A
partition keeps those that an open window, or a tick in time, may still belong to. They change at the place of a
settings record alone, so what holds at any place is a function of the records before it (DESIGN.md rule 15).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

import msgspec

from schemas.records import NEVER, PortfolioSpec, Record, Settings, SourceSpec
from streams.bars.kinds import DAY_US, MOST_KINDS, Family, parse
from streams.errors import UnknownKind


class Partition(Protocol):
    """A partition's state, as far as it is about settings."""

    settings: Settings | None
    later: list[Settings]


class Taken(NamedTuple):
    """What became of a settings record.

    ``settings`` are those that hold from now on, with the ``effective_from`` of here; None: a repeat, or refused.
    ``error`` is what people must be told, in words; None: nothing.
    """

    settings: Settings | None
    error: str | None


def held(partition: Partition) -> tuple[Settings, ...]:
    """All that a partition keeps, by ``effective_from``; empty before its first record."""
    return () if partition.settings is None else (partition.settings, *partition.later)


def newest(partition: Partition) -> Settings | None:
    """The settings that were read last: what is declared from now on."""
    return partition.later[-1] if partition.later else partition.settings


def at(versions: Sequence[Settings], start: int) -> Settings:
    """The settings in force for a window that starts at ``start``, µs; of an older window the oldest known."""
    for settings in reversed(versions):
        if settings.effective_from <= start:
            return settings
    return versions[0]


def take(partition: Partition, told: Settings, past: int) -> Taken:
    """Keep ``told`` beside what is held; a version that is held already, or older, is a repeat.

    ``past`` is the latest event time (µs) that the partition has seen: what was seen was judged by the settings of
    before. Settings that should have held at or before it hold from the next microsecond on, and people are told.
    """
    last = newest(partition)
    if last is None:
        partition.settings = told
        return Taken(told, None)
    if told.version <= last.version:
        return Taken(None, None)
    faults = fixed(last, told) + too_many_kinds([*held(partition), told])
    if faults:
        error = f"settings {told.version} change what is fixed for a namespace: {'; '.join(faults)}"
        return Taken(None, error)
    begins = max(told.effective_from, past + 1, last.effective_from + 1)
    late: str | None = None
    if begins > told.effective_from:
        late = (
            f"settings {told.version} hold here from {begins}, not from {told.effective_from}: this partition was "
            f"past it when they came. The run cannot be compared"
        )
        told = msgspec.structs.replace(told, effective_from=begins)
    partition.later = [*partition.later, told]  # a new list: plans are known by it
    return Taken(told, late)


def forget(partition: Partition, is_done: Callable[[Settings, Settings], bool]) -> None:
    """Drop the oldest as long as nothing can belong to them any more: ``is_done`` says so of (them, the next)."""
    while (
        partition.settings is not None and partition.later and is_done(partition.settings, partition.later[0])
    ):
        partition.settings, *partition.later = partition.later


def reach_us(kinds: Sequence[str]) -> int:
    """The length of the longest window among ``kinds``; a session's is at most a day."""
    parsed = [parse(kind) for kind in kinds]
    return max(
        (
            DAY_US if kind.family is Family.SESSION else kind.size_us
            for kind in parsed
            if kind.family <= Family.SESSION
        ),
        default=0,
    )


def fixed(before: Settings, after: Settings) -> list[str]:
    """What ``after`` changes and no running namespace can, as people name it in ``headrace.toml``.

    What a window waits for, which ticks count at all, and what a state stands for would be two things at once.
    """
    found = []
    for field, name in (
        ("lateness_us", "market.lateness_ms"),
        ("max_ahead_us", "market.max_ahead_s"),
        ("leave_out", "market.leave_out"),
        ("round_lot", "market.round_lot"),
        ("tick_partitions", "the partitions of market.ticks"),
        ("quote_partitions", "whether there are market.quotes"),
    ):
        if getattr(before, field) != getattr(after, field):
            found.append(name)
    for field in ("period", "band_period", "slow_period"):
        if getattr(before.regimes, field) != getattr(after.regimes, field):
            found.append(f"market.regimes.{field}")
    found += _unknown_kinds(after)
    found += _clocks("market.sources", before.sources, after.sources)
    found += _clocks("market.quotes.sources", before.quote_sources, after.quote_sources)
    bars = {universe.name: universe.kind for universe in before.universes}
    for universe in after.universes:
        if bars.get(universe.name, universe.kind) != universe.kind:
            found.append(f"universe {universe.name}: bar")
    books = {book.name: book for book in before.portfolios}
    for book in after.portfolios:
        if book.name in books:
            found += [f"portfolio {book.name}: {what}" for what in _book(books[book.name], book)]
    return found


def too_many_kinds(held: Sequence[Settings]) -> list[str]:
    """What is wrong where settings that are held together name more kinds than can be built at once."""
    too_many = len({kind for settings in held for kind in settings.kinds}) > MOST_KINDS
    return [f"market.bars: more than {MOST_KINDS} kinds, with those of before"] if too_many else []


def _unknown_kinds(after: Settings) -> Iterator[str]:
    for kind in {*after.kinds, *(universe.kind for universe in after.universes)}:
        try:
            parse(kind)
        except UnknownKind as error:
            yield str(error)


def _clocks(what: str, before: Sequence[SourceSpec], after: Sequence[SourceSpec]) -> Iterator[str]:
    known = {source.name: source.clock for source in before}
    for source in after:
        if known.get(source.name, source.clock) is not source.clock:
            yield f"{what}: {source.name}: clock"


def _book(before: PortfolioSpec, after: PortfolioSpec) -> Iterator[str]:
    if after.epoch < before.epoch:
        yield "epoch (it only grows)"
    if after.epoch != before.epoch:  # it begins anew
        return
    for field in ("universe", "currency", "cash", "account"):
        if getattr(before, field) != getattr(after, field):
            yield f"{field} (unless its epoch is raised)"
    uses = {strategy.name: strategy.uses for strategy in before.strategies}
    for strategy in after.strategies:
        if uses.get(strategy.name, strategy.uses) != strategy.uses:
            yield f"strategy {strategy.name}: uses (another strategy takes another name)"


def differences(before: Record, after: Record) -> list[tuple[str, str, str]]:
    """What differs between two records of the same kind: path, before, after; "-" where there is nothing.

    Elements of a sequence are known by their ``name``, or else by what they are.
    """
    return list(_differences((), _plain(before), _plain(after)))


def _differences(path: tuple[str, ...], before: Any, after: Any) -> Iterator[tuple[str, str, str]]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _differences((*path, key), before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list):
        gone, new = (
            [each for each in one if each not in other] for one, other in ((before, after), (after, before))
        )
        yield ".".join(path), ", ".join(gone) or "-", ", ".join(new) or "-"
    else:
        yield ".".join(path), _shown(before), _shown(after)


def _plain(value: Any) -> Any:
    """A record as dicts and lists of words; sequences of named records are dicts by name."""
    if isinstance(value, msgspec.Struct):
        return {field: _plain(getattr(value, field)) for field in value.__struct_fields__}
    if isinstance(value, tuple):
        if value and all(hasattr(each, "name") and isinstance(each, msgspec.Struct) for each in value):
            return {each.name: _plain(each) for each in value}
        return [str(each) for each in value] if value else {}
    return value


def _shown(value: Any) -> str:
    if value is None or value in ({}, []):
        return "-"
    if isinstance(value, dict):
        parts = (
            f"{key} {_shown(each)}" for key, each in value.items() if key != "name" and _shown(each) != "-"
        )
        return f"({', '.join(parts)})"
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, Decimal):  # as said and as read from Kafka, where every one has nine places
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return "always" if value == NEVER else str(value)
