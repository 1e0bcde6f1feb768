"""What bounds a worker's memory: how much it fetches ahead, and how much of its output waits for Kafka."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import confluent_kafka as ck
import msgspec
import pytest

from headrace import topics
from headrace.stack import Endpoints
from schemas.codec import Codec
from schemas.topics import SYMBOL_PARTITIONS, physical
from streams.runtime.config import RuntimeConfig
from streams.runtime.kafka import output_settings
from tests.conftest import REPO
from tests.examples import settings
from tests.integration.kafka_log import Log

MIB = 1 << 20
VALUE_BYTES = 1_000
BACKLOG_BYTES = 48 * MIB
SLOW_WORKER = """
import sys, time, msgspec
from streams.runtime.app import run_worker
from streams.runtime.config import RuntimeConfig
from streams.runtime.registry import codec
from streams.symbols import Symbols

class Slow(Symbols):
    def step(self, where, partition, keys, inputs):
        time.sleep(0.1)
        return [], set()

config = msgspec.json.decode(sys.argv[1], type=RuntimeConfig)
run_worker(config, Slow(), codec(config.registry, config.namespace))
"""
SENDER = """
import sys
from streams.runtime.kafka import KafkaPort

port = KafkaPort("127.0.0.1:1", "", buffer_kb=int(sys.argv[1]))
for number in range(int(sys.argv[2])):
    port.send("market.bars", 0, b"S", bytes(int(sys.argv[3])), 1, lambda error: None)
    print(number + 1, flush=True)
"""


@pytest.mark.parametrize(
    ("fetch_bytes", "is_bound_met"),
    [(MIB // 8, lambda grown: grown < 16 * MIB), (16 * MIB, lambda grown: grown > 40 * MIB)],
    ids=["bounded", "not bounded"],
)
def test_a_slow_worker_fetches_no_more_ahead_than_it_may(
    stack: Endpoints,
    namespace: str,
    codec: Codec,
    log: Log,
    tmp_path: Path,
    fetch_bytes: int,
    is_bound_met: Callable[[int], bool],
) -> None:
    """The worker stands still while the backlog grows: otherwise it would take what there is at first, and for a while.

    Unbounded, it holds all of the backlog.
    """
    topics.create(stack.kafka, namespace, settings(), codec)
    config = RuntimeConfig(
        bootstrap=stack.kafka,
        registry=stack.registry,
        namespace=namespace,
        max_run_records=50,
        fetch_partition_bytes=fetch_bytes,
        session_timeout_ms=30_000,
    )
    with (tmp_path / "worker.log").open("wb") as said:
        worker = subprocess.Popen(
            [sys.executable, "-c", SLOW_WORKER, msgspec.json.encode(config)],
            cwd=REPO,
            env={**os.environ, "PYTHONPATH": str(REPO)},
            stdout=said,
            stderr=said,
        )
    try:
        wait_for(log, 1)  # the settings
        before = peak_bytes(worker.pid)
        worker.send_signal(signal.SIGSTOP)
        fill(stack, namespace)
        worker.send_signal(signal.SIGCONT)
        wait_for(log, 200)
        grown = peak_bytes(worker.pid) - before
        assert (
            log.committed("symbols", 0).position < BACKLOG_BYTES // VALUE_BYTES // SYMBOL_PARTITIONS // 2
        ), "most of the backlog is still there"
        assert is_bound_met(grown), f"{grown / MIB:.1f} MiB more than before the backlog"
    finally:
        worker.kill()
        worker.wait()


def wait_for(log: Log, position: int) -> None:
    deadline = time.monotonic() + 90
    while (
        min(log.committed("symbols", partition).position for partition in range(SYMBOL_PARTITIONS)) < position
    ):
        assert time.monotonic() < deadline, f"not committed up to {position}"
        time.sleep(0.2)


def fill(stack: Endpoints, namespace: str) -> None:
    """A backlog that does not compress."""
    producer = ck.Producer(output_settings(stack.kafka, linger_ms=5))
    rng = random.Random(1)
    for number in range(BACKLOG_BYTES // VALUE_BYTES):
        value, partition = rng.randbytes(VALUE_BYTES), number % SYMBOL_PARTITIONS
        producer.produce(physical(namespace, "market.ticks"), value, b"S", partition=partition)
        producer.poll(0)
    assert producer.flush(60) == 0


def peak_bytes(pid: int) -> int:
    """The largest resident set that the process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_outputs_that_kafka_does_not_take_wait_within_the_buffer(tmp_path: Path) -> None:
    buffer_kb, value_bytes = 4_096, 1_000
    said = tmp_path / "sent"
    with said.open("wb") as out:
        sender = subprocess.Popen(
            [sys.executable, "-c", SENDER, str(buffer_kb), "20000", str(value_bytes)],
            cwd=REPO,
            env={**os.environ, "PYTHONPATH": str(REPO)},
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
    try:
        sent = settled(said)
        assert sender.poll() is None, "it waits for room"
    finally:
        sender.kill()
        sender.wait()
    assert 0.5 * buffer_kb * 1024 < sent * value_bytes <= buffer_kb * 1024


def settled(path: Path) -> int:
    """The last number in a file that has not grown for a second."""
    deadline = time.monotonic() + 60
    before = b""
    while time.monotonic() < deadline:
        time.sleep(1.0)
        lines = path.read_bytes()
        if lines and lines == before:
            return int(lines.split()[-1])
        before = lines
    pytest.fail("it goes on and on")
