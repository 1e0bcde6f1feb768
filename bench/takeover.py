"""How long a partition stands after its owner is killed (kill -9), and how much of that is the recovery of its state.

One ``symbols`` process or two, ticks of 1, 100 or 5,000 simulated symbols at the speed of the clock, bars of a second
and a minute with regimes. After `HISTORY_S` the owner is killed, and either

- **the other** worker takes its partitions over, once the group takes the dead one for dead
  (``worker.session_timeout_ms``); with a standby it has followed their changelogs all the while; or
- **the same** is started again at once, under its name, by what supervises it; with a copy, its disk has its states.

The time is from the kill to the first position past the dead owner's that is committed, so outputs up to it are there.
It has three parts, told apart by what the successor logs: until it may open the partitions; until it has fenced the
last owner and recovered the states; until the first commit.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import confluent_kafka as ck
import psutil
from rich.console import Console
from rich.table import Table

from bench.rig import REPO, RESULTS, BenchError, Rig, load, machine, put, save
from connectors.simulator import SimulatorSettings
from headrace.fleet import headrace_argv, worker_argv
from headrace.pipeline import MarketPart, PipelineSettings, SourcePart
from headrace.stack import Endpoints
from schemas.partitioner import partition_of
from schemas.states import POSITION_KEY, SourcePosition
from schemas.topics import SYMBOL_PARTITIONS, physical

SYMBOLS = (1, 100, 5_000)
HISTORY_S = 20.0
"""Ticks flow so long before the kill: a changelog that has been written to, and little to compact yet."""
DOCS = REPO / "docs" / "recovery.md"
BEGIN = "<!-- take-over: headrace bench takeover -->"
AGENT = "symbols"
_MOST_MINUTES = 30
_LEAST_TICKS_PER_MINUTE, _LEAST_TICKS_A_SECOND = 60, 100
_START_S, _TAKE_OVER_S = 120.0, 120.0
_TAKEN = re.compile(
    r"^(\S+ \S+) .* took over \[.*\] in ([\d.]+) s: ([\d,]+) keys, ([\d,]+) of them .*, ([\d,]+) records",
    re.MULTILINE,
)
_OWNS = re.compile(r"owns partitions \[([\d, ]*)\]")


class Case(NamedTuple):
    """Who goes on, and of what it recovers the states."""

    name: str
    by_another: bool
    copies: bool


CASES = (
    Case("another worker", by_another=True, copies=False),
    Case("another worker, standby", by_another=True, copies=True),
    Case("the same again", by_another=False, copies=False),
    Case("the same again, copy", by_another=False, copies=True),
)


class Taken(NamedTuple):
    """What a successor logs when it has opened its partitions: when (wall clock), how long, of what."""

    at_s: float
    seconds: float
    keys: int
    copied: int
    records: int


class Measure(NamedTuple):
    """One take-over, seconds. ``recovery_s`` is part of ``total_s``, ``detection_s`` is before it, the rest behind."""

    case: str
    symbols: int
    total_s: float
    detection_s: float
    recovery_s: float
    keys: int
    copied: int
    records: int
    cpu_percent: float
    memory_mib: float


def steps(symbols: Sequence[int], repetitions: int) -> int:
    """How often `run` calls ``advance``."""
    return len(symbols) * len(CASES) * repetitions


def run(
    found: Endpoints,
    *,
    symbols: Sequence[int] = SYMBOLS,
    repetitions: int = 1,
    session_timeout_ms: int,
    advance: Callable[[str], None],
) -> dict[str, Any]:
    """Measure every case; writes takeover.json and takeover.png into `bench.rig.RESULTS` and returns the figures.

    Raises `BenchError` where nobody takes over, `headrace.fleet.GaveUp` where a process keeps ending.
    """
    about, measures = machine(), list[Measure]()
    for repetition in range(repetitions):
        for count in symbols:
            for case in CASES:
                again = f", {repetition + 1} of {repetitions}" if repetitions > 1 else ""
                advance(f"{case.name}, {count:,} symbols{again}")
                with Rig(found, pipeline()) as rig:
                    measures.append(_Trial(rig, case, count).measure())
    figures = {
        "what": "from kill -9 of an owner to the first commit of its successor",
        "machine": {**about, "load_average_after": load()},
        "setting": {
            "history_s": HISTORY_S,
            "repetitions": repetitions,
            "session_timeout_ms": session_timeout_ms,
        },
        "rows": [_row(case, count, measures) for case in CASES for count in symbols],
        "measures": [measure._asdict() for measure in measures],
    }
    save("takeover", figures)
    _plot(figures, RESULTS / "takeover.png")
    return figures


def pipeline() -> PipelineSettings:
    """1-second and 1-minute bars, the latter with regimes: states of the usual size."""
    return PipelineSettings(market=MarketPart(bars=("1s", "1m"), sources=(SourcePart(name="simulator"),)))


class _Trial:
    """One take-over in a namespace of its own."""

    def __init__(self, rig: Rig, case: Case, count: int) -> None:
        self._rig, self._case, self._count = rig, case, count
        self._names = tuple(f"SIM{number:04d}" for number in range(1, count + 1))
        self._workers = ["symbols-a", "symbols-b"] if case.by_another else ["symbols-a"]
        self._reader = ck.Consumer(
            {
                "bootstrap.servers": rig.kafka,
                "group.id": f"{rig.namespace}-takeover",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 10,
                "fetch.queue.backoff.ms": 5,
            }
        )

    def measure(self) -> Measure:
        rig, switches = self._rig, [f"HEADRACE_WORKER__COPIES={str(self._case.copies).lower()}"]
        for name in self._workers:
            instance = None if self._case.by_another else name
            rig.fleet.start(name, ["env", *switches, *worker_argv(AGENT, instance)])
        rig.wait_until(lambda: self._victim() is not None, "a worker that owns", timeout_s=_START_S)
        rig.fleet.start("feed", ["env", *self._feed_environment(), *headrace_argv(*_FEED)], finishes=True)
        partition = partition_of(self._names[0], SYMBOL_PARTITIONS)
        changelog = physical(rig.namespace, f"{AGENT}.changelog")
        self._reader.assign([ck.TopicPartition(changelog, partition, ck.OFFSET_BEGINNING)])
        try:
            return self._struck()
        finally:
            self._reader.close()

    def _struck(self) -> Measure:
        rig = self._rig
        if not self._position(_START_S, after=1):
            raise BenchError(f"nothing is committed; logs in {rig.folder}")
        victim = self._victim()
        survivor = next((name for name in self._workers if name != victim), victim)
        assert victim is not None
        assert survivor is not None
        process = psutil.Process(rig.fleet.pid(survivor))
        began_s, cpu_s, at = time.monotonic(), _cpu_s(process), 0
        while (passed_s := time.monotonic() - began_s) < HISTORY_S:
            at = self._position(0.2, after=at) or at
        cpu_percent = 100 * (_cpu_s(process) - cpu_s) / passed_s
        memory_mib = process.memory_info().rss / (1 << 20)
        killed_s = time.time()
        if self._case.by_another:
            rig.fleet.kill(victim)
        else:
            rig.fleet.signal(victim, signal.SIGKILL)
        while self._position(0.3, after=at):  # what it had committed is on its way to us
            at = self._position(0.0, after=at) or at
        deadline_s = time.monotonic() + _TAKE_OVER_S
        while not self._position(0.02, after=at):
            rig.fleet.check()
            if time.monotonic() > deadline_s:
                raise BenchError(f"nobody has taken over; logs in {rig.folder}")
        total_s = time.time() - killed_s
        taken = last_taken(rig.fleet.log(survivor).read_text())
        if taken is None or taken.at_s < killed_s - 0.001:
            raise BenchError(f"{survivor} does not say that it has taken over; logs in {rig.folder}")
        detection_s = taken.at_s - taken.seconds - killed_s
        return Measure(
            self._case.name,
            self._count,
            total_s,
            detection_s,
            taken.seconds,
            *taken[2:],
            cpu_percent,
            memory_mib,
        )

    def _victim(self) -> str | None:
        """Who owns the partition of the first symbol, once all are owned by workers that know it."""
        partition, owned = partition_of(self._names[0], SYMBOL_PARTITIONS), {}
        for name in self._workers:
            log = self._rig.fleet.log(name)
            told = _OWNS.findall(log.read_text()) if log.exists() else []
            owned[name] = {int(number) for number in told[-1].split(",") if number} if told else set()
        if sum(map(len, owned.values())) != SYMBOL_PARTITIONS or not all(owned.values()):
            return None
        return next(name for name, partitions in owned.items() if partition in partitions)

    def _position(self, timeout_s: float, *, after: int) -> int | None:
        """The committed position, once it is past ``after``."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            position = None
            for message in self._reader.consume(1_000, min(timeout_s, 0.02)):
                if message.error() is None and message.key() == POSITION_KEY:
                    state = self._rig.codec.decode(f"{AGENT}.changelog", message.value())
                    position = cast(SourcePosition, state).next_offset
            if position is not None and position > after:
                return position
            if time.monotonic() > deadline_s:
                return None

    def _feed_environment(self) -> list[str]:
        rate = max(_LEAST_TICKS_PER_MINUTE, 60 * _LEAST_TICKS_A_SECOND / self._count)
        simulated = SimulatorSettings(symbols=self._names, minutes=_MOST_MINUTES, ticks_per_minute=rate)
        return [
            f"HEADRACE_SIMULATOR={simulated.model_dump_json()}",
            f"HEADRACE_STACK__DATA_DIR={self._rig.folder / 'data'}",
        ]


