"""Whether the pipeline can run for ever: memory of every process and lag of every group, minute after minute.

The whole fleet (symbols, universes, portfolios, sink) at a steady rate of ticks of twenty symbols, as `bench.feed`
sends them: 1-second bars with regimes, one universe, a portfolio that orders on each of its snapshots, all results
into TimescaleDB. Memory is the resident set. The first `WARM_UP_S` do not count: caches fill and the JVM's heap
takes what it is given.

Flat means, comparing the medians of the first and of the last window (a minute; a quarter of a shorter run):

- memory: not more than 5 % and 8 MiB above the first;
- lag: less than two seconds' worth of records behind, or no more than in the first window (the groups' offsets, from
  which any lag monitor judges, are written each second).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from bench.feed import SOURCE, SYMBOLS, Feed
from bench.rig import RESULTS, BenchError, Rig, load, machine, save
from headrace.fleet import sink_argv, worker_argv
from headrace.lags import Lags
from headrace.pipeline import (
    MarketPart,
    PipelineSettings,
    PortfolioPart,
    RegimesPart,
    SourcePart,
    StrategyPart,
    UniversePart,
)
from headrace.stack import Endpoints
from sinks.timescale import queries, run_of
from streams import topology

RATE, MINUTES = 10_000, 10.0
BROKER = "broker"
WARM_UP_S = 30.0
SAMPLE_EVERY_S = 2.0
_CLOSINGS = 1
"""A 1-second bar of each symbol each second, as it would be live."""
_START_S = 120.0
_MIB = 1 << 20
_GROWTH, _GROWTH_MIB, _LAG_S = 1.05, 8.0, 2.0


def pipeline() -> PipelineSettings:
    """1-second bars and their regimes, one universe, one portfolio that orders on each of its snapshots."""
    strategy = Path(__file__).with_name("every_snapshot.py")
    return PipelineSettings(
        market=MarketPart(
            bars=("1s", "1m"), regimes=RegimesPart(bars=("1s",)), sources=(SourcePart(name=SOURCE),)
        ),
        universes=(UniversePart(name="all", symbols=SYMBOLS, bar="1s"),),
        portfolios=(
            PortfolioPart(
                name="bench",
                universe="all",
                strategies=(StrategyPart(name="turns", uses=f"{strategy}:EverySnapshot"),),
            ),
        ),
    )


def steps(minutes: float = MINUTES) -> int:
    """How often `run` calls ``advance``."""
    return 2 + int(minutes * 60 / SAMPLE_EVERY_S)


def run(
    found: Endpoints,
    *,
    minutes: float = MINUTES,
    rate: int = RATE,
    advance: Callable[[str], None],
) -> dict[str, Any]:
    """Run for ``minutes``; writes soak.json and soak.png into `bench.rig.RESULTS` and returns the figures.

    ``advance`` is called at each sample with what it found. Raises `headrace.fleet.GaveUp` where a process keeps
    ending, `BenchError` where one has ended and was started again: the memory of another process says nothing.
    """
    about = machine()
    with Rig(found, pipeline()) as rig:
        advance("starting the fleet")
        agents = topology.needed(pipeline().record())
        for agent in agents:
            rig.fleet.start(agent.name, worker_argv(agent.name))
        rig.fleet.start("sink", sink_argv())
        lags = Lags(found.kafka, found.database, rig.namespace, agents)
        feed = Feed(found, rig.namespace, rate=rate, closings=_CLOSINGS)
        try:
            rig.wait_until(lambda: _has_begun(lags), "lags of all groups", timeout_s=_START_S)
            advance("warming up")
            feed.step(rate, WARM_UP_S)
            samples, reached = _watch(rig, lags, feed, minutes, rate, advance)
        finally:
            feed.close()
            lags.close()
            rig.fleet.stop()
            with queries.connect(found.database) as connection:
                queries.drop_run(connection, run_of(rig.namespace))
    figures = {
        "what": f"{minutes:g} minutes at {rate:,} ticks/s",
        "machine": {**about, "load_average_after": load()},
        "setting": {"minutes": minutes, "ticks_per_second": rate, "symbols": len(SYMBOLS)},
        "ticks_per_second_reached": round(reached, 1),
        **_judged(samples, rate),
        "samples": samples,
    }
    save("soak", figures)
    _plot(figures, RESULTS / "soak.png")
    return figures


def _has_begun(lags: Lags) -> bool:
    return all(behind is not None for behind in lags.behind.values())


def _watch(
    rig: Rig, lags: Lags, feed: Feed, minutes: float, rate: int, advance: Callable[[str], None]
) -> tuple[dict[str, Any], float]:
    """Samples by what was looked at, and the rate that was reached; the feed runs a step between two samples."""
    processes = {name: psutil.Process(pid) for name in rig.fleet.names() if (pid := rig.fleet.pid(name))}
    processes |= {name: psutil.Process(pid) for name, pid in _listener(rig.kafka).items()}
    at_s: list[float] = []
    memory: dict[str, list[float]] = {name: [] for name in processes}
    lag: dict[str, list[int]] = {name: [] for name in lags.behind}
    cpu_before = {name: _cpu_s(process) for name, process in processes.items()}
    began_s, ticks = time.monotonic(), 0.0
    while (now_s := time.monotonic() - began_s) < minutes * 60:
        step = feed.step(rate, SAMPLE_EVERY_S)
        ticks += step.reached * SAMPLE_EVERY_S
        rig.fleet.check()
        if restarted := [name for name in rig.fleet.names() if rig.fleet.restarts(name)]:
            raise BenchError(f"{restarted[0]} has ended and was started again; logs in {rig.folder}")
        at_s.append(round(now_s, 2))
        for name, process in processes.items():
            memory[name].append(round(process.memory_info().rss / _MIB, 2))
        for name, behind in lags.behind.items():
            lag[name].append(behind or 0)
        total = sum(values[-1] for name, values in memory.items() if name != BROKER)
        told = ", ".join(f"{name} {values[-1]:,}" for name, values in lag.items())
        advance(f"{total:,.0f} MiB; behind: {told}")
    took_s = time.monotonic() - began_s
    cpu = {
        name: round(100 * (_cpu_s(process) - cpu_before[name]) / took_s, 1)
        for name, process in processes.items()
    }
    return {"at_s": at_s, "memory_mib": memory, "lag": lag, "cpu_percent": cpu}, ticks / len(
        at_s
    ) / SAMPLE_EVERY_S


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _listener(bootstrap: str) -> dict[str, int]:
    """The broker's process, where it runs on this machine and may be looked at."""
    port = int(bootstrap.split(",")[0].rpartition(":")[2])
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return {}
    pids = {
        each.pid
        for each in connections
        if each.status == psutil.CONN_LISTEN and each.pid and each.laddr and each.laddr.port == port
    }
    return {BROKER: pids.pop()} if len(pids) == 1 else {}


