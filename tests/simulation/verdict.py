"""What must be true of a world that has come to its end.

* Rule 11: its results are those of the inline runner, which got the same messages in other runs, with the partitions
  interleaved in another way (`headrace.compare`).
* The sink's rows are the results: none is missing, none differs.
* No tick is lost or doubled: of each symbol and kind, the ticks in closed bars, those in the open bar of the committed
  state, late ones and refused ones are all that there are.
* Every partition's position is its end, and so is the count beside its states (`tests.simulation.counting`).
* No decision is two orders at the broker.
"""

from __future__ import annotations

import functools
import random
from collections import Counter, defaultdict
from typing import Any

import msgspec

from connectors.messages import Message
from headrace.compare import COMPARED, Results, differences
from schemas.codec import Unreadable, decode_body
from schemas.records import Bar, LateTick, Place, Reason, Record, RiskAlert
from schemas.states import POSITION_KEY, SourcePosition, SymbolState
from schemas.topics import INPUTS, TOPICS
from streams.runtime.inline import Inline
from streams.runtime.runs import record_time_ms
from tests.simulation.codec import CODEC
from tests.simulation.counting import COUNTER, count_of
from tests.simulation.feeds import Script, script
from tests.simulation.processes import SOURCES
from tests.simulation.topology_world import Parts, TopologyWorld

FRAME_BYTES = 5
STAGES = {
    "market.ticks": "symbols",
    "market.quotes": "quotes",
    "universe.bars": "barrier",
    "portfolio.events": "portfolios",
}

Letters = set[tuple[Any, ...]]


def judge(world: TopologyWorld) -> list[str]:
    """Every way in which a world broke its promise; empty: it kept it."""
    results, junk = results_of(world), _junk(world)
    found = [
        f"{letter[1]}: what cannot be read is not in the dead letters"
        for letter in junk - results.dead_letters
    ]
    results.dead_letters -= junk
    oracle = of_world(world, results) if world.script.is_open else of_script(world.script.number)
    found += [f"{each.topic}/{each.key}: {each.what}" for each in differences(results, oracle)]
    found += _rows(world, results)
    found += _ticks(world, results)
    found += _positions(world)
    return found + world.toy_broker.doubled()


def results_of(world: TopologyWorld) -> Results:
    """What lies in the result topics."""
    results = Results()
    for topic in COMPARED:
        for partition in range(TOPICS[topic].partitions):
            for key, value, timestamp_ms, _ in world.broker.logs.get((topic, partition), ()):
                assert key is not None or topic in INPUTS
                assert value is not None
                record = CODEC.decode(topic, value)
                if key is not None and isinstance(record, Record):
                    results.add(topic, key.decode(), record, value[FRAME_BYTES:], timestamp_ms)
    return results


# ---- the oracle


@functools.cache
def of_script(number: int) -> Results:
    """The inline run of a script whose order decides nothing."""
    told, rng = script(number), random.Random(f"oracle {number}")
    inline, results = _inline(told, rng)
    for command in told.commands:
        inline.command(command, command.portfolio)
    changes = list(told.changes)
    waiting = [list(feed) for feed in told.feeds]
    while any(waiting):
        feed = rng.choice([feed for feed in waiting if feed])
        for message in feed[: rng.randint(1, len(feed))]:
            while changes and (changes[0].effective_from <= message.time_us or rng.random() < 0.1):
                inline.settings(changes.pop(0), reversed(INPUTS))
            _say(inline, message)
            feed.pop(0)
    inline.flush()
    return results


def of_world(world: TopologyWorld, results: Results) -> Results:
    """The inline run of what a world's partitions hold, each in its order; commands where they have held."""
    rng = random.Random(f"oracle of {world.seed}")
    inline, expected = _inline(world.script, rng)
    issued = {(command.portfolio, command.id): command for command in world.script.commands}
    for portfolio in world.script.settings.portfolios:
        told = results.sequences.get(("risk.alerts", portfolio.name), {}).values()
        for body, _ in told:
            alert = decode_body("risk.alerts", body)
            if isinstance(alert, RiskAlert) and alert.command_id is not None:
                command = issued[portfolio.name, alert.command_id]
                place = Place(start=alert.start, ordinal=alert.ordinal)
                inline.command(msgspec.structs.replace(command, after=place), portfolio.name)
    for change in world.script.changes:
        inline.settings(change, ("portfolio.events", "universe.bars"))
    topic = "market.ticks"  # the only source of an open script
    waiting = [
        (partition, world.broker.logs[topic, partition][1:]) for partition in range(TOPICS[topic].partitions)
    ]
    while any(log for _, log in waiting):
        partition, log = rng.choice([each for each in waiting if each[1]])
        count = rng.randint(1, len(log))
        for entry in log[:count]:
            value = None if entry.value is None else CODEC.decode(topic, entry.value)
            assert value is None or isinstance(value, Record | Unreadable)
            inline.raw(topic, partition, entry.key, value, entry.value, entry.timestamp_ms, entry.headers)
        del log[:count]
    inline.flush()
    expected.dead_letters -= _junk(world)
    return expected


