"""Every one-minute bar of real trades equals the one that pandas makes of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from connectors.files import FilesSettings, TradesFile
from headrace.pipeline import PipelineSettings
from schemas.records import Bar, Tick
from streams.agent import Output
from streams.runtime.inline import Inline
from streams.symbols import Symbols
from tests.accuracy.minute_bars import Bars, MinuteBar, differences, minute_bars

ROWS = 60_000


def bars_of(path: Path, rows: int) -> Bars:
    """The bars that the `symbols` agent makes of the first rows, inline."""
    found: Bars = {}

    def collect(output: Output) -> None:
        bar = output.value
        if isinstance(bar, Bar) and output.topic == "market.bars":
            key = bar.symbol, bar.start
            assert key not in found, f"a second bar {key}"
            found[key] = MinuteBar(bar.open, bar.high, bar.low, bar.close, bar.volume, bar.vwap, bar.count)

    market = {"bars": ["1m"], "sources": [{"name": "files"}]}
    settings = PipelineSettings.model_validate({"market": market}).record()
    runner = Inline((Symbols(),), settings, collect)
    for message in TradesFile(path, FilesSettings(limit=rows)).messages():
        if message.record is None:
            runner.clock(message.source, message.time_us // 1000)
        else:
            assert isinstance(message.record, Tick)
            runner.tick(str(message.key), message.record, message.time_us // 1000)
    runner.flush()
    return found


def test_bars_are_those_of_pandas(trades: Path) -> None:
    reference = minute_bars(trades, ROWS)
    assert sum(bar.count for bar in reference.values()) == ROWS
    bars = bars_of(trades, ROWS)
    assert len({symbol for symbol, _ in bars}) == 4
    assert differences(bars, reference) == []


def test_a_difference_is_seen(trades: Path) -> None:
    reference = minute_bars(trades, 2_000)
    (first, bar), (second, _), *_ = sorted(reference.items())
    other = dict(reference)
    other[first] = replace(bar, vwap=bar.vwap * (1 + 1e-11))
    del other[second]
    other["NONE", 0] = bar
    kinds = [text.partition(":")[0] for text in differences(other, reference)]
    assert sorted(kinds) == sorted([str(first), "extra", "missing"])
