from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from headrace.stack import processes
from headrace.stack.errors import DiskFull, PortTaken, StackError, StartFailed
from headrace.stack.processes import Launch, find, free_port, is_free, start, stop

STUBBORN_FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open("ready", "w").close()
time.sleep(600)
"""


def launch(code: str, *, ready: Path | None = None, stop_signal: signal.Signals = signal.SIGTERM) -> Launch:
    def probe() -> None:
        if ready is not None and not ready.exists():
            raise ConnectionError("nobody answers")

    port = free_port()
    listening = f"import socket; here = socket.create_server(('127.0.0.1', {port}))\n"
    return Launch(
        service="kafka",
        argv=[sys.executable, "-c", listening + code],
        port=port,
        probe=probe,
        stop_signal=stop_signal,
    )


def run(code: str, data_dir: Path, timeout_s: float = 20.0, **options: Path) -> processes.Child:
    return start(launch(code, **options), data_dir, timeout_s, threading.Event())


def test_a_stop_leaves_no_process_of_a_family_that_ignores_the_signal(tmp_path: Path) -> None:
    child = run(STUBBORN_FAMILY, tmp_path, ready=tmp_path / "ready")
    process = child.process()
    assert process is not None
    family = [process, *process.children(recursive=True)]
    assert len(family) == 2
    assert find(tmp_path, "kafka") == child

    stop(child, tmp_path, grace_s=0.2)

    assert child.process() is None
    assert not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in family)
    assert find(tmp_path, "kafka") is None


def test_the_service_gets_its_own_stop_signal_and_the_time_to_obey(tmp_path: Path) -> None:
    code = (
        "import signal, time\n"
        "def bow(*_): time.sleep(0.3); open('bowed', 'w').close(); raise SystemExit\n"
        "signal.signal(signal.SIGINT, bow); open('ready', 'w').close(); time.sleep(600)"
    )
    child = start(
        launch(code, ready=tmp_path / "ready", stop_signal=signal.SIGINT), tmp_path, 20.0, threading.Event()
    )
    stop(child, tmp_path, grace_s=10.0)
    assert (tmp_path / "bowed").exists()


def test_a_recycled_process_id_is_neither_believed_nor_killed(tmp_path: Path) -> None:
    bystander = run("import time; time.sleep(600)", tmp_path)
    stale = bystander.model_copy(update={"started": bystander.started - 60.0})
    assert stale.process() is None
    assert stale.memory_mb() == 0.0
    stop(stale, tmp_path, grace_s=1.0)
    assert bystander.process() is not None
    stop(bystander, tmp_path, grace_s=5.0)
    assert bystander.process() is None


def test_a_service_that_ends_is_reported_with_its_status_and_last_lines(tmp_path: Path) -> None:
    with pytest.raises(StartFailed) as caught:
        run("import sys; print('first'); sys.exit('no such cluster')", tmp_path, ready=tmp_path / "never")
    message = str(caught.value)
    assert "exit status 1" in message
    assert "no such cluster" in message
    assert str(tmp_path / "logs" / "kafka.log") in message
    assert find(tmp_path, "kafka") is None


def test_a_service_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    code = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(StartFailed, match=r"not ready after 1 s \(nobody answers\)"):
        run(code, tmp_path, timeout_s=1.0, ready=tmp_path / "never")
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_whoever_else_answers_on_the_port_is_not_the_service(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        deaf = Launch(
            service="kafka",
            argv=[sys.executable, "-c", "import time; time.sleep(600)"],
            port=port,
            probe=lambda: socket.create_connection(("127.0.0.1", port)).close(),
        )
        with pytest.raises(StartFailed, match=f"another process answers on port {port}"):
            start(deaf, tmp_path, 1.0, threading.Event())


def test_last_lines_leave_out_what_says_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "starting\n\nFATAL bad id\n\tat kafka.Kafka$.main(Kafka.scala:75) [kafka.jar]\n\t... 12 more\nbye"
    )
    assert processes.last_lines(log) == ["starting", "FATAL bad id", "bye"]
    assert processes.last_lines(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("java.net.BindException: Address already in use", PortTaken),
        ("Port 8081 seems to be in use by another process. Quarkus may already be running", PortTaken),
        ('could not bind IPv4 address "127.0.0.1": Address already in use', PortTaken),
        ("java.io.IOException: No space left on device", DiskFull),
    ],
)
def test_the_log_tells_the_kind_of_failure(tmp_path: Path, words: str, error: type[StackError]) -> None:
    with pytest.raises(error):
        run(f"import sys; sys.exit({words!r})", tmp_path, ready=tmp_path / "never")


def test_a_start_can_be_interrupted(tmp_path: Path) -> None:
    cancelled = threading.Event()
    timer = threading.Timer(0.3, cancelled.set)
    timer.start()
    began_s = time.monotonic()
    with pytest.raises(StackError, match="interrupted"):
        start(launch("import time; time.sleep(600)", ready=tmp_path / "never"), tmp_path, 60.0, cancelled)
    assert time.monotonic() - began_s < 30.0
    assert find(tmp_path, "kafka") is None


def test_a_port_is_free_until_somebody_listens() -> None:
    port = free_port()
    assert is_free(port)
    with socket.socket() as listener:
        listener.bind((processes.HOST, port))
        listener.listen()
        assert not is_free(port)


def test_files_are_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "endpoints.json"
    processes.write_atomically(path, "{}")
    assert path.read_text() == "{}"
    assert path.stat().st_mode & 0o077 == 0
    assert list(path.parent.iterdir()) == [path]
