"""The first real trades as bars of every kind; all of them: tests/acceptance/test_every_kind.py."""

from __future__ import annotations

from pathlib import Path

from headrace.stack import Endpoints
from tests import every_kind


def test_the_database_holds_what_the_twins_give(
    stack: Endpoints, namespace: str, trades: Path, tmp_path: Path
) -> None:
    every_kind.check(stack, namespace, trades, tmp_path, limit=100_000)
