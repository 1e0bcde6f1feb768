"""Where compiled kernels are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
from schemas.compiled import kernel
from schemas import compiled

@kernel
def double(x):
    return 2 * x

assert double(21) == 42
print(compiled._folder())
"""


def folder(tmp_path: Path, cache: Path) -> tuple[Path, str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return Path(done.stdout.strip()), done.stderr


def test_kernels_are_kept_in_the_cache(tmp_path: Path) -> None:
    found, said = folder(tmp_path, tmp_path / "cache")
    assert found.is_relative_to(tmp_path / "cache" / "headrace" / "kernels")
    assert list(found.rglob("*.nbi"))
    assert said == ""


def test_where_they_cannot_be_kept_they_work_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    found, said = folder(tmp_path, tmp_path / "file")
    assert list(found.rglob("*.nbi"))
    assert "set XDG_CACHE_HOME" in said
