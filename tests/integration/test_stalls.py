"""A worker whose consumer dies without a word ends by itself, and says why; one that is idle does not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace import topics
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints
from schemas.codec import Codec
from streams.runtime.worker_state import EXIT_FAULT

LIMIT_S = 3.0
WORKER = """
import sys
from headrace.cli import main
sys.argv = ["headrace", "worker", "symbols"]
main()
"""
MUTE = """
import asyncio
from streams.runtime import transport

async def nothing(self, fetcher):
    await asyncio.sleep(3600)

transport.Consumer._drain_messages = nothing
"""
"""As Faust's consumers are known to be: members of the group, with partitions, and no record ever comes."""


@pytest.fixture
def environment(stack: Endpoints, namespace: str, codec: Codec) -> dict[str, str]:
    settings = PipelineSettings()
    topics.create(stack.kafka, namespace, settings.record(), codec)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_KAFKA__BOOTSTRAP": stack.kafka,
        "HEADRACE_REGISTRY__URL": stack.registry,
        "HEADRACE_DATABASE__URL": stack.database,
        "HEADRACE_PIPELINE": settings.model_dump_json(),
        "HEADRACE_WORKER__STALL_LIMIT_S": str(LIMIT_S),
    }


def test_a_mute_consumer_ends_the_process(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MUTE + WORKER],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == EXIT_FAULT, done.stderr
    assert "stands at 0 of 1 for 3 s; nothing was applied" in done.stderr
    assert 'File "' in done.stderr, "what the threads do"


def test_an_idle_worker_stays(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-c", WORKER], env=environment, stderr=output, cwd=tmp_path
        ) as worker,
    ):
        deadline = time.monotonic() + 60
        while "owns partitions" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(2 * LIMIT_S)
        assert worker.poll() is None, log.read_text()
        worker.terminate()
