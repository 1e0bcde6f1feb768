"""Backtests over the same trades: Headrace beside nautilus_trader's engine and csp, in turn, a process for each.

All make 1-minute bars; Headrace and nautilus_trader trade them by the same rule (an EMA cross), csp only makes the
bars. The peers' times leave out loading: their trades are objects, or arrays, of their own before it begins. Headrace
is timed in three ways: with its ticks as columns in memory (`READY`, what the ratios are made of), with reading the
file (`FILE`), and with the bars, regimes and strategies of `headrace backtest FILE` without settings (`USUAL`).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.rig import RESULTS, BenchError, load, machine, save
from connectors.files import TradesFile

READY = "Headrace"
FILE = "Headrace, reading the file"
USUAL = "Headrace, reading the file, as it comes"
NAUTILUS = "nautilus_trader"
CSP = "csp"
CSP_ARRAYS = "csp, numpy curves"

_HERE = Path(__file__).parent
_PEERS: Mapping[str, tuple[str, ...]] = {
    NAUTILUS: ("backtest_nautilus.py",),
    CSP: ("backtest_csp.py", "lists"),
    CSP_ARRAYS: ("backtest_csp.py", "arrays"),
}
_WHAT: Mapping[str, str] = {
    READY: "1m bars, EMA cross, snapshots, risk and paper venue; ticks are columns in memory",
    FILE: "the same, from opening the file",
    USUAL: "1s, 1m and 5m bars, regimes, two strategies, from opening the file",
    NAUTILUS: "1m bars, EMACross; ticks are objects in the engine",
    CSP: "1m bars; ticks are lists of (time, value)",
    CSP_ARRAYS: "1m bars; ticks are numpy arrays, equal times moved apart",
}
_TIMEOUT_S = 1800.0
_MOST_DIFFERENT = 0.01
"""Share of a peer's bars that may differ: nautilus_trader counts a trade on the minute to the minute that it ends."""

Bars = dict[tuple[str, int], tuple[float, float]]
"""Close and volume, by symbol and minute since the epoch."""


class Measure(NamedTuple):
    """One timed run. ``per_second`` counts ticks by the wall clock, ``cpu_us`` is processor time per tick."""

    contender: str
    seconds: float
    per_second: float
    cpu_us: float
    load_average: float


def steps(repetitions: int, peers: bool) -> int:
    """How often `run` calls ``advance``."""
    return repetitions * (1 + (len(_PEERS) if peers else 0))


def run(
    trades: Path, *, repetitions: int, peers: Path | None, advance: Callable[[str], None]
) -> dict[str, Any]:
    """All repetitions over the file ``trades``; ``peers`` is the Python that has the peers, None for none.

    Writes backtest.json and backtest.png into `bench.rig.RESULTS` and returns the figures. ``advance`` is called
    before each step with what it is. Raises `BenchError` where a contender fails or makes other bars.
    """
    about = machine()
    measures: list[Measure] = []
    names = [READY, *(_PEERS if peers is not None else ())]
    bars: dict[str, Bars] = {}
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "trades.npz"
        ticks = _export(trades, arrays)
        for number in range(repetitions):
            for name in names if number % 2 == 0 else reversed(names):
                advance(f"{number + 1} of {repetitions}: {name}")
                before = load()
                if name == READY:
                    told = _told([sys.executable, "-m", "bench.backtest_headrace", str(trades)])
                    found = {READY: told["ready"], FILE: told["file"], USUAL: told["usual"]}
                else:
                    script, *options = _PEERS[name]
                    told = _told([str(peers), str(_HERE / "peers" / script), str(arrays), *options])
                    found = {name: told}
                bars[name] = {
                    (symbol, minute): (close, volume) for symbol, minute, close, volume in told["bars"]
                }
                for contender, times in found.items():
                    rate, cpu_us = ticks / times["seconds"], times["cpu_seconds"] * 1e6 / ticks
                    measures.append(Measure(contender, times["seconds"], rate, cpu_us, before))
    agreed = {name: _compare(name, bars[READY], bars[name]) for name in names if name != READY}
    shown = [READY, FILE, USUAL, *names[1:]]
    medians = {name: _medians(measures, name) for name in shown}
    figures = {
        "what": "backtests over the same trades, ticks/s",
        "machine": about,
        "setting": {"file": trades.name, "ticks": ticks, "bars": len(bars[READY])},
        "contains": {name: _WHAT[name] for name in shown},
        "medians": medians,
        "ratio": {name: medians[READY]["per_second"] / medians[name]["per_second"] for name in names[1:]},
        "bars": agreed,
        "repetitions": [measure._asdict() for measure in measures],
    }
    save("backtest", figures)
    _plot(measures, shown, RESULTS / "backtest.png")
    return figures


