"""How long after a bar has ended it is there, and an order on it: Headrace beside peers, and where each is lost.

Twenty symbols, 1-second bars; `bench.feed` says what closes them and how event time runs: with ten closings a second
there are ten times as many bars and orders as live, for ten times the samples, at everybody's cost. From the moment
at which the closing records are handed to the producer, which sends them at once (so every figure counts their append
in), to the moment at which a consumer has

- the bar: one process;
- the order: for Headrace three (symbols ▶ universes ▶ portfolios; a strategy orders on every snapshot), for the
  bridge, a floor that computes nothing, three too; for stock Faust and Kafka Streams a second hop, which passes
  each bar on. Headrace's states and positions are committed meanwhile; the peers' are as their defaults have it.

The rate grows step by step. A contender has lost a rate where, twice running, bars or orders are missing at the end
of the step or come later than `LOST_S` (median); it is not measured from there on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import numpy as np
import psutil

from bench import contenders
from bench.contenders import BAR, BRIDGE, HEADRACE, ORDER, Contender, Hop, Missing, Sample
from bench.feed import LINGER_MS, SOURCE, SYMBOLS, Feed, Step
from bench.latency_report import plot, show
from bench.rig import RESULTS, BenchError, Rig, load, machine, save
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
from schemas.topics import physical

__all__ = ["CLOSINGS", "RATES", "SECONDS", "SWEEP", "run", "show", "steps"]

RATES = (1_000, 10_000)
"""Ticks a second at which latencies are measured."""
SWEEP = (500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 70_000, 100_000)
SECONDS = 100
PROBE_S = 8.0
_START_RATE = 300
"""Ticks a second until a contender works and has caught up."""
_CATCH_UP_PROBES = 8
CLOSINGS = 10
"""Bars that end in a second of the wall clock: in `SECONDS` a thousand orders, for the last per mille."""
LOST_S = 1.0
UNIVERSE, PORTFOLIO = "all", "bench"
_START_S = 120.0
_TAIL_S = 2.0
_PERCENTILES = {"p50": 50.0, "p99": 99.0, "p999": 99.9, "max": 100.0}
_LIMITS_MS = {BAR: 25.0, ORDER: 50.0}
"""Expected p99 at the first of `RATES`; at the others, `_TIMES_BRIDGE` times the bridge's."""
_TIMES_BRIDGE = 3.0


def pipeline() -> PipelineSettings:
    """1-second bars, one universe of all symbols, one portfolio that orders on each of its snapshots."""
    strategy = Path(__file__).with_name("every_snapshot.py")
    return PipelineSettings(
        market=MarketPart(bars=("1s",), regimes=RegimesPart(bars=()), sources=(SourcePart(name=SOURCE),)),
        universes=(UniversePart(name=UNIVERSE, symbols=SYMBOLS, bar="1s", warm_up=1),),
        portfolios=(
            PortfolioPart(
                name=PORTFOLIO,
                universe=UNIVERSE,
                strategies=(StrategyPart(name="turns", uses=f"{strategy}:EverySnapshot"),),
            ),
        ),
    )


def steps(
    rates: Sequence[int] = RATES, sweep: Sequence[int] = SWEEP, names: Sequence[str] = contenders.NAMES
) -> int:
    """The most calls of ``advance`` that `run` makes; fewer where a contender is lost on the way."""
    return len(names) * (1 + len({*rates, *sweep}) + len(rates))


