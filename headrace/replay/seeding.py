"""The namespace of a replay as it must be before the first tick: topics, states and recorded commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar, cast

import msgspec
from confluent_kafka.admin import AdminClient

from headrace import compare, sending, topics
from headrace.replay.errors import ReplayError
from headrace.replay.planning import agents_of, checkpoint_clock
from headrace.sending import Outgoing
from schemas.codec import Codec
from schemas.records import NEVER, Command, Correlations, Fit, Place, Replay, ReplayStart, RiskAlert
from schemas.states import PARTITION_KEY, POSITION_KEY, SourcePosition, State
from schemas.topics import TOPICS, physical
from streams.agent import Agent
from streams.barrier.fits import HMM, LAST
from streams.runtime.identity import TopicIds, known_ids
from streams.runtime.kafka import KafkaPort
from streams.runtime.ownership import Outcome

R = TypeVar("R", Command, RiskAlert, Correlations, Fit)

EVENTS, ALERTS = "portfolio.events", "risk.alerts"
BARS, CORRELATIONS = "universe.bars", "market.correlations"
_AFTER_SETTINGS = 1
"""The first offset behind the settings in a topic of the replay's own."""


def seed(bootstrap: str, source: str, replay: Replay, codec: Codec) -> None:
    """Make the topics, put commands and fits recorded in namespace ``source`` in their places, and write the states.

    The states come last and are written once: a partition that has a position has begun, and all else is there.
    Running it again after it was interrupted does what is left; a command that is written twice is one by its id.
    """
    topics.create(bootstrap, replay.name, replay.settings, codec, sources=False, later=replay.later)
    port = KafkaPort(bootstrap, replay.name)
    places = [(agent, number) for agent in agents_of(replay) for number in _partitions(agent, replay)]
    bare = [place for place in places if POSITION_KEY not in port.restore(place[0].name, place[1])]
    if len(bare) == len(places):
        _write(bootstrap, replay, codec, EVENTS, recorded_commands(bootstrap, source, replay, codec))
        if not replay.changed:
            _write(bootstrap, replay, codec, BARS, recorded_fits(bootstrap, source, codec))
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for agent, number in bare:
        is_source = TOPICS[agent.source].role == "source"
        read = physical(source if is_source else replay.name, agent.source)
        ids = TopicIds(*known_ids(admin, [read, physical(replay.name, f"{agent.name}.changelog")]))
        _write_state(bootstrap, port, replay, codec, agent, number, ids)


def _partitions(agent: Agent[Any, Any], replay: Replay) -> range:
    """Those that need a state: with a checkpoint all, otherwise those of source topics, which begin anywhere."""
    has_state = replay.start is ReplayStart.CHECKPOINT or TOPICS[agent.source].role == "source"
    return range(TOPICS[agent.source].partitions if has_state else 0)


def _write_state(
    bootstrap: str,
    port: KafkaPort,
    replay: Replay,
    codec: Codec,
    agent: Agent[Any, Any],
    number: int,
    ids: TopicIds,
) -> None:
    changelog = f"{agent.name}.changelog"
    state: dict[bytes, bytes] = {}
    if replay.checkpoint is not None:
        state.update(KafkaPort(bootstrap, replay.checkpoint).restore(agent.name, number))
        if not state:
            raise ReplayError(f"checkpoint {replay.checkpoint} has no state of {agent.name}[{number}]")
        was = codec.decode(changelog, state[POSITION_KEY])
        if TOPICS[agent.source].role == "source" and getattr(was, "source_id", "") not in ("", ids.source):
            raise ReplayError(
                f"{agent.source} was deleted and made again since checkpoint {replay.checkpoint} was made: drop it "
                f"(`headrace replay drop {replay.checkpoint}`), and replay from the beginning"
            )
    else:
        state[PARTITION_KEY] = codec.encode(changelog, _informed(agent, replay))
    begins = {each.topic: each.begins for each in replay.ranges}.get(agent.source)
    offset = _AFTER_SETTINGS if begins is None else begins[number]
    position = SourcePosition(
        topic=agent.source,
        partition=number,
        next_offset=offset,
        source_id=ids.source,
        changelog_id=ids.changelog,
    )
    state[POSITION_KEY] = codec.encode(changelog, position)
    port.fence(agent.name, number)
    while port.commit(agent.name, number, state) is not Outcome.COMMITTED:
        pass
    port.release(agent.name, number)


