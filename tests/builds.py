"""Another build of Headrace, as the next version might be: the same results, one state with a field more."""

from __future__ import annotations

import shutil
from pathlib import Path

REPO = Path(__file__).parent.parent
PACKAGES = ("connectors", "headrace", "schemas", "sinks", "streams")
FIELD = "seen_by"
"""What the next version's `SymbolState` has more."""
MARK = "the next version"


def next_version(folder: Path) -> Path:
    """Write the next version's packages into ``folder``, for ``PYTHONPATH``; returns it."""
    for package in PACKAGES:
        shutil.copytree(REPO / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    _replace(
        folder / "schemas" / "avsc" / "headrace.SymbolState.avsc",
        '"doc": "by bar kind", "default": []}\n  ]',
        '"doc": "by bar kind", "default": []},\n'
        f'    {{"name": "{FIELD}", "type": "string", "default": "{MARK}"}}\n  ]',
    )
    _replace(
        folder / "schemas" / "states.py",
        "    regimes: list[RegimeState] = msgspec.field(default_factory=list)\n\n\nclass SymbolsPartition",
        "    regimes: list[RegimeState] = msgspec.field(default_factory=list)\n"
        f'    {FIELD}: str = "{MARK}"\n\n\nclass SymbolsPartition',
    )
    return folder


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} has changed: mend tests/builds.py"
    path.write_text(text.replace(old, new), encoding="utf-8")