class Arrivals:
    """When the results of one hop arrived, wall clock, read in a thread until `close`; the first of each counts."""

    def __init__(self, rig: Rig, hop: Hop) -> None:
        self.at_s: dict[Sample, float] = {}
        self._starts: set[int] = set()
        self._sample = hop.sample
        self._stop = threading.Event()
        self._reader = ck.Consumer(
            {
                "bootstrap.servers": rig.kafka,
                "group.id": f"{rig.namespace}-{hop.topic}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 100,
                "fetch.queue.backoff.ms": 5,
            }
        )
        name = physical(rig.namespace, hop.topic)
        self._reader.assign([ck.TopicPartition(name, number, 0) for number in range(hop.partitions)])
        self._thread = threading.Thread(target=self._read, name=hop.topic, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            message = self._reader.poll(0.1)
            now_s = time.time()
            if message is not None and message.error() is None:
                sample = self._sample(message)
                if sample is not None:
                    self.at_s.setdefault(sample, now_s)
                    self._starts.add(sample[0])

    def delays_ms(self, step: Step) -> list[float]:
        """Of every result of the step's bars, from the moment their closing records were handed over."""
        handed_s = {closing.start_us: closing.handed_s for closing in step.closings}
        arrived = list(self.at_s.items())
        return [1e3 * (at_s - handed_s[start]) for (start, _), at_s in arrived if start in handed_s]

    def missing(self, closings: Iterable[int]) -> int:
        """How many of these bars (starts, µs) have no result."""
        return sum(start not in self._starts for start in closings)

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()
        self._reader.close()


def run(
    found: Endpoints,
    *,
    rates: Sequence[int] = RATES,
    sweep: Sequence[int] = SWEEP,
    seconds: float = SECONDS,
    probe_s: float = PROBE_S,
    closings: int = CLOSINGS,
    names: Sequence[str] = contenders.NAMES,
    advance: Callable[[str], None],
) -> dict[str, Any]:
    """Measure all; writes latency.json and latency.png into `bench.rig.RESULTS` and returns the figures.

    ``rates`` are measured for ``seconds`` each, those of ``sweep`` only probed, for ``probe_s``. ``advance`` is
    called before each step with what it is. Raises `BenchError` where one gives no result at all.
    """
    about = machine()
    measured: dict[str, Any] = {}
    missing: list[str] = []
    samples: dict[str, dict[int, dict[str, list[float]]]] = {}
    for name in names:
        advance(f"{name}: starting")
        try:
            contender = contenders.contender(name)
        except Missing as error:
            missing.append(str(error))
            continue
        with Rig(found, pipeline()) as rig:
            trial = _Trial(found, rig, contender, closings, advance)
            try:
                measured[name], samples[name] = trial.run(rates, sweep, seconds, probe_s)
            finally:
                trial.close()
    figures = {
        "what": "from the records that close a 1-second bar, ms",
        "machine": about,
        "setting": {
            "symbols": len(SYMBOLS),
            "closings_per_second": closings,
            "seconds": seconds,
            "probe_s": probe_s,
            "linger_ms": LINGER_MS,
            "lost_s": LOST_S,
        },
        "contenders": measured,
        "missing": missing,
        "expected": _expected(measured, rates),
    }
    save("latency", figures)
    if samples:
        plot(samples, RESULTS / "latency.png")
    return figures


class _Trial:
    """One contender from its start to the rate at which it is lost."""

    def __init__(
        self,
        found: Endpoints,
        rig: Rig,
        contender: Contender,
        closings: int,
        advance: Callable[[str], None],
    ) -> None:
        self._rig = rig
        self._advance = advance
        self._contender = contender
        contender.start(rig)
        self._arrivals = {hop.label: Arrivals(rig, hop) for hop in contender.results}
        self._feed = Feed(found, rig.namespace, rate=_START_RATE, closings=closings)

    def run(
        self, rates: Sequence[int], sweep: Sequence[int], seconds: float, probe_s: float
    ) -> tuple[dict[str, Any], dict[int, dict[str, list[float]]]]:
        """The figures, and the samples (ms) by rate and label."""
        self._wait_until_it_works()
        for _ in range(_CATCH_UP_PROBES):  # with what was sent before it was ready
            if not self._is_lost(self._feed.step(_START_RATE, probe_s)):
                break
        by_rate: dict[str, Any] = {}
        samples: dict[int, dict[str, list[float]]] = {}
        kept, lost = 0, None
        for rate in sorted({*rates, *sweep}):
            self._advance(f"{self._contender.name}: {rate:,} ticks/s")
            step = self._feed.step(rate, probe_s)
            if self._is_lost(step) and self._is_lost(step := self._feed.step(rate, probe_s)):
                lost = rate
                break
            if step.reached < 0.95 * rate:
                break  # the feed's own limit
            kept = rate
            if rate in rates:
                by_rate[str(rate)], samples[rate] = self._measure(rate, seconds)
        figures = {"hops": self._contender.hops, "rates": by_rate, "kept": kept, "lost": lost}
        return figures, samples

    def _wait_until_it_works(self) -> None:
        deadline_s = time.monotonic() + _START_S
        while not all(arrivals.at_s for arrivals in self._arrivals.values()):
            fleet = self._rig.fleet
            ended = [name for name in fleet.names() if fleet.status(name) is not None]
            if ended or time.monotonic() > deadline_s:
                what = f"{ended[0]} has ended" if ended else f"no results within {_START_S:g} s"
                raise BenchError(f"{self._contender.name}: {what}; logs in {self._rig.folder}")
            time.sleep(0.2)

    def _is_lost(self, step: Step) -> bool:
        """Of the step's last quarter, whether results are missing or late."""
        last = step._replace(closings=step.closings[-max(len(step.closings) // 4, 1) :])
        return self._missing(last) > 0 or any(
            np.median(arrivals.delays_ms(last)) > 1e3 * LOST_S for arrivals in self._arrivals.values()
        )

    def _missing(self, step: Step) -> int:
        starts = [closing.start_us for closing in step.closings]
        deadline_s = time.monotonic() + _TAIL_S
        while True:
            missing = max(arrivals.missing(starts) for arrivals in self._arrivals.values())
            if not missing or time.monotonic() > deadline_s:
                return missing
            time.sleep(0.05)

    def _measure(self, rate: int, seconds: float) -> tuple[dict[str, Any], dict[str, list[float]]]:
        self._advance(f"{self._contender.name}: {seconds:g} s at {rate:,} ticks/s")
        before, began_s, used_s = load(), time.monotonic(), self._cpu_s()
        step = self._feed.step(rate, seconds)
        took_s = time.monotonic() - began_s
        cpu = {name: round(100 * (after - used_s[name]) / took_s, 1) for name, after in self._cpu_s().items()}
        missing = self._missing(step)
        samples = {label: arrivals.delays_ms(step) for label, arrivals in self._arrivals.items()}
        acknowledged = [1e3 * (each.acknowledged_s - each.handed_s) for each in step.closings]
        figures = {
            "reached": round(step.reached, 1),
            "closings": len(step.closings),
            "without_result": missing,
            "append_acknowledged_ms": float(np.median(acknowledged)),
            "cpu_percent": cpu,
            "load_average": [before, load()],
            "ms": {label: _percentiles(values) for label, values in samples.items()},
        }
        return figures, samples

    def _cpu_s(self) -> dict[str, float]:
        """CPU seconds of each of the contender's processes so far, user and system."""
        fleet = self._rig.fleet
        times = {name: psutil.Process(pid).cpu_times() for name in fleet.names() if (pid := fleet.pid(name))}
        return {name: float(each.user + each.system) for name, each in times.items()}

    def close(self) -> None:
        """Stop the feed and the readers; the rig stops the rest."""
        self._feed.close()
        for arrivals in self._arrivals.values():
            arrivals.close()


def _percentiles(values: list[float]) -> dict[str, float]:
    figures = {name: round(float(np.percentile(values, at)), 2) for name, at in _PERCENTILES.items()}
    return {**figures, "samples": len(values)}


def _expected(measured: dict[str, Any], rates: Sequence[int]) -> list[dict[str, Any]]:
    """p99 against what is expected of it, where both were measured."""
    found = []
    for rate in map(str, rates):
        own = measured.get(HEADRACE, {}).get("rates", {}).get(rate)
        floor = measured.get(BRIDGE, {}).get("rates", {}).get(rate)
        for label in (BAR, ORDER) if own else ():
            if int(rate) == RATES[0]:
                limit = _LIMITS_MS[label]
            elif floor:
                limit = _TIMES_BRIDGE * floor["ms"][label]["p99"]
            else:
                continue
            p99 = own["ms"][label]["p99"]
            found.append({"rate": int(rate), "to": label, "p99": p99, "limit": limit, "met": p99 <= limit})
    return found
