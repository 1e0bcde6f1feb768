"""Runs the demo: stack, topics, processes, the view, the summary; and takes all of it down again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.live import Live

from headrace import stack, topics
from headrace.charts import Curve, equity_png
from headrace.demo import bad_ticks, plan, summary
from headrace.demo.plan import Choices, Plan
from headrace.demo.screen import Screen
from headrace.demo.watch import Watch
from headrace.fleet import Fleet, sink_argv, worker_argv
from headrace.lags import Lags
from headrace.settings import Settings
from headrace.stack import Endpoints
from schemas.codec import Codec
from schemas.records import PortfolioSpec
from sinks.timescale import queries
from sinks.timescale.tables import run_of
from streams import topology
from streams.errors import HeadraceError
from streams.runtime import registry

FEED, SINK = "ingest", "sink"
_REFRESH_S = 0.25
_LINE_EVERY_S = 5.0
_STALLED_S = 120.0
_CATCH_UP_S = 20.0
_BAD_AFTER_TICKS = 5_000
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


Show = Callable[[float], None]
"""Shows where the demo stands, given the seconds since it began."""


class DemoFailed(HeadraceError):
    """Raised where the demo cannot reach its end; says what stands still or ended, and where the logs are."""


class Done(NamedTuple):
    """A demo that ran to its end."""

    summary: summary.Summary
    curves: dict[str, Curve]
    stack_stays: bool


def run(
    loaded: Settings, chosen: Choices, console: Console, tell: Callable[[Done], None], *, keep: bool
) -> None:
    """Run the demo, ``tell`` how it ended, and clean up, however it ends; progress goes to ``console``.

    Belongs to a process of its own: it ignores Ctrl-C once it cleans up. Raises `DemoFailed`, GaveUp where a
    process keeps ending, StackError and TopicsError where the services fail.
    """
    began_s = time.monotonic()
    namespace = time.strftime("demo-%m%d-%H%M%S")
    planned = plan.make(loaded, namespace, chosen)
    folder = loaded.stack.data_dir / "demo" / namespace
    with ExitStack() as cleanup, _undisturbed_afterwards():
        states = [service.state for service in stack.status(loaded.stack, loaded.external())]
        stays = keep or "running" in states
        if not stays:
            cleanup.callback(_stack_down, loaded, console)
        if set(states) != {"running"}:
            console.print("starting the local stack (the first time, downloads take a minute or two)")
        found = stack.up(loaded.stack, loaded.external(), console)
        folder.mkdir(parents=True)
        file = plan.write(planned.settings, folder)
        codec = registry.codec(found.registry, namespace)
        record = planned.settings.pipeline.record()
        topics.create(found.kafka, namespace, record, codec)
        where = f"namespace {namespace}, logs and settings in {folder}"
        console.print(f"{planned.title}; {where}", soft_wrap=True, highlight=False)

        fleet = cleanup.enter_context(Fleet(folder / "logs", _environment(file, namespace, found)))
        watch = cleanup.enter_context(closing(Watch(found.kafka, namespace, codec, record.portfolios)))
        agents = topology.needed(record)
        lags = cleanup.enter_context(closing(Lags(found.kafka, found.database, namespace, agents)))
        for agent in agents:
            fleet.start(agent.name, worker_argv(agent.name))
        fleet.start(SINK, sink_argv())
        fleet.start(FEED, planned.feed, finishes=True)
        running = _Running(planned, fleet, watch, lags, found, codec, namespace, began_s)
        with _shown(running.screen, console) as show:
            running.to_the_end(show)
            watch.finish(_CATCH_UP_S)
            show(time.monotonic() - began_s)
        fleet.stop()
        tell(_summed_up(running, record.portfolios, folder, stays))


@contextmanager
def _undisturbed_afterwards() -> Iterator[None]:
    """An impatient second Ctrl-C would cut the cleaning up short, and leave processes behind."""
    try:
        yield
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _environment(file: Path, namespace: str, found: Endpoints) -> dict[str, str]:
    """What every child is told. The environment comes before the file: the user's own must not come between."""
    return {
        "HEADRACE_SETTINGS": str(file),
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_WORKER__STATE_DIR": str(file.parent / "state"),
        "HEADRACE_KAFKA__BOOTSTRAP": found.kafka,
        "HEADRACE_REGISTRY__URL": found.registry,
        "HEADRACE_DATABASE__URL": found.database,
    }


