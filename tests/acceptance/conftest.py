"""What the acceptance runs find out, gathered for the closing note: printed at the end, and kept as JSON if asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FIGURES = pytest.StashKey[dict[str, Any]]()
SUMMARY = "HEADRACE_ACCEPTANCE_SUMMARY"
"""Names a file for the figures as JSON."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = {}


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Put what was measured in here, under the name of what it is."""
    found = request.config.stash[FIGURES]
    found.setdefault("load average at the start", round(os.getloadavg()[0], 2))
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash[FIGURES]
    if not found:
        return
    terminalreporter.section("figures")
    for name, value in found.items():
        shown = value if isinstance(value, str) else json.dumps(value)
        terminalreporter.write_line(f"{name}: {shown}")
    if path := os.environ.get(SUMMARY):
        Path(path).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
