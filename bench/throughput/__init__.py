"""Ticks to 1-second bars per second: Headrace's `symbols` worker beside other frameworks, over the same topics.

Each contender is one process at the end of a topic that is full: Avro ticks of a scenario, four partitions, made once.
They take turns, each time from the beginning, forwards in one repetition and backwards in the next. `contenders` says
who they are and how a run is timed, `scenarios` where the ticks come from. A contender whose bars are not Headrace's
(`agreement`) gives no figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.rig import RESULTS, BenchError, Rig, machine, save
from bench.throughput import agreement, contenders, scenarios
from bench.throughput.contenders import CEILING, DECODED, HEADRACE, PEERS, Measure, Peer
from bench.throughput.scenarios import Contents, Scenario
from connectors.files.settings import FilesSettings
from headrace.stack import Endpoints
from schemas.topics import SYMBOL_PARTITIONS

_MEASURED = ("per_second", "cpu_us")


class Plan(NamedTuple):
    """What to measure. ``only``: names of peers (None: all); ``processes`` above one: Headrace by so many, too."""

    scenarios: Sequence[Scenario]
    ticks: int
    repetitions: int
    only: Sequence[str] | None = None
    processes: int = 1
    trades: Path | None = None
    files: FilesSettings | None = None

    def peers(self) -> tuple[list[Peer], list[str]]:
        """Those that are installed, and of the others what is missing."""
        unknown = set(self.only or ()) - {peer.name for peer in PEERS}
        if unknown:
            names = ", ".join(peer.name for peer in PEERS)
            raise BenchError(f"there is no contender {', '.join(sorted(unknown))}; there are: {names}")
        wanted = [peer for peer in PEERS if self.only is None or peer.name in self.only]
        missing = [told for peer in wanted if (told := peer.missing()) is not None]
        return [peer for peer in wanted if peer.missing() is None], missing

    def steps(self) -> int:
        """How often ``advance`` is called."""
        runs = len(self.peers()[0]) + (2 if self.processes > 1 else 1)
        return len(self.scenarios) * (1 + self.repetitions * runs)


def run(found: Endpoints, plan: Plan, advance: Callable[[str], None]) -> dict[str, Any]:
    """All scenarios; writes throughput.json and throughput.png into `bench.rig.RESULTS` and returns the figures.

    ``advance`` is called before each step with what it is. Raises `BenchError` where Headrace cannot be measured; a
    peer that cannot is left out, and the figures say why.
    """
    peers, missing = plan.peers()
    figures: dict[str, Any] = {
        "what": "ticks to 1s bars, one process each",
        "machine": machine(),
        "setting": {"ticks": plan.ticks, "repetitions": plan.repetitions, "partitions": SYMBOL_PARTITIONS},
        "missing": missing,
        "scenarios": {str(each): _scenario(found, plan, each, peers, advance) for each in plan.scenarios},
    }
    save("throughput", figures)
    _plot(figures["scenarios"], RESULTS / "throughput.png")
    return figures


class _Runs:
    """The runs of one scenario as they come in."""

    def __init__(self) -> None:
        self.measures: list[Measure] = []
        self.wrong: dict[str, str] = {}
        self.compared: dict[str, int] = {}
        self.reference: agreement.Bars = {}

    def medians(self) -> dict[str, dict[str, float]]:
        """By contender, those that came out wrong left out."""
        names = {measure.contender: None for measure in self.measures if measure.contender not in self.wrong}
        return {name: self._medians(name) for name in names}

    def _medians(self, name: str) -> dict[str, float]:
        own = [measure for measure in self.measures if measure.contender == name]
        return {
            figure: statistics.median(getattr(measure, figure) for measure in own) for figure in _MEASURED
        }


def _scenario(
    found: Endpoints, plan: Plan, scenario: Scenario, peers: Sequence[Peer], advance: Callable[[str], None]
) -> dict[str, Any]:
    runs = _Runs()
    processes = sorted({1, plan.processes})
    with Rig(found, scenarios.pipeline(scenario)) as rig:
        advance(f"{scenario}: sending {plan.ticks:,} ticks")
        contents = scenarios.fill(rig, scenario, plan.ticks, trades=plan.trades, files=plan.files)
        for number in range(plan.repetitions):
            turn = f"{scenario}, {number + 1} of {plan.repetitions}"
            order: list[Peer | int] = [*processes, *peers]
            for each in order if number % 2 == 0 else reversed(order):
                if isinstance(each, int):
                    advance(f"{turn}: {contenders.headrace_name(each)}")
                    _headrace(rig, contents, each, runs)
                else:
                    advance(f"{turn}: {each.name}")
                    _peer(rig, each, plan.ticks, scenarios.least(scenario), runs)
            _compare(rig, peers, runs)
    return _figures(scenario, runs)


def _figures(scenario: Scenario, runs: _Runs) -> dict[str, Any]:
    """Medians, ratios and all runs of one scenario."""
    medians = runs.medians()
    own = medians[HEADRACE]
    return {
        "what": scenarios.describe(scenario),
        "medians": medians,
        "headrace_is": {
            name: {
                "times_as_fast": own["per_second"] / each["per_second"],
                "share_of_cpu": own["cpu_us"] / each["cpu_us"],
            }
            for name, each in medians.items()
        },
        "cpu_of_processes": {
            name: each["cpu_us"] / own["cpu_us"]
            for name, each in medians.items()
            if name.startswith(HEADRACE) and name != HEADRACE
        },
        "bars": len(runs.reference),
        "bars_compared": runs.compared,
        "wrong": runs.wrong,
        "repetitions": [measure._asdict() for measure in runs.measures],
    }


def _headrace(rig: Rig, contents: Contents, processes: int, runs: _Runs) -> None:
    """Measure Headrace and take its bars as what the others are held against: they are the same in every run."""
    try:
        runs.measures.append(contenders.run_headrace(rig, contents, processes))
    except BenchError as error:
        if processes == 1:
            raise
        rig.fleet.stop()
        runs.wrong[contenders.headrace_name(processes)] = str(error)
        return
    bars = agreement.ours(rig.kafka, rig.namespace)
    if runs.reference and bars != runs.reference:
        raise BenchError("two runs of Headrace over the same topic gave different bars")
    runs.reference = bars


def _peer(rig: Rig, peer: Peer, ticks: int, least: int, runs: _Runs) -> None:
    if peer.name in runs.wrong:
        return
    try:
        runs.measures.append(contenders.run_peer(rig, peer, ticks, least))
    except BenchError as error:
        rig.fleet.stop()
        runs.wrong[peer.name] = str(error)


def _compare(rig: Rig, peers: Sequence[Peer], runs: _Runs) -> None:
    """Hold the bars that the peers wrote in this repetition against Headrace's."""
    for peer in peers:
        if peer.name in runs.wrong or not peer.bars:
            continue
        records = next(each.records for each in reversed(runs.measures) if each.contender == peer.name)
        try:
            bars = agreement.theirs(rig.kafka, contenders.bars_topic(rig, peer))
            agreement.compare(runs.reference, bars, records)
        except agreement.Disagreement as error:
            runs.wrong[peer.name] = str(error)
        else:
            runs.compared[peer.name] = runs.compared.get(peer.name, 0) + len(bars)