def _export(trades: Path, arrays: Path) -> int:
    """The file's trades as arrays for the peers; how many there are."""
    stretches = list(TradesFile(trades).columns())
    if not stretches:
        raise BenchError(f"{trades} has no trade")
    rows = np.concatenate([stretch.rows for stretch in stretches])
    np.savez(
        arrays,
        time_us=rows["event_time"],
        price=rows["price"],
        size=rows["size"],
        symbol=rows["lane"],
        symbols=[lane.symbol for lane in stretches[-1].lanes],
    )
    return len(rows)


def _told(argv: list[str]) -> dict[str, Any]:
    """What a child process prints last: one JSON object."""
    ran = subprocess.run(
        argv, capture_output=True, text=True, timeout=_TIMEOUT_S, cwd=_HERE.parent, check=False
    )
    if ran.returncode:
        raise BenchError(f"{' '.join(argv)} ended with {ran.returncode}: {ran.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return told


def _compare(name: str, ours: Bars, theirs: Bars) -> dict[str, int]:
    """In how many bars a peer differs from Headrace. Raises `BenchError` where it is more than a few."""
    common = ours.keys() & theirs.keys()
    found = {
        "bars": len(theirs),
        "missing": len(ours.keys() - theirs.keys()),
        "closes_that_differ": sum(ours[each][0] != theirs[each][0] for each in common),
        "volumes_that_differ": sum(abs(ours[each][1] - theirs[each][1]) > 1e-6 for each in common),
    }
    different = found["missing"] + len(theirs.keys() - ours.keys()) + found["volumes_that_differ"]
    if found["closes_that_differ"] + different > _MOST_DIFFERENT * len(ours):
        raise BenchError(f"{name} makes other bars than Headrace: {found}")
    return found


def _medians(measures: list[Measure], name: str) -> dict[str, float]:
    own = [measure for measure in measures if measure.contender == name]
    return {
        figure: statistics.median(getattr(measure, figure) for measure in own)
        for figure in ("seconds", "per_second", "cpu_us")
    }


# ---- for people


def table(figures: dict[str, Any]) -> Table:
    """Medians side by side."""
    found = Table(box=None, pad_edge=False)
    for heading in ("", "ticks/s", "CPU µs/tick", "Headrace is", "contains"):
        found.add_column(heading, justify="left" if heading in ("", "contains") else "right")
    for name, medians in figures["medians"].items():
        ratio = figures["ratio"].get(name)
        found.add_row(
            name,
            f"{medians['per_second']:,.0f}",
            f"{medians['cpu_us']:.2f}",
            "" if ratio is None else f"{ratio:.2f} ×",
            figures["contains"][name],
        )
    return found


def show(figures: dict[str, Any], console: Console) -> None:
    """The table, what was compared, and how busy the machine was."""
    setting = figures["setting"]
    console.print(figures["what"], style="bold", highlight=False)
    console.print(table(figures))
    console.print(f"{setting['ticks']:,} ticks, {setting['bars']:,} bars", style="dim", highlight=False)
    for name, told in figures["bars"].items():
        console.print(
            f"{name}: {told['bars']:,} bars; {told['missing']} missing, {told['closes_that_differ']} closes and "
            f"{told['volumes_that_differ']} volumes differ",
            style="dim",
            highlight=False,
        )
    loads = ", ".join(f"{each['load_average']:g}" for each in figures["repetitions"])
    console.print(f"{figures['machine']['cpus']} CPUs, load average before each run: {loads}", style="dim")


def _plot(measures: list[Measure], names: list[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.55 * len(names)), layout="constrained")
    labels = []
    for row, name in enumerate(reversed(names)):
        rates = [measure.per_second for measure in measures if measure.contender == name]
        median = statistics.median(rates)
        axes.barh(row, median, color="tab:blue" if name.startswith(READY) else "0.65", height=0.55)
        axes.plot(rates, [row] * len(rates), "o", color="black", markeredgecolor="white", markersize=4)
        labels.append(f"{name}\n{median:,.0f}/s")
    axes.set_yticks(range(len(labels)), labels)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set(title="Backtests over the same trades", xlabel="ticks per second (bar: median, dots: runs)")
    axes.margins(x=0.1)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