def _inline(told: Script, rng: random.Random) -> tuple[Inline, Results]:
    results = Results()
    parts = Parts().agents
    agents = [parts[name]() for name in told.agents]
    return Inline(agents, told.settings, results.output, run_records=rng.choice([3, 20, 10_000])), results


def _say(inline: Inline, message: Message) -> None:
    timestamp_ms = record_time_ms(message.time_us)
    if message.record is None:
        inline.clock(message.source, timestamp_ms, message.topic)
    else:
        inline.tick(str(message.key), message.record, timestamp_ms, message.topic)


# ---- beside it


def _junk(world: TopologyWorld) -> Letters:
    """The dead letters due to records that nobody can read; they are named by their place."""
    return {
        (STAGES[topic], f"{topic}/{partition}/{offset}", Reason.UNREADABLE, entry.key, entry.value)
        for topic in INPUTS
        for partition in range(TOPICS[topic].partitions)
        for offset, entry in enumerate(world.broker.logs[topic, partition])
        if entry.value is not None and isinstance(CODEC.decode(topic, entry.value), Unreadable)
    }


def _rows(world: TopologyWorld, results: Results) -> list[str]:
    """The sink's tables against the results."""
    wanted: dict[str, dict[tuple[Any, ...], tuple[bytes, int]]] = defaultdict(dict)
    for (topic, _), held in results.sequences.items():
        wanted[topic].update(held)
    found = list(world.database.conflicts)
    for topic in sorted({*wanted, *world.database.rows}):
        rows = {
            name: (value[FRAME_BYTES:], timestamp_ms)
            for name, (value, timestamp_ms) in world.database.rows[topic].items()
        }
        if rows != wanted[topic]:
            missing, odd = wanted[topic].keys() - rows.keys(), rows.keys() - wanted[topic].keys()
            found.append(f"the sink's rows of {topic}: {len(missing)} missing, {len(odd)} too many")
    return found


def _ticks(world: TopologyWorld, results: Results) -> list[str]:
    """Each tick counted once, by symbol and kind."""
    counted: Counter[tuple[str, str]] = Counter()
    refused = Counter(
        (key or b"").decode() for stage, _, _, key, _ in results.dead_letters if stage == "symbols"
    )
    for (topic, symbol), held in results.sequences.items():
        if topic not in ("market.bars", "market.ticks.late"):
            continue
        for body, _ in held.values():
            for kind, count in _counts(topic, body):
                counted[symbol, kind] += count
    for (agent, _), changelog in world.broker.changelogs.items():
        for raw_key, raw in changelog.items() if agent == "symbols" else ():
            state = CODEC.decode("symbols.changelog", raw)
            if isinstance(state, SymbolState):
                counted.update({(raw_key.decode(), bar.kind): bar.count for bar in state.open_bars})
    found = []
    for symbol in world.script.settings.universes[0].symbols:
        for kind in world.script.kinds:
            ticks, seen = len(world.script.names(symbol)), counted[symbol, kind] + refused[symbol]
            if ticks != seen:
                found.append(f"{symbol} {kind}: {seen} ticks counted, of {ticks}")
    return found


@functools.lru_cache(maxsize=100_000)
def _counts(topic: str, body: bytes) -> tuple[tuple[str, int], ...]:
    """By kind, the ticks that a bar or a late tick stands for."""
    record = decode_body(topic, body)
    if isinstance(record, Bar):
        return ((record.kind, record.count),)
    assert isinstance(record, LateTick)
    return tuple((kind, 1) for kind in record.kinds)


def _positions(world: TopologyWorld) -> list[str]:
    """What is committed of each partition, against its end."""
    found = []
    for agent in world.script.agents:
        topic = SOURCES[agent]
        log = f"{agent}.changelog"
        for partition in range(TOPICS[topic].partitions):
            end = len(world.broker.logs[topic, partition])
            changelog = world.broker.changelogs[agent, partition]
            position, counter = (
                CODEC.decode(log, changelog[key]) if key in changelog else None
                for key in (POSITION_KEY, COUNTER.encode())
            )
            at = position.next_offset if isinstance(position, SourcePosition) else 0
            count = count_of(agent, counter)
            if not at == count == end:
                found.append(f"{agent}[{partition}]: position {at}, states after {count} of {end} records")
    return found