_FEED = ("ingest", "simulator", "--speed", "1")


def last_taken(log: str) -> Taken | None:
    """The last take-over that a worker's log tells of."""
    told = _TAKEN.findall(log)
    if not told:
        return None
    at, seconds, *counts = told[-1]
    at_s = datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").timestamp()
    return Taken(at_s, float(seconds), *(int(count.replace(",", "")) for count in counts))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _row(case: Case, count: int, measures: Sequence[Measure]) -> dict[str, Any]:
    """The median of the repetitions (the one in the middle by its total)."""
    own = sorted((each for each in measures if (each.case, each.symbols) == (case.name, count)), key=_total)
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in own[len(own) // 2]._asdict().items()
    }


def _total(measure: Measure) -> float:
    return measure.total_s


# ---- for people

_HEADINGS = (
    "who goes on",
    "symbols",
    "until it may",
    "recovery",
    "until the first commit",
    "all",
    "keys",
    "of the copies",
    "records read",
    "CPU before",
    "memory",
)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    behind_s = row["total_s"] - row["detection_s"] - row["recovery_s"]
    return (
        row["case"],
        f"{row['symbols']:,}",
        f"{row['detection_s']:.2f} s",
        f"{row['recovery_s']:.2f} s",
        f"{behind_s:.2f} s",
        f"{row['total_s']:.2f} s",
        f"{row['keys']:,}",
        f"{row['copied']:,}",
        f"{row['records']:,}",
        f"{row['cpu_percent']:.0f} %",
        f"{row['memory_mib']:.0f} MiB",
    )