def _informed(agent: Agent[Any, Any], replay: Replay) -> State:
    """A partition of a source topic as it begins: with the oldest settings, the others come where they came.

    In the middle of it some have come already, and where they were changed none may come: then it has them all.
    """
    if replay.start is ReplayStart.BEGINNING and not replay.changed:
        return cast(State, agent.partition_type(settings=replay.settings))
    field = "sources" if agent.source == "market.ticks" else "quote_sources"
    clocks = {
        source.name: after.effective_from
        for before, after in pairwise((replay.settings, *replay.later))
        for source in getattr(after, field)
        if source not in getattr(before, field)
    }
    return cast(
        State,
        agent.partition_type(settings=replay.settings, later=list(replay.later), source_clocks=clocks),
    )


def recorded_commands(bootstrap: str, source: str, replay: Replay, codec: Codec) -> list[Command]:
    """The commands that held within the replay's stretch, each with the place where it did (DESIGN.md rule 5).

    One that held before any snapshot keeps no place: it holds where it lies, and lies first.
    """
    placed: dict[tuple[str, str], tuple[int, int]] = {}
    for alert in _read(bootstrap, source, ALERTS, codec, RiskAlert):
        if alert.command_id is not None:
            placed.setdefault((alert.portfolio, alert.command_id), (alert.start, alert.ordinal))
    through = replay.data_through
    since = checkpoint_clock(replay)
    found: dict[tuple[str, str], Command] = {}
    for command in _read(bootstrap, source, EVENTS, codec, Command):
        place = placed.get((command.portfolio, command.id))
        # One that held behind a snapshot before the checkpoint's clock is in its state already, done or kept.
        if place is None or place[0] < since:
            continue
        if through is None or place[0] < through:
            after = None if place[0] == NEVER else Place(start=place[0], ordinal=place[1])
            found.setdefault((command.portfolio, command.id), msgspec.structs.replace(command, after=after))
    return [found[name] for name in sorted(found, key=lambda name: placed[name])]


def recorded_fits(bootstrap: str, source: str, codec: Codec) -> list[Fit]:
    """The fits of a namespace, each holding from the snapshot that was the first to use it (DESIGN.md rule 7).

    One that came so late that the next one was there is left out. One that none has used yet holds from where it
    should, or behind the last snapshot.
    """
    used: dict[tuple[str, str, int], int] = {}
    last: dict[str, int] = {}
    for record in _read(bootstrap, source, CORRELATIONS, codec, Correlations):
        for model, version in ((LAST, record.fit), (HMM, record.hmm_fit)):
            if version is not None:
                used.setdefault((record.universe, model, version), record.start)
        last[record.universe] = record.start
    newest: dict[tuple[str, str], int] = {}
    for universe, model, version in used:
        newest[universe, model] = max(version, newest.get((universe, model), 0))
    fits = {}
    for fit in _read(bootstrap, source, BARS, codec, Fit):
        begins = used.get((fit.universe, fit.model, fit.version))
        if begins is None and fit.version < newest.get((fit.universe, fit.model), 0):
            continue
        if begins is None:
            begins = max(fit.holds_from, last.get(fit.universe, NEVER) + 1)
        fits[fit.universe, fit.version, fit.model == LAST] = msgspec.structs.replace(fit, holds_from=begins)
    return [fits[name] for name in sorted(fits)]


def _read(bootstrap: str, namespace: str, topic: str, codec: Codec, kind: type[R]) -> Iterator[R]:
    for _, value, _ in compare.records(bootstrap, namespace, topic):
        record = None if value is None else codec.decode(topic, value)
        if isinstance(record, kind):
            yield record


def _write(
    bootstrap: str, replay: Replay, codec: Codec, topic: str, records: Sequence[Command | Fit]
) -> None:
    failed = sending.send(
        bootstrap,
        (
            Outgoing(
                physical(replay.name, topic),
                codec.encode(topic, record),
                record.portfolio if isinstance(record, Command) else record.universe,
                max((record.issued_at if isinstance(record, Command) else record.due) // 1000, 1),
            )
            for record in records
        ),
    )
    if failed:
        raise ReplayError(f"what was recorded was not written into {topic}: {failed}")
