"""Both sessions of real trades as bars of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.stack import Endpoints
from tests import every_kind


def test_the_database_holds_what_the_twins_give(
    stack: Endpoints, namespace: str, trades: Path, tmp_path: Path, figures: dict[str, Any]
) -> None:
    figures["bars of every kind, equal"] = every_kind.check(stack, namespace, trades, tmp_path)
