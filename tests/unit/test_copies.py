"""Local copies: who may write one, and that nothing that happens to one happens to the worker."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.states import POSITION_KEY
from streams.runtime import copies as module
from streams.runtime.copies import Copies, open_copies
from streams.runtime.recovery import Changes, Held
from tests.conftest import REPO

ID = "the changelog"


def items(number: int, **more: bytes) -> dict[bytes, bytes]:
    return {**{key.encode(): value for key, value in more.items()}, POSITION_KEY: b"position %d" % number}


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[Copies]:
    opened = Copies(tmp_path, ID)
    yield opened
    opened.close()


def written(folder: Path, partition: int = 0, changelog_id: str = ID) -> Held | None:
    """What another process finds there."""
    opened = Copies(folder, changelog_id)
    lease = opened.lease(partition, is_owner=True)
    assert lease is not None
    try:
        return lease.held()
    finally:
        opened.close()


def fill(copies: Copies, partition: int = 0) -> None:
    lease = copies.lease(partition, is_owner=True)
    assert lease is not None
    assert lease.held() is None
    lease.keep(Changes(None))
    lease.commit(items(1, A=b"1", B=b"1"), 2)
    lease.commit(items(2, B=b"2"), 5)


def test_what_was_committed_is_there_for_the_next_process(copies: Copies, tmp_path: Path) -> None:
    fill(copies, 0)
    fill(copies, 3)
    copies.close()
    expected = Held(items(2, A=b"1", B=b"2"), 5)
    assert written(tmp_path, 0) == written(tmp_path, 3) == expected
    assert written(tmp_path, 1) is None


def test_it_is_written_without_being_asked(
    copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_EVERY_S", 0.01)
    fill(copies)
    wal = tmp_path / "0"
    for _ in range(500):
        if any(b"position 2" in file.read_bytes() for file in wal.glob("*.log")):
            return
        time.sleep(0.01)
    pytest.fail("not written within 5 s")


def test_the_owner_takes_over_what_the_follower_has_and_the_follower_is_void(copies: Copies) -> None:
    follower = copies.lease(0, is_owner=False)
    assert follower is not None
    assert follower.held() is None
    follower.keep(Changes(None))
    for at, (key, value) in enumerate(items(1, A=b"1").items()):
        follower.add(at, key, value)
    owner = copies.lease(0, is_owner=True)
    assert owner is not None
    assert follower.is_void
    held = owner.held()
    assert held == Held(items(1, A=b"1"), 1)
    owner.keep(Changes(held))
    follower.add(3, b"A", b"from nowhere")
    follower.add(4, POSITION_KEY, b"from nowhere")
    assert copies.lease(0, is_owner=False) is None, "what is owned is not followed"
    owner.commit(items(2, B=b"2"), 7)
    owner.end()
    again = copies.lease(0, is_owner=False)
    assert again is not None
    assert again.held() == Held(items(2, A=b"1", B=b"2"), 7)


def test_a_copy_of_another_changelog_is_thrown_away(
    copies: Copies, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(copies)
    copies.close()
    assert written(tmp_path, changelog_id="another") is None
    assert "partition 0 is thrown away: it is of the changelog the changelog" in caplog.text
    assert written(tmp_path) is None


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST*", "*.log", "*.sst"])
def test_a_damaged_copy_is_thrown_away_and_made_again(
    copies: Copies, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(copies)
    copies.close()
    (file,) = (tmp_path / "0").glob(name) if name != "*.log" else [max((tmp_path / "0").glob(name))]
    file.write_bytes(bytes(byte ^ 0x55 for byte in file.read_bytes()))
    opened = Copies(tmp_path, ID)
    lease = opened.lease(0, is_owner=True)
    assert lease is not None
    held = lease.held()
    if file.suffix != ".log":  # of a damaged end of the write-ahead log, what stands before is good
        assert held is None
        assert "partition 0 is thrown away" in caplog.text
    lease.keep(Changes(held))
    lease.commit(items(3, A=b"3", B=b"3"), 9)
    opened.close()
    assert written(tmp_path) == Held(items(3, A=b"3", B=b"3"), 9)


def test_each_process_has_a_folder_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "holds\n"
    nameless = open_copies(tmp_path, "ns", "symbols", None, ID)
    assert nameless is not None
    assert sorted(path.name for path in (tmp_path / "ns" / "symbols").iterdir()) == [
        "worker-1",
        "worker-2",
        "worker-it",
    ]
    assert open_copies(tmp_path, "ns", "symbols", "it", ID) is None
    assert "no local copies, recovery reads the changelogs: another process has" in caplog.text
    other.kill()
    other.communicate()
    again = open_copies(tmp_path, "ns", "symbols", "it", ID)
    assert again is not None
    for opened in (nameless, again):
        opened.close()


HOLDS = """
import sys, pathlib
from streams.runtime.copies import open_copies
kept = [open_copies(pathlib.Path(sys.argv[1]), "ns", "symbols", name, "id") for name in (None, "it")]
print("holds", flush=True)
sys.stdin.read()
"""


def test_a_folder_that_cannot_be_had_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file")
    assert open_copies(tmp_path / "state", "", "symbols", None, ID) is None
    assert "no local copies" in caplog.text


@pytest.mark.parametrize("how", ["a small disk", "files that may not grow"])
def test_a_full_disk_is_told_once_and_costs_nothing_but_the_copies(tmp_path: Path, how: str) -> None:
    """In a process of its own, as the kernel says it."""
    argv = [sys.executable, "-c", FULL, str(tmp_path), how]
    if how == "a small disk":
        own = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
        mounted = f"mount -t tmpfs -o size=600k none {tmp_path}"
        if subprocess.run([*own, mounted], capture_output=True, check=False).returncode:
            pytest.skip("no disk of one's own can be had here")
        argv = [*own, f'{mounted} && exec "$@"', "sh", *argv]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr
    assert done.stderr.count("no local copies from now on") == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1


FULL = """
import logging, pathlib, resource, sys, time
from schemas.states import POSITION_KEY
from streams.runtime import copies as module
from streams.runtime.recovery import Changes
logging.basicConfig(level=logging.WARNING)
module.WRITE_EVERY_S = 0.02
copies = module.Copies(pathlib.Path(sys.argv[1]), "id")
leases = [copies.lease(partition, is_owner=True) for partition in range(3)]
for lease in leases:
    lease.held()
    lease.keep(Changes(None))
if sys.argv[2] != "a small disk":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
deadline = time.monotonic() + 30
number = 0
while copies._thread.is_alive() and time.monotonic() < deadline:
    number += 1
    for lease in leases:
        lease.commit({b"A%d" % number: bytes(20_000), POSITION_KEY: b"%d" % number}, number)
    time.sleep(0.01)
assert not copies._thread.is_alive()
for lease in leases:
    lease.commit({POSITION_KEY: b"more"}, number + 1)
    assert lease.held() is None
assert copies.lease(0, is_owner=True) is None
assert not list(pathlib.Path(sys.argv[1]).iterdir()), "the disk gets back what they took"
print("goes on")
"""


def test_a_disk_that_does_not_answer_is_not_waited_for(
    copies: Copies, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "HELD_WITHIN_S", 0.0)
    lease = copies.lease(0, is_owner=True)
    assert lease is not None
    assert lease.held() is None
    assert "does not answer" in caplog.text
    assert copies.lease(0, is_owner=True) is None
