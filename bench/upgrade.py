"""How long results pause while the processes of an installation are restarted one by one, as for a new version.

Two processes of each agent, ticks at a steady rate, ten closings a second (see `bench.feed`). One process after
another is told to end (SIGTERM) and started again, once with `--instance` names (it comes back to the partitions that
it had, for which nobody cares meanwhile) and once without (the other process takes them over, and gives half back).
The pause is the longest time from the records that close a bar to the bar and to the order on it, of all bars that
ended while the process was away and until it was at work again. Nothing may be missing at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import contenders
from bench.contenders import BAR, HEADRACE, ORDER
from bench.feed import Feed
from bench.latency import CLOSINGS, Arrivals, pipeline
from bench.rig import RESULTS, BenchError, Rig, load, machine, save
from headrace.fleet import worker_argv
from headrace.stack import Endpoints

RATE = 1_000
AGENTS = ("portfolios", "universes", "symbols")
"""In the order of docs/maintenance.md: who reads before who writes."""
PROCESSES = 2
WINDOW_S = 20.0
_BEFORE_S = 2.0
_START_S = 120.0
_TAIL_S = 10.0
_AT_WORK = "owns partitions"
NAMED, UNNAMED = "with --instance", "without"


def steps() -> int:
    """How often `run` calls ``advance``."""
    return 2 * (1 + len(AGENTS) * PROCESSES)


def run(found: Endpoints, *, rate: int = RATE, advance: Callable[[str], None]) -> dict[str, Any]:
    """Restart every process; writes upgrade.json and upgrade.png into `bench.rig.RESULTS` and returns the figures.

    Raises `BenchError` where a process does not come back, or a bar or an order is missing.
    """
    about = machine()
    restarts: list[dict[str, Any]] = []
    for how in (NAMED, UNNAMED):
        with Rig(found, pipeline()) as rig:
            advance(f"{how}: starting")
            trial = _Trial(found, rig, rate, is_named=how == NAMED)
            try:
                trial.start()
                for agent in AGENTS:
                    for number in range(PROCESSES):
                        advance(f"{how}: {agent} {number + 1} of {PROCESSES}")
                        restarts.append({"how": how, **trial.restart(agent, f"{agent}-{number}")})
            finally:
                trial.close()
    figures = {
        "what": f"longest wait while a process is restarted at {rate:,} ticks/s, ms",
        "machine": {**about, "load_average_after": load()},
        "setting": {"ticks_per_second": rate, "closings_per_second": CLOSINGS, "processes": PROCESSES},
        "restarts": restarts,
    }
    save("upgrade", figures)
    _plot(figures)
    return figures


class _Trial:
    """An installation whose processes are restarted while it is fed."""

    def __init__(self, found: Endpoints, rig: Rig, rate: int, *, is_named: bool) -> None:
        self._found = found
        self._rig = rig
        self._rate = rate
        self._is_named = is_named
        self._arrivals: dict[str, Arrivals] = {}
        self._feed: Feed | None = None
        self._pool = ThreadPoolExecutor(1)

    def start(self) -> None:
        for agent in AGENTS:
            for number in range(PROCESSES):
                self._join(agent, f"{agent}-{number}")
        for name in self._rig.fleet.names():
            self._until_at_work(name, 1)
        results = contenders.contender(HEADRACE).results
        self._arrivals = {hop.label: Arrivals(self._rig, hop) for hop in results}
        self._feed = Feed(self._found, self._rig.namespace, rate=self._rate, closings=CLOSINGS)
        self._rig.wait_until(
            lambda: all(each.at_s for each in self._arrivals.values()), "first results", timeout_s=_START_S
        )
        self._feed.step(self._rate, WINDOW_S / 2)

    def restart(self, agent: str, name: str) -> dict[str, Any]:
        """Restart a process in the middle of a stretch of feeding; the figures of that stretch."""
        assert self._feed is not None
        fleet = self._rig.fleet
        fed = self._pool.submit(self._feed.step, self._rate, WINDOW_S)
        time.sleep(_BEFORE_S)
        began_s = time.monotonic()
        starts = self._starts(name)
        fleet.stop(name)
        stopped_s = time.monotonic()
        self._join(agent, name)
        self._until_at_work(name, starts + 1)
        back_s = time.monotonic()
        step = fed.result()
        closings = [closing.start_us for closing in step.closings]
        deadline_s = time.monotonic() + _TAIL_S
        while missing := max(arrivals.missing(closings) for arrivals in self._arrivals.values()):
            if time.monotonic() > deadline_s:
                raise BenchError(f"{name}: {missing} bars have no result; logs in {self._rig.folder}")
            time.sleep(0.05)
        waits = {label: arrivals.delays_ms(step) for label, arrivals in self._arrivals.items()}
        return {
            "process": name,
            "stop_s": round(stopped_s - began_s, 2),
            "start_s": round(back_s - stopped_s, 2),
            "longest_ms": {label: round(max(values), 1) for label, values in waits.items()},
            "p50_ms": {label: round(float(np.median(values)), 1) for label, values in waits.items()},
        }

    def _join(self, agent: str, name: str) -> None:
        self._rig.fleet.start(name, worker_argv(agent, name if self._is_named else None), restart=False)

    def _starts(self, name: str) -> int:
        log = self._rig.fleet.log(name)
        return log.read_text(encoding="utf-8").count(_AT_WORK) if log.exists() else 0

    def _until_at_work(self, name: str, starts: int) -> None:
        """Until it says for the ``starts``-th time that it owns partitions."""
        self._rig.wait_until(
            lambda: self._starts(name) >= starts, f"{name} at work", timeout_s=_START_S, every_s=0.05
        )

    def close(self) -> None:
        """Stop the feed and the readers; the rig stops the rest."""
        if self._feed is not None:
            self._feed.close()
        for arrivals in self._arrivals.values():
            arrivals.close()
        self._pool.shutdown()


# ---- for people


def show(figures: dict[str, Any], console: Console) -> None:
    """The table of all restarts."""
    console.print(figures["what"], style="bold", highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "process", "to end, s", "until at work, s", "until the bar", "until the order"):
        table.add_column(heading, justify="left" if heading in ("", "process") else "right")
    for each in figures["restarts"]:
        table.add_row(
            each["how"],
            each["process"],
            f"{each['stop_s']:.1f}",
            f"{each['start_s']:.1f}",
            *(f"{each['longest_ms'][label]:,.0f}" for label in (BAR, ORDER)),
        )
    console.print(table)
    about = figures["machine"]
    loads = f"{about['load_average']:g} before, {about['load_average_after']:g} after"
    console.print(f"{about['cpus']} CPUs, load average {loads}", style="dim")


def _plot(figures: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    for axes, how in zip(panels, (NAMED, UNNAMED), strict=True):
        chosen = [each for each in figures["restarts"] if each["how"] == how]
        places = np.arange(len(chosen))
        for shift, label in ((-0.2, BAR), (0.2, ORDER)):
            axes.bar(places + shift, [each["longest_ms"][label] for each in chosen], 0.4, label=label)
        axes.set_xticks(places, [each["process"] for each in chosen], rotation=30, ha="right")
        axes.set_title(how)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("longest wait, ms")
    panels[0].legend(frameon=False)
    figure.savefig(RESULTS / "upgrade.png", dpi=150)
    pyplot.close(figure)
