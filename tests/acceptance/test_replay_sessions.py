"""Both sessions of real trades, run again: equal, whatever the processes, runs and kills; and how fast it goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from headrace.stack import Endpoints
from tests import pipeline, replays
from tests.integration.test_end_to_end import real_settings
from tests.pipeline import KafkaRun
from tests.replays import assert_equal, headrace

TICKS = 1_042_557
BEGIN = datetime(2013, 10, 7, 8, tzinfo=UTC)
NIGHT = datetime(2013, 10, 8, 2, tzinfo=UTC)
"""Between the sessions."""
HOURS = 32.0
"""Of trading, extended hours included."""


@pytest.fixture(scope="module")
def live(stack: Endpoints, trades: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaRun]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "DEADLINE_S", 1_200.0)
        run = KafkaRun(
            stack,
            f"r{time.time_ns():x}"[:13],
            real_settings(),
            tmp_path_factory.mktemp("live"),
            with_sink=False,
        )
        odd = ("files", "IBM", int(BEGIN.timestamp() * 1e6))
        yield from replays.session(run, ["files", str(trades)], TICKS, odd)


def test_once_more(live: KafkaRun, figures: dict[str, Any]) -> None:
    name = f"{live.namespace}-plain"
    began_s = time.monotonic()
    headrace(live, "replay", "--into", name, "--no-sink")
    took_s = time.monotonic() - began_s
    assert_equal(live, name)
    figures["replay of both sessions"] = (
        f"{took_s:.1f} s with the start of the agents: {TICKS / took_s:,.0f} ticks/s, "
        f"{HOURS * 3600 / took_s:,.0f} times as fast as they were"
    )


def test_in_two_processes_with_other_runs_killed_at_three_places(live: KafkaRun) -> None:
    name = f"{live.namespace}-killed"
    arguments = ("replay", "--into", name, "--processes", "2", "--no-sink")
    for bars in (1_000, 30_000, 60_000):
        replays.kill_at_work(live, name, arguments, run_records=977, bars=bars)
    headrace(live, *arguments, run_records=977)
    assert_equal(live, name)


def test_the_second_session_from_a_checkpoint_between_them(live: KafkaRun, figures: dict[str, Any]) -> None:
    headrace(live, "checkpoint", "--at", NIGHT.isoformat())
    name = f"{live.namespace}-tuesday"
    began_s = time.monotonic()
    told = headrace(live, "replay", "--from", NIGHT.isoformat(), "--into", name, "--no-sink")
    figures["replay of the second session, from a checkpoint"] = f"{time.monotonic() - began_s:.1f} s"
    assert "from checkpoint" in told
    assert_equal(live, name)