# ---- for people


def table(figures: dict[str, Any]) -> Table:
    """One scenario: medians side by side, slowest last; fits into 80 columns."""
    found = Table(box=None, pad_edge=False)
    found.add_column("", no_wrap=True)
    for heading in ("ticks/s", "spread", "ratio", "CPU µs/tick", "ratio"):
        found.add_column(heading, justify="right", no_wrap=True)
    medians = figures["medians"]
    for name in sorted(medians, key=lambda name: -medians[name]["per_second"]):
        rates = [each["per_second"] for each in figures["repetitions"] if each["contender"] == name]
        rate, cpu_us = (medians[name][figure] for figure in _MEASURED)
        ratio, ours = figures["headrace_is"][name], name.startswith(HEADRACE)
        found.add_row(
            name,
            f"{rate:,.0f}",
            f"{(max(rates) - min(rates)) / rate:.0%}",
            "" if ours else f"{ratio['times_as_fast']:.3g} ×",
            f"{cpu_us:.2f}",
            "" if ours else f"{ratio['share_of_cpu']:.2g} ×",
            style="bold" if ours else "dim" if name in (CEILING, DECODED) else "",
        )
    return found


def show(figures: dict[str, Any], console: Console) -> None:
    """A table for each scenario, what is missing, and how busy the machine was."""
    about, repetitions = figures["machine"], figures["setting"]["repetitions"]
    console.print(
        f"{figures['what']}: medians of {repetitions}; ratio: Headrace's figure to it", highlight=False
    )
    for name, scenario in figures["scenarios"].items():
        console.print(f"\n{name}: {scenario['what']}", style="bold", highlight=False)
        console.print(table(scenario))
        for processes, share in scenario["cpu_of_processes"].items():
            console.print(f"{processes}: {share:.2f} × the CPU per tick of one", highlight=False)
        for contender, why in scenario["wrong"].items():
            console.print(f"no figures for {contender}: {why}", style="red", highlight=False, soft_wrap=True)
        loads = [each["load_average"] for each in scenario["repetitions"]]
        told = f"load average before the runs: {min(loads):g} to {max(loads):g}"
        console.print(told, style="dim", highlight=False)
    for missing in figures["missing"]:
        console.print(missing, style="yellow", highlight=False)
    console.print(f"{about['cpus']} CPUs, {about['model']}", style="dim")


def _plot(figures: dict[str, Any], path: Path) -> None:
    """Medians and runs as dots on a logarithmic axis, a panel for each scenario."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [0.6 + 0.34 * len(scenario["medians"]) for scenario in figures.values()]
    figure, panels = pyplot.subplots(
        len(figures),
        figsize=(9, sum(heights) + 0.6),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
        sharex=True,
    )
    for axes, (name, scenario) in zip(panels[:, 0], figures.items(), strict=True):
        medians = scenario["medians"]
        names = sorted(medians, key=lambda each: medians[each]["per_second"])
        for row, each in enumerate(names):
            median = medians[each]["per_second"]
            rates = [run["per_second"] for run in scenario["repetitions"] if run["contender"] == each]
            color = (
                "tab:blue" if each.startswith(HEADRACE) else "0.75" if each in (CEILING, DECODED) else "0.4"
            )
            axes.plot(rates, [row] * len(rates), "|", color=color, markersize=9)
            axes.plot(median, row, "o", color=color, markersize=8)
            axes.annotate(
                f"{median:,.0f}", (median, row), (8, 5), textcoords="offset points", fontsize=8, color=color
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xscale("log")
        axes.set_title(f"{name}: {scenario['what']}", loc="left", fontsize=10)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
    figure.suptitle("Ticks to 1-second bars, one process each")
    panels[-1, 0].set_xlabel("ticks per second, logarithmic (dot: median, strokes: runs)")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
