"""Ticks to 1-second bars per second: Headrace's `symbols` worker beside a stock Faust agent, over the same topic.

Both are one process, at the end of a topic that is full: 20 simulated symbols, 1,000 ticks in a second of event time,
Avro, four partitions. They take turns, each time in a namespace of its own.

- Headrace is measured from the moment at which every partition has committed once to the last commit: what counts
  is in Kafka, state, position and outputs. The moments are the timestamps of the changelog's own records.
- Stock Faust is measured inside its agent, from record `stock_faust.WARM_UP_RECORDS` to the last of a prefix that it
  can do in reasonable time; commits and the delivery of its last outputs are not waited for, in its favour.

Every bar that stock Faust closed must be a bar of Headrace's, or there are no figures.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import msgspec
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console
from rich.table import Table

from bench import stock_faust
from bench.rig import RESULTS, BenchError, CpuMeter, Rig, load, machine, save
from connectors.messages import Message
from connectors.sender import Sender
from connectors.simulator import Simulation, SimulatorSettings
from headrace.compare import FRAME_BYTES, messages, records
from headrace.fleet import worker_argv
from headrace.pipeline import MarketPart, PipelineSettings, RegimesPart, SourcePart
from headrace.stack import Endpoints
from schemas.codec import decode_body, schema_of
from schemas.records import Bar
from schemas.states import POSITION_KEY, SourcePosition
from schemas.topics import SYMBOL_PARTITIONS, physical

TICKS_PER_SECOND = 1_000
SYMBOLS = 20
HEADRACE, STOCK = "headrace", "stock faust"
_COMPARED = ("open", "high", "low", "close", "volume", "vwap", "count", "first_tick", "last_tick")
_FIGURES = ("per_second", "cpu_us")
_TIMEOUT_S = 300.0


class Measure(NamedTuple):
    """One repetition. ``cpu_us`` is per record, user and system, of the worker's process alone."""

    contender: str
    records: int
    seconds: float
    per_second: float
    cpu_us: float
    load_average: float


def pipeline() -> PipelineSettings:
    """1-second bars and nothing else."""
    market = MarketPart(bars=("1s",), regimes=RegimesPart(bars=()), sources=(SourcePart(name="simulator"),))
    return PipelineSettings(market=market)


def run(
    found: Endpoints,
    *,
    ticks: int,
    stock_ticks: int,
    repetitions: int,
    advance: Callable[[str], None],
) -> dict[str, Any]:
    """All repetitions; writes throughput.json and throughput.png into `bench.rig.RESULTS` and returns the figures.

    ``advance`` is called before each step with what it is. Raises `BenchError` where the two disagree about a bar.
    """
    about = machine()
    measures: list[Measure] = []
    compared = 0
    for number in range(repetitions):
        turn = f"{number + 1} of {repetitions}"
        with Rig(found, pipeline()) as rig:
            advance(f"{turn}: sending {ticks:,} ticks")
            _fill(rig, ticks)
            for name in (HEADRACE, STOCK) if number % 2 == 0 else (STOCK, HEADRACE):
                advance(f"{turn}: {name}")
                measures.append(headrace(rig) if name == HEADRACE else stock(rig, stock_ticks))
            compared += _check(rig)
    medians = {name: _medians(measures, name) for name in (HEADRACE, STOCK)}
    figures = {
        "what": "ticks to 1s bars, one process",
        "machine": about,
        "setting": {
            "symbols": SYMBOLS,
            "ticks": ticks,
            "ticks_for_stock_faust": stock_ticks,
            "ticks_per_second_of_event_time": TICKS_PER_SECOND,
            "partitions": SYMBOL_PARTITIONS,
            "bars_compared": compared,
        },
        "medians": medians,
        "ratio": {figure: medians[HEADRACE][figure] / medians[STOCK][figure] for figure in _FIGURES},
        "repetitions": [measure._asdict() for measure in measures],
    }
    save("throughput", figures)
    _plot(measures, RESULTS / "throughput.png")
    return figures


def _medians(measures: list[Measure], name: str) -> dict[str, float]:
    own = [measure for measure in measures if measure.contender == name]
    return {figure: statistics.median(getattr(measure, figure) for measure in own) for figure in _FIGURES}


def _fill(rig: Rig, ticks: int) -> None:
    """``ticks`` simulated ticks with their clocks into market.ticks."""
    session = SimulatorSettings(
        symbols=tuple(f"SIM{number:02d}" for number in range(1, SYMBOLS + 1)),
        ticks_per_minute=60.0 * TICKS_PER_SECOND / SYMBOLS,
    )
    Sender(rig.kafka, rig.namespace, rig.codec.encode).run(_first(Simulation(session).messages(), ticks))


def _first(given: Iterator[Message], ticks: int) -> Iterator[Message]:
    for message in given:
        yield message
        ticks -= message.record is not None
        if not ticks:
            return


# ---- Headrace


def headrace(rig: Rig) -> Measure:
    """The `symbols` worker from its first commits to the last."""
    before = load()
    rig.fleet.start("symbols", worker_argv("symbols"), restart=False)
    meter = CpuMeter(_pid(rig, "symbols"))
    ends = _ends(rig)
    rig.wait_until(lambda: _positions(rig) == ends, "symbols at the end", timeout_s=_TIMEOUT_S, every_s=1.0)
    meter.close()
    rig.fleet.stop("symbols")
    commits = sorted(_commits(rig))
    first: dict[int, float] = {}
    for moment_s, partition, _ in commits:
        first.setdefault(partition, moment_s)
    began_s, ended_s = max(first.values()), commits[-1][0]
    done = {partition: offset for moment_s, partition, offset in commits if moment_s <= began_s}
    count = sum(ends.values()) - sum(done.values())
    seconds = ended_s - began_s
    if seconds < 1.0:
        raise BenchError(
            f"only {seconds:.2f} s between the first commits and the last: too few ticks to measure"
        )
    cpu_us = meter.seconds(began_s, ended_s) * 1e6 / count
    return Measure(HEADRACE, count, seconds, count / seconds, cpu_us, before)


