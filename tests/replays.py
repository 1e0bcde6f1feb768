"""Sessions to be replayed, and the `headrace` command on them."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from click.testing import Result
from typer.testing import CliRunner

from headrace import compare, replay, topics
from headrace.cli import app
from headrace.cli.diff import EQUAL
from headrace.fleet import headrace_argv
from headrace.reading import TopicMissing
from schemas.records import Command, TradingState
from tests.examples import tick
from tests.pipeline import KafkaRun

DEADLINE_S = 900.0
COMMANDS = ((0.3, TradingState.HALTED), (0.5, TradingState.ACTIVE), (0.7, TradingState.REDUCING))
"""Sent to alpha when so much of the session is in market.ticks: where they take hold, only the run itself knows.

With each, a tick that is late and one that is bad.
"""


def session(
    run: KafkaRun, ingest: Sequence[str], ticks: int, odd: tuple[str, str, int]
) -> Iterator[KafkaRun]:
    """A session of ``ticks`` as it was, with commands from people; its agents are gone, its topics are there.

    ``odd`` names the source, symbol and time (µs) of the ticks that are late or bad. Everything is removed afterwards.
    """
    source, symbol, time_us = odd
    with run:
        run.start(ingest)
        for number, (share, state) in enumerate(COMMANDS):
            while sum(run.end("market.ticks")) < share * ticks and run.fleet.status("ingest") is None:
                time.sleep(0.05)
            command = Command(portfolio="alpha", id=f"c{number}", state=state, issued_at=0)
            run.send("portfolio.events", "alpha", command)
            for sequence, price in ((2 * number, 100.0), (2 * number + 1, -1.0)):
                late_or_bad = tick(symbol, time_us, price, sequence, source=source, session="odd")
                run.send("market.ticks", symbol, late_or_bad)
        run.wait_for_ingest()
        run.settle()
    yield run
    for made in [*replay.known(run.stack.kafka, run.namespace, run.codec), run.namespace]:
        topics.delete(run.stack.kafka, made)


def environment(live: KafkaRun, run_records: int) -> dict[str, str]:
    return {**live.environment(), "HEADRACE_WORKER__MAX_RUN_RECORDS": str(run_records)}


def headrace(live: KafkaRun, *arguments: str, run_records: int = 5_000) -> str:
    """What a command that starts agents says."""
    done = subprocess.run(
        headrace_argv(*arguments),
        env=environment(live, run_records),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    return told


def asked(live: KafkaRun, *arguments: str) -> Result:
    """A command that starts no process, in this one: it has imported what the command needs."""
    return CliRunner().invoke(app, arguments, env=environment(live, run_records=5_000))


def assert_equal(live: KafkaRun, name: str) -> None:
    """`headrace diff` finds the replay equal to the session."""
    done = asked(live, "diff", name, live.namespace)
    assert done.exit_code == EQUAL, done.output
    assert "equal" in done.output


def kill_at_work(
    live: KafkaRun, name: str, arguments: Sequence[str], *, run_records: int, bars: int = 1
) -> None:
    """Start the command that makes the replay ``name``; kill -9 it, with its children, once it has made ``bars``."""
    command = subprocess.Popen(
        headrace_argv(*arguments), env=environment(live, run_records), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + DEADLINE_S
    while _bars(live, name) < bars:
        assert time.monotonic() < deadline
        assert command.poll() is None
        time.sleep(0.1)
    command.send_signal(signal.SIGKILL)
    command.wait()


def _bars(live: KafkaRun, name: str) -> int:
    try:
        return sum(1 for _ in compare.records(live.stack.kafka, name, "market.bars"))
    except TopicMissing:
        return 0


def at(time_us: int) -> str:
    """A time as people write it."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat()
