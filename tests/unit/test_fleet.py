"""Children of a command: started again, given up, stopped, and gone with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from headrace import fleet
from headrace.fleet import Fleet, GaveUp

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('up', flush=True)\n"
    "time.sleep(60)\n",
]


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setattr(fleet, "_FIRST_PAUSE_S", 0.02)
    with Fleet(tmp_path / "logs", {"FLEET_SAYS": "hello"}) as started:
        yield started


def test_a_child_has_its_session_its_log_and_the_environment(some: Fleet) -> None:
    some.start(
        "a",
        [sys.executable, "-c", "import os; print(os.environ['FLEET_SAYS'], os.getsid(0) == os.getpid())"],
        restart=False,
    )
    assert some.wait("a", 10) == 0
    assert some.log("a").read_text() == "hello True\n"
    assert some.restarts("a") == 0


def test_a_killed_child_comes_back_however_often(some: Fleet) -> None:
    some.start("a", SLEEP)
    for count in range(1, 9):  # more than would be forgiven if it ended by itself
        pid = some.pid("a")
        some.signal("a", signal.SIGKILL)
        until(lambda pid=pid: some.pid("a") not in (pid, None))
        assert some.restarts("a") == count
    some.check()


def test_a_child_that_keeps_ending_is_given_up(some: Fleet) -> None:
    some.start("a", [sys.executable, "-c", "print('no registry'); raise SystemExit(3)"])
    assert some.wait("a", 20) == 3
    assert some.restarts("a") == 4
    with pytest.raises(
        GaveUp, match=r"a ended 5 times within 60 s, at last with exit status 3(.|\n)*no registry"
    ):
        some.check()


def test_a_child_that_finishes_is_not_started_again(some: Fleet, tmp_path: Path) -> None:
    once = tmp_path / "once"
    some.start(
        "a",
        [
            sys.executable,
            "-c",
            f"import pathlib; p = pathlib.Path({str(once)!r}); e = p.exists(); p.touch(); exit(not e)",
        ],
        finishes=True,
    )
    assert some.wait("a", 10) == 0
    assert some.restarts("a") == 1


def test_stop_ends_all_last_started_first(some: Fleet, tmp_path: Path) -> None:
    trace = tmp_path / "ends"
    for name in ("a", "b", "c"):
        some.start(
            name,
            [
                sys.executable,
                "-c",
                "import signal, sys, time\n"
                f"def end(*_):\n    open({str(trace)!r}, 'a').write({name!r})\n    sys.exit(0)\n"
                "signal.signal(signal.SIGTERM, end)\nprint('up', flush=True)\ntime.sleep(60)",
            ],
        )
        until(lambda name=name: some.log(name).exists() and some.log(name).read_text() == "up\n")
    some.stop("c")
    some.stop()
    assert trace.read_text()[0] == "c"
    assert sorted(trace.read_text()) == ["a", "b", "c"]
    assert [some.status(name) for name in "abc"] == [0, 0, 0]


def test_stop_kills_who_does_not_listen(some: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_GRACE_S", 0.3)
    some.start("a", STUBBORN)
    until(lambda: some.log("a").read_text() == "up\n")
    pid = some.pid("a")
    some.stop()
    assert some.status("a") == -signal.SIGKILL
    assert not psutil.pid_exists(pid or 0)


def test_stop_reaches_a_child_that_waits_to_be_started_again(tmp_path: Path) -> None:
    with Fleet(tmp_path, {}) as some:
        some.start("a", [sys.executable, "-c", "raise SystemExit(1)"])
        until(lambda: some.pid("a") is None)
        began = time.monotonic()
    assert time.monotonic() - began < 0.4
    assert some.status("a") == 1


def test_a_program_that_is_not_there_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_tied", tuple)
    with Fleet(tmp_path, {}) as some, pytest.raises(FileNotFoundError):
        some.start("a", [str(tmp_path / "nothing")])


@pytest.mark.skipif(not fleet._tied(), reason="this system has no signal for a parent's death")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_its_parent(tmp_path: Path, number: int) -> None:
    script = (
        "import pathlib, sys, time\n"
        "from headrace.fleet import Fleet\n"
        f"with Fleet(pathlib.Path({str(tmp_path)!r}), {{}}) as some:\n"
        f"    some.start('a', {STUBBORN!r})\n"
        "    print(some.pid('a'), flush=True)\n"
        "    time.sleep(60)\n"
    )
    if number == signal.SIGINT:
        script = script.replace(
            "import pathlib", "import headrace.fleet as f; f._GRACE_S = 0.3; import pathlib"
        )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    child = psutil.Process(pid)
    until(lambda: (tmp_path / "a.log").read_text() == "up\n")
    os.kill(parent.pid, number)
    parent.wait(10)
    parent.stdout.close()
    until(lambda: not child.is_running())


def test_the_pipelines_own_commands_run_this_installation() -> None:
    assert fleet.worker_argv("symbols", "s-1")[-4:] == ["worker", "symbols", "--instance", "s-1"]
    assert fleet.sink_argv()[-1] == "sink"
    assert fleet.headrace_argv()[0] == sys.executable
