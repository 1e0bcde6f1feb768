"""`headrace demo` as a user runs it: it ends by itself, its summary adds up, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace import topics
from headrace.stack import Endpoints
from sinks.timescale import queries

SHORT = ("--short", "--minutes", "50")


@pytest.fixture
def env(stack: Endpoints, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a demo on the running stack; what its namespace left there is removed afterwards."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    yield {
        **mine,
        "HEADRACE_STACK__DATA_DIR": str(tmp_path),
        "HEADRACE_KAFKA__BOOTSTRAP": stack.kafka,
        "HEADRACE_REGISTRY__URL": stack.registry,
        "HEADRACE_DATABASE__URL": stack.database,
    }
    for folder in (tmp_path / "demo").glob("demo-*"):
        topics.delete(stack.kafka, folder.name)
        with queries.connect(stack.database) as connection:
            queries.drop_run(connection, folder.name)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "headrace", *arguments]


def test_it_ends_by_itself_and_its_summary_adds_up(env: dict[str, str], stack: Endpoints) -> None:
    ran = subprocess.run(
        command("demo", *SHORT, "--json"), env=env, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    results = told["results"]
    good = told["ticks_sent"] - told["bad_ticks"]
    assert good > 30_000
    assert results["ticks_in_bars"] == dict.fromkeys(("time:1s", "time:1m", "time:5m"), good)
    assert results["late_ticks"] == told["conflicts"] == 0
    assert told["bad_ticks"] == sum(results["dead_letters"].values()) == told["rows"]["dead_letters"] > 0
    assert told["rows"]["market_bars"] == sum(results["bars"].values())
    assert results["snapshots"] == told["rows"]["trade_equity"] == 2 * 50
    assert [book["portfolio"] for book in results["books"]] == ["north", "south"]
    fills = 0
    for book in results["books"]:
        assert book["fills"]["momentum"] > 0
        fills += sum(book["fills"].values())
        profit = book["realised"] + book["unrealised"] - book["fees"]
        assert book["profit"] == pytest.approx(profit, abs=0.01)
        assert book["equity"] == pytest.approx(book["cash_at_start"] + profit, abs=0.01)
    assert fills == told["rows"]["trade_positions"]
    assert results["orders"]["DENIED"] > 0
    assert 0 < told["first_fill_s"] < told["elapsed_s"]
    assert set(told["restarts"].values()) == {0}
    assert Path(told["plot"]).stat().st_size > 10_000

    settings = {**env, "HEADRACE_SETTINGS": f"{told['folder']}/headrace.toml"}
    again = subprocess.run(
        command("backtest", "--simulate", "--json"), env=settings, capture_output=True, text=True, timeout=120
    )
    inline = json.loads(again.stdout)
    del results["dead_letters"]  # the demo's bad records are not in the session
    assert {name: inline[name] for name in results} == results


def test_ctrl_c_leaves_no_process(env: dict[str, str]) -> None:
    with subprocess.Popen(command("demo", *SHORT), env=env, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if " ticks (" in line:
                break
        children = psutil.Process(demo.pid).children(recursive=True)
        assert len(children) >= 5  # three agents, the sink, the connector
        demo.send_signal(signal.SIGINT)
        time.sleep(0.5)
        demo.send_signal(signal.SIGINT)  # an impatient one
        demo.stdout.read()
        assert demo.wait(60) == 130
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
