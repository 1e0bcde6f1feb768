"""The README's scripts, as they are written there, against the real stack."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import confluent_kafka as ck
import pytest

from headrace import compare
from headrace.fleet import Fleet, headrace_argv
from headrace.stack import Endpoints
from schemas.topics import TOPICS

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
DEADLINE_S = 240.0


def block(language: str, telling: str) -> str:
    """The code block of a language that has a certain text in it."""
    found = [c for c in re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S) if telling in c]
    assert len(found) == 1
    return str(found[0])


PORTFOLIO = """
[[pipeline.universes]]
name = "one"
symbols = ["ACME"]

[[pipeline.portfolios]]
name = "book"
universe = "one"
strategies = [{ name = "buy", uses = "buy.py:Buy" }]
"""
BUY = """
import msgspec

from headrace import Strategy, Target


class Buy(Strategy):
    class Parameters(msgspec.Struct, frozen=True):
        pass

    class State(msgspec.Struct):
        pass

    def on_snapshot(self, state, view):
        return state, [] if view.weight("ACME") else [Target("ACME", 0.001, "buy")]
"""


@pytest.fixture
def folder(tmp_path: Path, stack: Endpoints, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder as a reader of the README has it: settings, scripts, and the services known."""
    (tmp_path / "headrace.toml").write_text(block("toml", '"mine"') + PORTFOLIO)
    (tmp_path / "produce.py").write_text(block("python", "AvroSerializer("))
    (tmp_path / "read.py").write_text(block("python", "AvroDeserializer("))
    (tmp_path / "buy.py").write_text(BUY)
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_NAMESPACE", namespace)
    monkeypatch.setenv("HEADRACE_KAFKA__BOOTSTRAP", stack.kafka)
    monkeypatch.setenv("HEADRACE_REGISTRY__URL", stack.registry)
    monkeypatch.setenv("HEADRACE_DATABASE__URL", stack.database)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def workers(folder: Path) -> Iterator[Fleet]:
    """All agents, over topics that `headrace topics create` has made."""
    subprocess.run(headrace_argv("topics", "create"), check=True, timeout=DEADLINE_S)
    with Fleet(folder / "logs", {}) as fleet:
        for agent in ("symbols", "universes", "portfolios"):
            fleet.start(agent, headrace_argv("worker", agent))
        yield fleet


def produce(stack: Endpoints, namespace: str) -> None:
    script = [sys.executable, "produce.py", stack.kafka, stack.registry, f"{namespace}.market.ticks"]
    subprocess.run(script, check=True, timeout=DEADLINE_S)


def wait_for(stack: Endpoints, namespace: str, topic: str, count: int) -> None:
    """Until a topic has so many records."""
    deadline = time.monotonic() + DEADLINE_S
    while (held := sum(1 for _ in compare.records(stack.kafka, namespace, topic))) < count:
        assert time.monotonic() < deadline, f"{held} of {count} in {topic}"
        time.sleep(0.3)


def wait_until_read(stack: Endpoints, namespace: str, records: int) -> None:
    """Until `symbols` has committed so many records of market.ticks, as a lag monitor would see it."""
    group = {"bootstrap.servers": stack.kafka, "group.id": f"{namespace}.headrace-symbols"}
    topic = f"{namespace}.market.ticks"
    places = [ck.TopicPartition(topic, number) for number in range(TOPICS["market.ticks"].partitions)]
    monitor = ck.Consumer(group)
    deadline = time.monotonic() + DEADLINE_S
    while (read := sum(place.offset for place in monitor.committed(places))) < records:
        assert time.monotonic() < deadline, f"{read} of {records}"
        time.sleep(0.2)
    monitor.close()


def test_ticks_of_your_own_become_bars_and_a_fill_that_the_reader_reads(
    stack: Endpoints, namespace: str, workers: Fleet
) -> None:
    produce(stack, namespace)
    wait_for(stack, namespace, "trade.equity", 2)
    found = compare.read(stack.kafka, namespace)
    assert found.count("market.bars") == 122, "120 of a second, two of a minute; the five minutes are open"
    assert not found.dead_letters

    script = [sys.executable, "read.py", stack.kafka, stack.registry, f"{namespace}.trade.executions"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        watchdog = threading.Timer(DEADLINE_S, reader.kill)
        watchdog.start()
        lines = [reader.stdout.readline().split() for _ in range(4)]
        watchdog.cancel()
        reader.kill()
    assert [line[:2] for line in lines] == [
        ["ACME", "APPROVED"],
        ["ACME", "SUBMITTED"],
        ["ACME", "ACCEPTED"],
        ["ACME", "FILLED"],
    ]

    # Sent again, every tick is a repeat.
    produce(stack, namespace)
    wait_until_read(stack, namespace, 4 + 2 * (120 + 121 * 4))
    again = compare.read(stack.kafka, namespace)
    assert not compare.differences(found, again)
    assert not again.copies
