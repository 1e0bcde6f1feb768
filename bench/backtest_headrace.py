"""Headrace's own runs for `bench.backtest`, in a process of their own: `python -m bench.backtest_headrace TRADES.csv`.

Prints one JSON object. The kernels are loaded by a short run before anything is timed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from connectors.files import FilesSettings
from headrace import backtest
from headrace.pipeline import MarketPart, PipelineSettings, RegimesPart
from headrace.results import Tally
from schemas.records import Bar
from streams.agent import Output

STRATEGY = f"{Path(__file__).with_name('ema_cross.py')}:EmaCross"
MINUTE_US = 60_000_000
SIMPLE = PipelineSettings(market=MarketPart(bars=("1m",), regimes=RegimesPart(bars=())))
"""What the peers do: 1-minute bars."""
WARM_UP_ROWS = 20_000


class Bars:
    """Keeps the bars."""

    def __init__(self) -> None:
        self.found: list[Bar] = []

    def __call__(self, output: Output) -> None:
        """Take one output."""
        if isinstance(output.value, Bar):
            self.found.append(output.value)


def run(
    path: Path, declared: PipelineSettings, *, simple: bool, ready: bool = False, limit: int | None = None
) -> tuple[dict[str, float], Tally, list[Bar]]:
    """One backtest as the command runs it: its times, and what came out.

    ``simple``: the one strategy of the bench. ``ready``: the ticks are columns in memory before the time begins.
    """
    began_s, cpu_s = time.perf_counter(), time.process_time()
    feed = backtest.file_feed(path, FilesSettings(limit=limit), declared.market)
    pipeline, _ = backtest.pipeline_for(declared, feed.source, feed.symbols)
    if simple:
        pipeline = backtest.with_strategy(pipeline, STRATEGY)
    parts = feed.parts()
    if ready:
        parts = iter(list(parts))
        began_s, cpu_s = time.perf_counter(), time.process_time()
    record = pipeline.record()
    tally, bars = Tally(record.portfolios), Bars()
    takers: list[Callable[[Output], None]] = [tally, bars] if ready else [tally]
    read = backtest.run(parts, record, takers)
    tally.results()
    took_s, used_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    return {"seconds": took_s, "cpu_seconds": used_s, "ticks": read.ticks}, tally, bars.found


def main(path: Path) -> dict[str, Any]:
    """All of them."""
    run(path, PipelineSettings(), simple=False, limit=WARM_UP_ROWS)
    ready, tally, bars = run(path, SIMPLE, simple=True, ready=True)
    return {
        "ready": ready,
        "file": run(path, SIMPLE, simple=True)[0],
        "usual": run(path, PipelineSettings(), simple=False)[0],
        "orders": sum(tally.results().orders.values()),
        "bars": [(bar.symbol, bar.start // MINUTE_US, bar.close, bar.volume) for bar in bars],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