def show(figures: dict[str, Any], console: Console) -> None:
    """The table."""
    console.print(figures["what"], style="bold", highlight=False)
    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="right" if number else "left")
    for row in figures["rows"]:
        table.add_row(*_cells(row))
    console.print(table)
    about = figures["machine"]
    loads = f"{about['load_average']:g} before, {about['load_average_after']:g} after"
    console.print(f"{about['cpus']} CPUs, load average {loads}", style="dim")


def markdown(figures: dict[str, Any]) -> str:
    """The table of docs/recovery.md."""
    lines = [f"| {' | '.join(_HEADINGS)} |", f"|---|{'---:|' * (len(_HEADINGS) - 1)}"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in figures["rows"]]
    return "\n".join(lines)


def write(figures: dict[str, Any]) -> None:
    """Put the table in its place in docs/recovery.md."""
    put(DOCS, BEGIN, markdown(figures))


def _plot(figures: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = figures["rows"][::-1]
    labels = [f"{row['case']}, {row['symbols']:,}" for row in rows]
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    left = [0.0] * len(rows)
    for name, part in (
        ("until it may", [row["detection_s"] for row in rows]),
        ("recovery", [row["recovery_s"] for row in rows]),
        (
            "until the first commit",
            [row["total_s"] - row["detection_s"] - row["recovery_s"] for row in rows],
        ),
    ):
        axes.barh(labels, part, left=left, label=name, height=0.6)
        left = [before + each for before, each in zip(left, part, strict=True)]
    axes.set_xlabel("seconds after kill -9")
    axes.set_title("take-over by the number of symbols")
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