def _ends(rig: Rig) -> dict[int, int]:
    """Records in each partition of market.ticks."""
    found = dict.fromkeys(range(SYMBOL_PARTITIONS), 0)
    for message in messages(rig.kafka, physical(rig.namespace, "market.ticks")):
        found[message.partition()] = message.offset() + 1
    return found


def _commits(rig: Rig) -> Iterator[tuple[float, int, int]]:
    """Every commit of the agent: its moment (s, wall clock), its partition, the offset up to which all is done."""
    for message in messages(rig.kafka, physical(rig.namespace, "symbols.changelog")):
        if message.key() == POSITION_KEY:
            position = decode_body("symbols.changelog", message.value()[FRAME_BYTES:])
            assert isinstance(position, SourcePosition)
            yield message.timestamp()[1] / 1e3, position.partition, position.next_offset


def _positions(rig: Rig) -> dict[int, int]:
    return {partition: offset for _, partition, offset in _commits(rig)}


# ---- stock Faust


def stock(rig: Rig, count: int) -> Measure:
    """The stock agent over the first ``count`` records that it is given."""
    bars = NewTopic(stock_faust.bars_topic(rig.namespace), SYMBOL_PARTITIONS, replication_factor=1)
    admin = AdminClient({"bootstrap.servers": rig.kafka})  # held until the answer is there
    admin.create_topics([bars])[bars.topic].result(30)
    before = load()
    result = rig.folder / "stock-faust.json"
    argv = [sys.executable, "-m", "bench.stock_faust", rig.kafka, rig.namespace, str(count), str(result)]
    rig.fleet.start("stock-faust", argv, restart=False)
    meter = CpuMeter(_pid(rig, "stock-faust"))
    rig.wait_until(result.exists, "stock Faust", timeout_s=_TIMEOUT_S)
    meter.close()
    rig.fleet.stop("stock-faust")
    told = json.loads(result.read_text())
    count, seconds = told["records"], told["ended_s"] - told["began_s"]
    cpu_us = meter.seconds(told["began_s"], told["ended_s"]) * 1e6 / count
    return Measure(STOCK, count, seconds, count / seconds, cpu_us, before)


def _pid(rig: Rig, name: str) -> int:
    pid = rig.fleet.pid(name)
    if pid is None:
        raise BenchError(f"{name} ended at once: {rig.fleet.log(name).read_text()[-2000:]}")
    return pid


# ---- what both must agree on


def _check(rig: Rig) -> int:
    """How many bars stock Faust closed, each of them a bar of Headrace's too. Raises `BenchError` otherwise."""
    ours: dict[tuple[str, int], dict[str, Any]] = {}
    for _, value, _ in records(rig.kafka, rig.namespace, "market.bars"):
        bar = decode_body("market.bars", (value or b"")[FRAME_BYTES:])
        assert isinstance(bar, Bar)
        ours[bar.symbol, bar.start] = msgspec.to_builtins(bar)
    compared = 0
    for message in messages(rig.kafka, stock_faust.bars_topic(rig.namespace)):
        body = io.BytesIO(message.value()[FRAME_BYTES:])
        theirs: Any = fastavro.schemaless_reader(body, schema_of(Bar), None)
        mine = ours.get((theirs["symbol"], theirs["start"]))
        if mine is None or any(mine[name] != theirs[name] for name in _COMPARED):
            raise BenchError(f"the two disagree: stock Faust's {theirs}, Headrace's {mine}")
        compared += 1
    if not compared:
        raise BenchError("stock Faust closed no bar: too few ticks to compare")
    return compared


# ---- for people


def table(figures: dict[str, Any]) -> Table:
    """Medians side by side."""
    found = Table(box=None, pad_edge=False)
    for heading in ("", "records/s", "CPU µs/record", "records a run", "all runs, records/s"):
        found.add_column(heading, justify="left" if not heading else "right")
    for name, medians in figures["medians"].items():
        own = [each for each in figures["repetitions"] if each["contender"] == name]
        found.add_row(
            name,
            f"{medians['per_second']:,.0f}",
            f"{medians['cpu_us']:.1f}",
            f"{own[0]['records']:,}",
            "  ".join(f"{each['per_second']:,.0f}" for each in own),
        )
    ratio = figures["ratio"]
    found.add_row("ratio", f"{ratio['per_second']:.1f} ×", f"{ratio['cpu_us']:.2f} ×", "", "")
    return found


def show(figures: dict[str, Any], console: Console) -> None:
    """The table, and how busy the machine was."""
    console.print(figures["what"], style="bold", highlight=False)
    console.print(table(figures))
    loads = ", ".join(f"{each['load_average']:g}" for each in figures["repetitions"])
    console.print(f"{figures['machine']['cpus']} CPUs, load average before each run: {loads}", style="dim")


def _plot(measures: list[Measure], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 2.8), layout="constrained")
    names = []
    for row, (name, color) in enumerate(((STOCK, "0.65"), (HEADRACE, "tab:blue"))):
        rates = [measure.per_second for measure in measures if measure.contender == name]
        median = statistics.median(rates)
        axes.barh(row, median, color=color, height=0.55)
        axes.plot(rates, [row] * len(rates), "o", color="black", markeredgecolor="white", markersize=5)
        names.append(f"{name}\n{median:,.0f}/s")
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set(
        title="Ticks to 1-second bars, one process", xlabel="records per second (bar: median, dots: runs)"
    )
    axes.margins(x=0.15)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
