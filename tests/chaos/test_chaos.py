"""One short run of chaos; `make chaos` is the long one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import stack
from headrace.stack import Endpoints, StackSettings
from headrace.stack.processes import find
from tests.chaos.faults import FAULTS
from tests.chaos.first_records import sent_while_partitions_are_made
from tests.chaos.run import chaos

SEED = 20131007
TICKS = 60_000
TRIALS = 30
"""With five requests on their way at once, records are lost in about one of ten."""
STRIKES = (
    "all processes",
    "broker",
    "full disk",
    "connector",
    "zombie",
    "database",
    "sink",
    "broker restart",
    "one process",
)


@pytest.fixture(scope="module")
def own_stack() -> Iterator[tuple[StackSettings, Endpoints]]:
    """A stack of its own: its services are killed, and other tests run meanwhile on theirs."""
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder:
        settings = StackSettings(data_dir=Path(folder))
        yield settings, stack.up(settings)
        stack.down(settings)


def test_after_every_kind_of_end_all_is_equal(
    own_stack: tuple[StackSettings, Endpoints], tmp_path: Path
) -> None:
    settings, found = own_stack
    done = chaos(settings, found, tmp_path, SEED, ticks=TICKS, faults=STRIKES)
    assert not done.wrong, f"seed {SEED}, {done.struck}:\n" + "\n".join(done.wrong[:5])
    assert len(done.struck) == len(STRIKES) >= 5
    assert set(STRIKES) < set(FAULTS)
    assert done.restarts >= 5


def test_nothing_is_lost_while_partitions_are_made(own_stack: tuple[StackSettings, Endpoints]) -> None:
    settings, found = own_stack
    broker = find(settings.data_dir, "kafka")
    assert broker is not None
    arrived = sent_while_partitions_are_made(found.kafka, broker.pid, TRIALS)
    assert not arrived.wrong
    assert arrived.refused > TRIALS // 3, "the broker had made the partitions before it was stopped"
