"""One short run of chaos; `make chaos` is the long one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import stack
from headrace.stack import Endpoints, StackSettings
from tests.chaos.faults import FAULTS
from tests.chaos.run import chaos

SEED = 20131007
TICKS = 60_000
STRIKES = ("all processes", "broker", "connector", "zombie", "database", "sink", "one process")


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
