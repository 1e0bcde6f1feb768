"""Child processes that outlive the command that started them.

Each service has a run file `<data_dir>/run/<service>.json` and a log `<data_dir>/logs/<service>.log`. The
run file names the process by id and start time together, so an id that the system has given to another
process since is never mistaken for ours, and never killed.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from pydantic import BaseModel

from headrace.stack.errors import DiskFull, PortTaken, StackError, StartFailed
from headrace.stack.settings import ServiceName

HOST = "127.0.0.1"
_POLL_S = 0.05
_LAST_LINES = 12
_SAYS_NOTHING = re.compile(r"\s*($|at [\w.$/<>]+\(|\.\.\. \d+ more)")
_PORT_MESSAGES = (
    "address already in use",
    "port already bound",
    "bindexception",
    "seems to be in use by another process",  # Quarkus, of the registry
)


@dataclass(frozen=True)
class Launch:
    """How one service is started and asked for its health.

    `probe` raises, whatever the error, while the service does not answer; `stop_signal` asks for a fast,
    clean stop.
    """

    service: ServiceName
    argv: Sequence[str]
    port: int
    probe: Callable[[], None]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM


class Child(BaseModel):
    """A started service, as its run file holds it."""

    service: ServiceName
    pid: int
    started: float
    port: int
    stop_signal: int

    def process(self) -> psutil.Process | None:
        """The live process, or None when it has ended or its id belongs to another by now."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > 0.01 or process.status() == psutil.STATUS_ZOMBIE:
                return None
        except psutil.NoSuchProcess:
            return None
        return process

    def memory_mb(self) -> float:
        """Resident memory of the service and its children in MiB, shared pages counted once (PSS)."""
        total = 0
        process = self.process()
        for member in [] if process is None else [process, *process.children(recursive=True)]:
            try:
                total += member.memory_full_info().pss
            except psutil.Error:
                continue
        return total / 2**20


def log_file(data_dir: Path, service: ServiceName) -> Path:
    """The log of `service`."""
    return data_dir / "logs" / f"{service}.log"


def _run_file(data_dir: Path, service: ServiceName) -> Path:
    return data_dir / "run" / f"{service}.json"


def find(data_dir: Path, service: ServiceName) -> Child | None:
    """The service as last started from `data_dir`, alive or not; None after a clean stop."""
    try:
        return Child.model_validate_json(_run_file(data_dir, service).read_bytes())
    except FileNotFoundError:
        return None


def start(launch: Launch, data_dir: Path, timeout_s: float, cancelled: threading.Event) -> Child:
    """Start a service in a session of its own and wait until it answers, or `cancelled` is set.

    Raises:
        StartFailed: it ended, or did not answer within `timeout_s`; nothing of it is left running.
        PortTaken: another process took its port in the meantime.
        DiskFull: its log says that the disk is full.
        StackError: `cancelled` was set.
    """
    log = log_file(data_dir, launch.service)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        popen = subprocess.Popen(
            launch.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=data_dir,
            env={**os.environ, **launch.env},
            start_new_session=True,
        )
    child = Child(
        service=launch.service,
        pid=popen.pid,
        started=psutil.Process(popen.pid).create_time(),
        port=launch.port,
        stop_signal=launch.stop_signal,
    )
    write_atomically(_run_file(data_dir, launch.service), child.model_dump_json())
    try:
        _wait_until_ready(launch, popen, data_dir, timeout_s, cancelled)
    except BaseException:
        stop(child, data_dir, grace_s=5.0)
        popen.wait()
        raise
    return child


def _wait_until_ready(
    launch: Launch,
    popen: subprocess.Popen[bytes],
    data_dir: Path,
    timeout_s: float,
    cancelled: threading.Event,
) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        status = popen.poll()
        if status is not None:
            raise _diagnosis(launch.service, launch.port, data_dir, f"ended with exit status {status}")
        try:
            launch.probe()
            if _listens(popen.pid, launch.port):
                return
            raise ConnectionError(f"another process answers on port {launch.port}")
        except Exception as error:
            if time.monotonic() > deadline:
                reason = f"was not ready after {timeout_s:g} s ({error})"
                raise _diagnosis(launch.service, launch.port, data_dir, reason) from error
        if cancelled.wait(_POLL_S):
            raise StackError(f"the start of {launch.service} was interrupted")


def _listens(pid: int, port: int) -> bool:
    """Whether a process, or one of its own, listens on a port: another stack's service would answer there as well."""
    process = psutil.Process(pid)
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for member in (process, *process.children(recursive=True))
        for connection in member.net_connections("tcp")
    )


def run_step(service: ServiceName, argv: Sequence[str], data_dir: Path, failed: str) -> None:
    """Run a program that makes a service ready to start, to its end, with the service's log for its words.

    Raises:
        StartFailed: it failed; `failed` says what it could not do.
        DiskFull: it failed for want of room.
    """
    log = log_file(data_dir, service)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=data_dir
        )
    if done.returncode:
        raise _diagnosis(service, None, data_dir, failed)


def _diagnosis(service: ServiceName, port: int | None, data_dir: Path, reason: str) -> StackError:
    log = log_file(data_dir, service)
    lines = last_lines(log)
    text = "\n".join(lines).lower()
    if "no space left on device" in text:
        return DiskFull(data_dir)
    if port is not None and any(message in text for message in _PORT_MESSAGES):
        return PortTaken(service, port)
    return StartFailed(service, reason, log, lines)


def stop(child: Child, data_dir: Path, grace_s: float) -> None:
    """Stop a service: its own stop signal, up to `grace_s` of waiting, then SIGKILL for all that is left."""
    process = child.process()
    if process is not None:
        members = process.children(recursive=True)
        _signal(process, child.stop_signal)
        _, left = psutil.wait_procs([process], timeout=grace_s)
        # Whoever was started meanwhile belongs to a process that is still there.
        for survivor in left:
            members += survivor.children(recursive=True)
        for member in [*left, *members]:
            _signal(member, signal.SIGKILL)
        psutil.wait_procs([*left, *members], timeout=5.0)
    _run_file(data_dir, child.service).unlink(missing_ok=True)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def last_lines(log: Path) -> list[str]:
    """The last lines of a log file that say something: neither empty ones nor frames of a Java trace."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if not _SAYS_NOTHING.match(line)][-_LAST_LINES:]


def is_free(port: int) -> bool:
    """Whether nothing listens on `port` of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def write_atomically(path: Path, text: str) -> None:
    """Write a private file so that a reader sees the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; the system lets go of it however the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
