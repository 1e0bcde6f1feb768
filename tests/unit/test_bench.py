"""What the figures of `headrace bench` rest on: the same ticks, the same bars, the stretch that is timed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench import throughput
from bench.peers.job import BAR_SCHEMA, Job, Marks, added, opened, tick_reader, written
from bench.rig import BenchError
from bench.throughput import Plan, agreement, contenders
from bench.throughput.contenders import PEERS, Commit
from bench.throughput.scenarios import Contents, Scenario
from connectors.messages import Message
from headrace.cli import app, bench
from headrace.pipeline import PipelineSettings
from schemas.codec import Codec, topic_schema
from schemas.partitioner import partition_of
from schemas.records import Settings, Tick

CODEC = Codec({"market.ticks": 7}, lambda _: "")


def test_a_peer_reads_ticks_and_nothing_else() -> None:
    read = tick_reader(topic_schema("market.ticks"))
    tick = Tick(symbol="A", source="s", event_time=1, price=2.0, size=3.0)
    settings: Settings = PipelineSettings().record()
    assert read(CODEC.encode("market.ticks", tick))["price"] == 2.0
    assert read(CODEC.encode("market.ticks", settings)) is None
    assert read(None) is None


def test_a_bar_of_a_peer() -> None:
    ticks = [{"price": price, "size": 2.0} for price in (5.0, 7.0, 4.0, 6.0)]
    bar = opened(ticks[0])
    for tick in ticks[1:]:
        bar = added(bar, tick)
    body = io.BytesIO(written("A", 1_000_000, bar))
    assert fastavro.schemaless_reader(body, fastavro.parse_schema(BAR_SCHEMA), None) == {
        **{"symbol": "A", "start": 1_000_000, "volume": 8.0, "count": 4},
        **{"open": 5.0, "high": 7.0, "low": 4.0, "close": 6.0},
    }


def job(folder: Path, warm_up: int, records: int) -> Job:
    marks = str(folder / "marks")
    return Job("", "", "", 4, None, warm_up, records, "", str(folder), marks, {})


@pytest.mark.parametrize("step", [1, 7])
def test_the_marks_are_left_once_all_are_counted(tmp_path: Path, step: int) -> None:
    marks, file = Marks(job(tmp_path, 10, 25)), tmp_path / "marks"
    seen = 0
    while not file.exists():
        marks.add(step)
        seen += step
    told = json.loads(file.read_text())
    began = -(-10 // step) * step
    assert (seen, told["records"]) == (-(-35 // step) * step, seen - began)
    assert told["began_s"] <= told["ended_s"]


@pytest.mark.parametrize("ticks", [50_000, 1_000_000, 10_000_000])
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.slug)
def test_a_peer_is_timed_within_the_topic(peer: contenders.Peer, ticks: int) -> None:
    warm_up, records = contenders.prefix(peer, ticks)
    assert 0 < warm_up < records <= peer.records
    assert warm_up + records <= ticks


# ---- Headrace's own stretch


COMMITS = [
    Commit(moment_s, partition, offset)
    for moment_s, offset in ((10.0, 100), (12.0, 300), (13.0, 400))
    for partition in range(4)
]


def every(_: int, offset: int) -> int:
    return offset


@pytest.mark.parametrize(
    ("after_s", "warm_up", "expected"),
    [
        (0.0, 0, (10.0, 13.0, 1_600 - 100)),
        (0.0, 401, (12.0, 13.0, 1_600 - 600)),
        (11.0, 0, (12.0, 13.0, 1_600 - 600)),
    ],
)
def test_the_stretch_begins_behind_the_warm_up(
    after_s: float, warm_up: int, expected: tuple[float, float, int]
) -> None:
    assert contenders.stretch(COMMITS[::-1], after_s, warm_up, every) == expected


def test_no_stretch_where_all_was_done_before() -> None:
    with pytest.raises(BenchError, match="too few ticks"):
        contenders.stretch(COMMITS, 13.0, 0, every)


def test_clocks_and_settings_are_no_ticks() -> None:
    contents = Contents()
    clock = Message(None, None, 1, "s")
    tick = Tick(symbol="A", source="s", event_time=1, price=1.0, size=1.0)
    for message in (clock, *[Message("A", tick, 1, "s")] * 2, clock, Message("A", tick, 1, "s")):
        contents.add(message)
    partition = partition_of("A", 4)
    assert contents.ends == {**dict.fromkeys(range(4), 3), partition: 6}
    assert [contents.ticks(partition, offset) for offset in range(7)] == [0, 0, 0, 1, 2, 2, 3]
    for _ in range(57):
        contents.add(Message("A", tick, 1, "s"))
    assert contents.warm_up == 60 // 20


# ---- agreement


def a_bar(count: int) -> tuple[Any, ...]:
    return 1.0, 2.0, 0.5, 1.5, 10.0, count


REFERENCE = {(symbol, start): a_bar(10) for symbol in "AB" for start in range(5)}


def test_bars_up_to_the_last_of_each_symbol_agree() -> None:
    agreement.compare(REFERENCE, {key: bar for key, bar in REFERENCE.items() if key < ("B", 2)}, 100)


@pytest.mark.parametrize(
    ("bars", "told"),
    [
        ({**REFERENCE, ("A", 3): a_bar(9)}, "A at 3"),
        ({**REFERENCE, ("C", 3): a_bar(10)}, "C at 3.*not None"),
        ({key: bar for key, bar in REFERENCE.items() if key != ("B", 1)}, "B at 1: no bar"),
        ({("A", 0): a_bar(10)}, "hold 10 ticks of 100"),
    ],
)
def test_a_disagreement_is_seen(bars: agreement.Bars, told: str) -> None:
    with pytest.raises(agreement.Disagreement, match=told):
        agreement.compare(REFERENCE, bars, 100)


# ---- for people


def test_an_unknown_contender_is_named() -> None:
    with pytest.raises(BenchError, match=r"no contender flink; there are: stock faust"):
        Plan([Scenario.SIM20], 100_000, 1, ["flink"]).peers()


def test_what_is_not_installed_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(contenders, "PEERS_VENV", tmp_path)
    monkeypatch.setattr(contenders, "KAFKA_STREAMS", tmp_path)
    peers, missing = Plan([Scenario.SIM20], 100_000, 1).peers()
    assert [peer.name for peer in peers] == ["stock faust", "consume + fastavro", "bare consume"]
    assert len(missing) == len(PEERS) - 3
    assert all("make bench" in told for told in missing)


def test_the_table_shows_ratios_and_what_has_no_figures() -> None:
    measures = [
        contenders.Measure(name, 100, 1.0, rate, cpu, 0.5)
        for name, rate, cpu in (
            ("headrace", 1e6, 1.0),
            ("bytewax", 4e4, 25.0),
            ("headrace, 2 processes", 1.9e6, 1.1),
        )
    ]
    runs = throughput._Runs()
    runs.measures, runs.wrong = measures, {"quix streams": "A at 3"}
    scenario = throughput._figures(Scenario.SIM20, runs)
    console = Console(width=140, record=True, file=io.StringIO())
    shown = {
        "what": "x",
        "machine": {"cpus": 2, "model": "m"},
        "missing": ["y"],
        "setting": {"repetitions": 1},
        "scenarios": {"sim20": scenario},
    }
    throughput.show(shown, console)
    text = console.export_text()
    assert "25 ×" in text
    assert "0.04 ×" in text
    assert "headrace, 2 processes: 1.10 × the CPU per tick of one" in text
    assert "no figures for quix streams: A at 3" in text


def test_help_goes_on_to_the_measurements() -> None:
    shown = CliRunner().invoke(app, ["bench", "throughput", "--help"])
    assert shown.exit_code == 0
    assert "over the same topics" in shown.output


def test_without_a_checkout_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "_CHECKOUT", tmp_path)
    with pytest.raises(bench.CheckoutNeeded, match="clone the repository"):
        CliRunner().invoke(app, ["bench", "throughput"], catch_exceptions=False)
