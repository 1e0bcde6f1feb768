"""What tests share: a stack that runs, a namespace of one's own, real trades."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import stack as local_stack
from headrace import topics
from headrace.stack import Endpoints, StackSettings

REPO = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def stack() -> Iterator[Endpoints]:
    """The services: those in HEADRACE_TEST_ENDPOINTS (a file), or a local stack for the session."""
    known = os.environ.get("HEADRACE_TEST_ENDPOINTS")
    if known:
        yield Endpoints.model_validate_json(Path(known).read_bytes())
        return
    with tempfile.TemporaryDirectory(prefix="headrace-tests-") as folder:
        settings = StackSettings(data_dir=Path(folder))
        yield local_stack.up(settings)
        local_stack.down(settings)


@pytest.fixture
def namespace(stack: Endpoints) -> Iterator[str]:
    """A name that no other run has; its topics, where the test made any, are removed afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}"
    yield name
    topics.delete(stack.kafka, name)


@pytest.fixture(scope="session")
def trades() -> Path:
    """Real trades (gzipped CSV); the test is skipped where there are none."""
    named = os.environ.get("HEADRACE_TRADES")
    if named:
        return Path(named)
    found = sorted((REPO.parent / "shared" / "data").glob("*trades*.csv.gz"))
    if not found:
        pytest.skip("no real trades: set HEADRACE_TRADES to a file of them (see ../shared/data/README.md)")
    return found[0]


def pytest_configure() -> None:
    """Where a shell runs the tests behind its back it has them ignore Ctrl-C, and so would all they start and stop."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What has been imported stays: the collector would walk all of it again and again, a tenth of the time of all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """The names of the failed tests last of all: a log's end is all that is left of some runs."""
    result = yield
    for kind in ("failed", "error"):
        for report in terminalreporter.stats.get(kind, ()):
            terminalreporter.write_line(f"{kind}: {report.nodeid}")
    return result