def _stack_down(loaded: Settings, console: Console) -> None:
    stopped = stack.down(loaded.stack)
    if stopped:
        console.print(f"stopped {', '.join(stopped)} (--keep leaves the stack running)", style="dim")


class _Running:
    """The processes and what watches them."""

    def __init__(
        self,
        planned: Plan,
        fleet: Fleet,
        watch: Watch,
        lags: Lags,
        found: Endpoints,
        codec: Codec,
        namespace: str,
        began_s: float,
    ) -> None:
        self.fleet, self.watch, self.lags = fleet, watch, lags
        self.found, self.namespace, self.began_s = found, namespace, began_s
        self.bad = 0
        self._codec = codec
        self.simulated = self._spoils = planned.simulated
        session = planned.settings.simulator
        first_ms = session.start_us // 1000
        length = (first_ms, first_ms + session.minutes * 60_000) if planned.simulated else None
        self.screen = Screen(watch, planned.title, length)

    def to_the_end(self, show: Show) -> None:
        """Watch until everything that was sent has reached the database."""
        moved, moved_s = 0, time.monotonic()
        while not self.lags.drained.is_set():
            self.fleet.check()
            now_s = time.monotonic()
            with self.watch.lock:
                total = self.watch.records.total()
            if total != moved:
                moved, moved_s = total, now_s
            elif now_s - moved_s > _STALLED_S:
                raise DemoFailed(f"nothing has moved for {_STALLED_S:.0f} s; behind: {self.lags.behind}")
            if self.fleet.status(FEED) == 0:
                self.lags.feed_is_done()
            elif self._spoils:
                self._spoil()
            self.screen.lags = self.lags.behind
            show(now_s - self.began_s)
            time.sleep(_REFRESH_S)

    def _spoil(self) -> None:
        """Once there are a few thousand ticks: some that are bad."""
        with self.watch.lock:
            ticks, tick = self.watch.ticks, self.watch.tick
        if ticks >= _BAD_AFTER_TICKS and tick is not None:
            self._spoils = False
            self.bad = bad_ticks.send(self.found.kafka, self.namespace, self._codec, tick)
            self.screen.note = f"{self.bad} bad records were sent on purpose"


@contextmanager
def _shown(screen: Screen, console: Console) -> Iterator[Show]:
    """A live view on a terminal; elsewhere a line every few seconds."""
    if not console.is_terminal:
        last_s = 0.0

        def line(elapsed_s: float) -> None:
            nonlocal last_s
            if elapsed_s - last_s >= _LINE_EVERY_S:
                last_s = elapsed_s
                console.print(screen.line(elapsed_s), soft_wrap=True, highlight=False)

        yield line
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:

        def draw(elapsed_s: float) -> None:
            live.update(screen.draw(elapsed_s, console.width, console.height), refresh=True)

        yield draw


def _summed_up(
    running: _Running, portfolios: tuple[PortfolioSpec, ...], folder: Path, stack_stays: bool
) -> Done:
    watch, fleet = running.watch, running.fleet
    with queries.connect(running.found.database) as connection:
        results, rows, conflicts, curves = summary.read(connection, running.namespace, portfolios)
    picture = folder / "equity.png"
    equity_png(curves, picture, running.namespace)
    first_fill_s = None if watch.first_fill_s is None else round(watch.first_fill_s - running.began_s, 1)
    told = summary.Summary(
        namespace=running.namespace,
        run=run_of(running.namespace),
        simulated=running.simulated,
        ticks_sent=watch.ticks,
        bad_ticks=running.bad,
        elapsed_s=round(time.monotonic() - running.began_s, 1),
        first_fill_s=first_fill_s,
        rows=rows,
        conflicts=conflicts,
        results=results,
        restarts={name: fleet.restarts(name) for name in fleet.names()},
        folder=str(folder),
        plot=str(picture),
    )
    if not results.fills:
        raise DemoFailed(f"no order was filled; logs and settings are in {folder}")
    return Done(told, curves, stack_stays)
