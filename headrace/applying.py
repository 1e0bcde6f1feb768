"""Settings that change while ticks flow: a new version, written into every input partition (DESIGN.md rule 15)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from headrace import history, moments, sending
from headrace.reading import Reading
from headrace.sending import Outgoing
from headrace.topics import SettingsDiffer, TopicsError
from schemas.codec import Codec
from schemas.records import NEVER, ClockKind, Quote, Settings, SourceSpec, Tick
from schemas.topics import INPUTS, TOPICS, physical
from streams import versions
from streams.bars.plan import Plan
from streams.errors import HeadraceError
from streams.signals.loading import load as load_strategy

_MINUTE_US: Final = 60_000_000
_TAIL: Final = 2_000
_HELD: Final = 3
"""Versions that agents are taken to hold at once: windows of some days, changed every day."""
_LONGEST_TAIL: Final = 256_000
"""Records of a partition that are looked through for clocks."""


class NotApplicable(HeadraceError):
    """Raised where settings cannot be applied to a namespace that runs; says why, and what to do."""


class Change(NamedTuple):
    """What is to be applied: ``after`` in place of ``before``; ``stamp_ms`` is a time that every clock has passed."""

    before: Settings
    after: Settings
    stamp_ms: int


def plan(bootstrap: str, namespace: str, codec: Codec, told: Settings, from_us: int | None = None) -> Change:
    """What applying ``told`` would do; it holds for windows that start at or after ``from_us``.

    Left out, that is the first whole minute that leaves another one to write them. Raises `NotApplicable`,
    `headrace.topics.TopicsError` where the namespace has no settings, and `streams.errors.StrategyError` or
    `UnknownKind` where a worker could not take them.
    """
    known = history.read(bootstrap, namespace, codec)
    if not known:
        raise TopicsError(
            f"namespace {namespace or 'live'!r} has no settings: run `headrace topics create` first"
        )
    before = known[-1].settings
    if told.version == before.version and history.is_same(before, told):
        return Change(before, before, 1)
    if told.version <= before.version:
        raise NotApplicable(
            f"namespace {namespace or 'live'!r} is at version {before.version}: give the changed settings a higher "
            f"one, pipeline.version = {before.version + 1}"
        )
    faults = versions.fixed(before, told) + versions.too_many_kinds(
        [*(each.settings for each in known[-_HELD:]), told]
    )
    if faults:
        raise NotApplicable(
            f"these cannot change in a namespace that runs, and take another one: {'; '.join(faults)}"
        )
    Plan.of(told.kinds, told.lateness_us, told.version)
    for portfolio in told.portfolios:
        for strategy in portfolio.strategies:
            load_strategy(strategy)
    clocks = latest_clocks(bootstrap, namespace, codec, before)
    struck = [clock for clock in clocks if clock != NEVER]
    # Nothing that is in the partitions now, or can be taken before the settings are, is past this.
    earliest = max([before.effective_from, *(clock + before.max_ahead_us for clock in struck)]) + 1
    if from_us is None:
        from_us = -(-(max(earliest, 0) + _MINUTE_US) // _MINUTE_US) * _MINUTE_US
    elif from_us < earliest:
        raise NotApplicable(
            f"from {moments.shown(from_us)} is too near: clocks stand at {moments.shown(max(struck, default=0))}, "
            f"ticks may be {before.max_ahead_us // 1_000_000} s ahead of them, and what has come was judged by the "
            f"settings of now. Say --from {moments.shown(-(-earliest // 1_000_000) * 1_000_000)} or later"
        )
    stamp_ms = max(min(struck, default=0) // 1000, 1)
    return Change(before, msgspec.structs.replace(told, effective_from=from_us), stamp_ms)


def apply(bootstrap: str, namespace: str, codec: Codec, change: Change) -> None:
    """Write a change: into the history first, then downstream first into every input partition.

    Where that was interrupted, `plan` and this with the same settings write them again: a partition takes a version
    once. Raises `headrace.topics.SettingsDiffer` where somebody else was first with the version, and `NotApplicable`
    where Kafka did not take them.
    """
    told = change.after
    if change.before is not told:
        history.write(bootstrap, namespace, codec, told)
    known = {each.settings.version: each.settings for each in history.read(bootstrap, namespace, codec)}
    held = known[told.version]
    if held.effective_from != told.effective_from or not history.is_same(held, told):
        raise SettingsDiffer(
            f"somebody else has just applied version {told.version}: look at `headrace settings history`"
        )
    # An agent's bars under new settings must find the agent below informed.
    for topic in reversed(INPUTS):
        value = codec.encode(topic, told)
        failed = sending.send(
            bootstrap,
            (
                Outgoing(physical(namespace, topic), value, timestamp_ms=change.stamp_ms, partition=partition)
                for partition in range(TOPICS[topic].partitions)
            ),
        )
        if failed:
            raise NotApplicable(
                f"{topic} did not take the settings: {failed}. Apply them again: nothing is doubled"
            )


def latest_clocks(bootstrap: str, namespace: str, codec: Codec, settings: Settings) -> list[int]:
    """The latest clock (µs) of each declared source in each partition of its topic; NEVER where none is found."""
    found = []
    with Reading(bootstrap, namespace) as reading:
        for topic, sources in (("market.ticks", settings.sources), ("market.quotes", settings.quote_sources)):
            for partition in range(TOPICS[topic].partitions) if sources else ():
                found += _clocks(reading, codec, topic, partition, sources)
    return found


def _clocks(
    reading: Reading, codec: Codec, topic: str, partition: int, sources: Iterable[SourceSpec]
) -> list[int]:
    own = {source.name for source in sources if source.clock is ClockKind.TICKS}
    low, high = reading.begin(topic, partition), reading.end(topic, partition)
    tail = _TAIL
    while True:
        clocks = {source.name: NEVER for source in sources}
        begin = max(low, high - tail)
        for _, timestamp_ms, key, value, headers in reading.records(topic, partition, begin):
            source, time = "", NEVER
            if key is None and value is None:
                source = dict(headers).get("source", b"").decode(errors="replace")
                time = timestamp_ms * 1000
            elif own and value is not None:
                record = codec.decode(topic, value)
                if isinstance(record, Tick | Quote) and record.source in own:
                    source, time = record.source, record.event_time
            if source in clocks:
                clocks[source] = max(clocks[source], time)
        if NEVER not in clocks.values() or begin == low or tail > _LONGEST_TAIL:
            return list(clocks.values())
        tail *= 8
