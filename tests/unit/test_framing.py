"""A copy whose manifest is cut off or damaged is refused: RocksDB would never come back from opening it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.states import POSITION_KEY
from streams.errors import CopyUnfit
from streams.runtime.framing import check_manifest
from streams.runtime.recovery import Batch
from streams.runtime.rocks import RocksCopy

OPEN_ALL = """
import shutil, sys
from pathlib import Path
from streams.errors import CopyUnfit
from streams.runtime.rocks import RocksCopy

folder = Path(sys.argv[1])
name = (folder / "CURRENT").read_text().strip()
whole = (folder / name).read_bytes()
refused = 0
for cut in range(len(whole)):
    copy = folder.parent / f"cut-{cut}"
    shutil.copytree(folder, copy)
    (copy / name).write_bytes(whole[:cut])
    try:
        RocksCopy(copy, "log").close()
    except CopyUnfit:
        refused += 1
    except Exception:  # RocksDB says so itself
        pass
print(refused, len(whole))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy that was opened, written and closed twice."""
    for count in (1, 2):
        copy = RocksCopy(tmp_path / "copy", "log")
        copy.load()
        copy.write(Batch(count == 1, {b"A": b"%d" % count, POSITION_KEY: b"p%d" % count}, count))
        copy.close()
    return tmp_path / "copy"


def test_a_whole_copy_and_none_pass(folder: Path, tmp_path: Path) -> None:
    check_manifest(folder)
    check_manifest(tmp_path / "nothing")


def test_opening_ends_wherever_the_manifest_was_cut(folder: Path) -> None:
    """In a process of its own: one that hangs in RocksDB cannot be interrupted."""
    run = subprocess.run(
        [sys.executable, "-c", OPEN_ALL, str(folder)], capture_output=True, text=True, timeout=120, check=True
    )
    refused, length = map(int, run.stdout.split())
    # All that end within a record; the others are whole but for records that RocksDB misses, or does without.
    assert length > 100
    assert length - 20 <= refused < length


@pytest.mark.parametrize("byte", range(4, 7), ids=["length", "length", "type"])
def test_a_frame_that_cannot_be_is_refused(folder: Path, byte: int) -> None:
    manifest = folder / (folder / "CURRENT").read_text().strip()
    content = bytearray(manifest.read_bytes())
    content[byte] ^= 0x40
    manifest.write_bytes(content)
    with pytest.raises(CopyUnfit, match=r"MANIFEST-\d+ (is damaged at byte|ends within a record)"):
        check_manifest(folder)


def test_a_manifest_that_is_not_there_is_refused(folder: Path) -> None:
    (folder / "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises(CopyUnfit, match="MANIFEST-999999 is not there"):
        check_manifest(folder)
