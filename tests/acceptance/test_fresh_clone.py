"""What a newcomer sees: a clone in an empty folder, no cache of any tool, and `make demo`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO

FIRST_FILL_WITHIN_S = 300.0
NETWORK = (".config/pip", ".pip", ".m2/settings.xml", ".netrc")
"""What a user's network asks for stays; caches go."""
OURS = re.compile(r"(HEADRACE|PYTEST|VIRTUAL_ENV|PYTHON(PATH|HOME)|XDG)_?")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """That of a new user of this machine."""
    home = tmp_path_factory.mktemp("home")
    for name in NETWORK:
        source = Path.home() / name
        if source.is_dir():
            shutil.copytree(source, home / name)
        elif source.is_file():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, home / name)
    kept = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}


def test_make_demo_on_a_fresh_clone(
    tmp_path: Path, environment: dict[str, str], figures: dict[str, Any]
) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(REPO), str(clone)], check=True)
    python = Path(sys.base_prefix) / "bin" / "python3"
    command = ["make", "--no-print-directory", "demo", f"PYTHON={python}", "ARGS=--short --json"]
    busy, began_s = round(os.getloadavg()[0], 2), time.monotonic()
    installed_s: float | None = None
    with subprocess.Popen(
        command, cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=(tmp_path / "log").open("wb")
    ) as demo:
        try:
            while demo.poll() is None:
                if installed_s is None and (clone / ".venv" / ".installed").exists():
                    installed_s = time.monotonic() - began_s
                time.sleep(0.2)
        finally:
            if demo.poll() is None:
                demo.terminate()
        assert demo.stdout is not None
        output = demo.stdout.read()
    took_s = time.monotonic() - began_s
    log = (tmp_path / "log").read_text(errors="replace")
    assert demo.returncode == 0, log[-4_000:]
    assert installed_s is not None
    summary = json.loads(output[output.index(b"{") :])
    first_fill_s = installed_s + summary["first_fill_s"]
    figures["fresh clone, load average before and after"] = [busy, round(os.getloadavg()[0], 2)]
    figures["fresh clone, make demo, seconds"] = round(took_s, 1)
    figures["fresh clone, of these installing"] = round(installed_s, 1)
    figures["fresh clone, first fill after seconds"] = round(first_fill_s, 1)
    assert first_fill_s < FIRST_FILL_WITHIN_S
    assert sum(sum(book["fills"].values()) for book in summary["results"]["books"]) > 0
    assert not summary["conflicts"]
    assert not left_running(environment["HOME"]), "the demo left processes behind"


def left_running(home: str) -> list[str]:
    """Command lines of processes of that user's stack."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environ = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended, or is not ours
            continue
        if f"HOME={home}".encode() in environ and command:
            found.append(command)
    return found