def _judged(samples: dict[str, Any], rate: int) -> dict[str, Any]:
    """First and last window, slope and verdict, for the memory of each process and the lag of each group."""
    at_s = samples["at_s"]
    window_s = min(60.0, at_s[-1] / 4)
    memory, lag = {}, {}
    for name, values in samples["memory_mib"].items():
        first, last, slope = _compared(at_s, values, window_s)
        is_flat = last <= max(_GROWTH * first, first + _GROWTH_MIB)
        memory[name] = {
            "first": first,
            "last": last,
            "slope_per_hour": slope,
            "flat": is_flat,
            "cpu_percent": samples["cpu_percent"][name],
        }
    for name, values in samples["lag"].items():
        first, last, slope = _compared(at_s, values, window_s)
        lag[name] = {
            "first": first,
            "last": last,
            "slope_per_hour": slope,
            "flat": last <= max(first, _LAG_S * rate),
        }
    flat = all(each["flat"] for each in (*memory.values(), *lag.values()))
    return {"window_s": window_s, "memory_mib": memory, "lag": lag, "flat": flat}


def _compared(at_s: Sequence[float], values: Sequence[float], window_s: float) -> tuple[float, float, float]:
    """Medians of the first and last window, and the slope of the line through all, per hour."""
    times, found = np.array(at_s), np.array(values, dtype=float)
    first = float(np.median(found[times <= times[0] + window_s]))
    last = float(np.median(found[times >= times[-1] - window_s]))
    slope = float(np.polyfit(times, found, 1)[0]) * 3600 if len(times) > 1 else 0.0
    return round(first, 1), round(last, 1), round(slope, 1)


# ---- for people


def show(figures: dict[str, Any], console: Console) -> None:
    """The table and the verdict."""
    console.print(figures["what"], style="bold", highlight=False)
    window = f"{figures['window_s']:g} s"
    table = Table(box=None, pad_edge=False)
    for heading in ("", f"first {window}", f"last {window}", "slope per hour", "CPU", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for title, unit in (("memory_mib", " MiB"), ("lag", " records")):
        for name, each in figures[title].items():
            cpu = f"{each['cpu_percent']:.0f} %" if "cpu_percent" in each else ""
            table.add_row(
                f"{name}, {'memory' if title == 'memory_mib' else 'lag'}",
                f"{each['first']:,.1f}{unit}",
                f"{each['last']:,.1f}{unit}",
                f"{each['slope_per_hour']:+,.1f}",
                cpu,
                "flat" if each["flat"] else "NOT flat",
            )
    console.print(table)
    reached = figures["ticks_per_second_reached"]
    verdict = "flat" if figures["flat"] else "NOT flat"
    console.print(f"{verdict}; {reached:,.0f} ticks/s reached", highlight=False)
    about = figures["machine"]
    loads = f"{about['load_average']:g} before, {about['load_average_after']:g} after"
    console.print(f"{about['cpus']} CPUs, load average {loads}", style="dim")


def _plot(figures: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    samples = figures["samples"]
    minutes = np.array(samples["at_s"]) / 60
    figure, panels = pyplot.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    for axes, title, label in (
        (panels[0], "memory_mib", "resident memory, MiB"),
        (panels[1], "lag", "records behind"),
    ):
        for name, values in samples[title].items():
            axes.plot(minutes, values, label=name, linewidth=1.4)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small", ncols=3)
    panels[0].set_title(figures["what"])
    panels[1].set_xlabel("minutes")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
