"""Child processes that belong to the command that starts them: kept alive while it runs, gone when it is.

Each child has a session of its own, so that Ctrl-C reaches only the parent, and a log file. A child that ends
by itself is started again after a pause; one that keeps ending is given up. However the parent ends, even by
SIGKILL, its children end too where the system can promise that (Linux with util-linux).
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.stack.processes import last_lines
from streams.errors import HeadraceError

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_WINDOW_S = 60.0
_ENDS_IN_WINDOW = 5
_GRACE_S = 20.0
_KILL_WAIT_S = 5.0


class GaveUp(HeadraceError):
    """Raised where a child keeps ending; says how, with the last lines of its log."""


def headrace_argv(*arguments: str) -> list[str]:
    """The `headrace` command of this installation; -P: a folder ``streams`` where we stand is not ours."""
    return [sys.executable, "-P", "-m", "headrace", *arguments]


def worker_argv(agent: str, instance: str | None = None) -> list[str]:
    """A process of an agent."""
    return headrace_argv("worker", agent, *(("--instance", instance) if instance else ()))


def sink_argv(instance: str | None = None) -> list[str]:
    """A process of the TimescaleDB sink."""
    return headrace_argv("sink", *(("--instance", instance) if instance else ()))


class Fleet:
    """Starts, watches and stops children; a context manager that stops them all.

    Logs are ``<log_dir>/<name>.log``; ``env`` is added to the environment of every child. The methods may be
    called from any thread. Names that were never started raise `KeyError`.
    """

    def __init__(self, log_dir: Path, env: Mapping[str, str], *, gives_up: bool = True) -> None:
        """Where it ``gives_up``, a child that keeps ending is not started again."""
        self._log_dir = log_dir
        self._gives_up = gives_up
        self._env = dict(env)
        self._children: dict[str, _Child] = {}

    def start(self, name: str, argv: Sequence[str], *, restart: bool = True, finishes: bool = False) -> None:
        """Start a child. ``restart``: whenever it ends unasked; but for exit status 0 where it ``finishes``.

        Raises OSError where the program cannot be run, ValueError where a child of that name runs already.
        """
        if name in self._children and self._children[name].status is None:
            raise ValueError(f"{name} runs already")
        self._log_dir.mkdir(parents=True, exist_ok=True)
        most_ends = _ENDS_IN_WINDOW if self._gives_up else None
        child = _Child(name, [*_tied(), *argv], self.log(name), self._env, restart, finishes, most_ends)
        self._children.pop(name, None)  # the order of starts is the order of the dict
        self._children[name] = child
        child.start()

    def names(self) -> tuple[str, ...]:
        """All children, in the order of their starts."""
        return tuple(self._children)

    def log(self, name: str) -> Path:
        """The log file of a child."""
        return self._log_dir / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """The process id; None while the child does not run."""
        return self._children[name].pid

    def signal(self, name: str, number: int) -> None:
        """Send a signal; an end that follows is not held against the child, which starts again as ever."""
        self._children[name].signal(number)

    def restarts(self, name: str) -> int:
        """How often the child was started again."""
        return self._children[name].restarts

    def status(self, name: str) -> int | None:
        """The exit status (minus the number of a signal) of a child that has ended for good; else None."""
        return self._children[name].status

    def wait(self, name: str, timeout_s: float | None = None) -> int | None:
        """Wait until a child has ended for good; its exit status, or None after ``timeout_s``."""
        self._children[name].done.wait(timeout_s)
        return self.status(name)

    def check(self) -> None:
        """Raises `GaveUp` where a child was given up."""
        failures = [child.failure for child in self._children.values() if child.failure]
        if failures:
            raise GaveUp("\n".join(failures))

    def stop(self, *names: str) -> None:
        """SIGTERM to these children (all: none named), last started first; SIGKILL after 20 s."""
        chosen = [self._children[name] for name in names or self._children]
        for child in reversed(chosen):
            child.ask_to_end()
        deadline = time.monotonic() + _GRACE_S
        for child in reversed(chosen):
            if not child.done.wait(max(deadline - time.monotonic(), 0.0)):
                child.kill()
        for child in chosen:
            child.done.wait(_KILL_WAIT_S)

    def kill(self, name: str) -> None:
        """SIGKILL to a child and all that it has started; it is not started again."""
        self._children[name].kill()
        self._children[name].done.wait(_KILL_WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all; a second Ctrl-C meanwhile kills them at once."""
        try:
            self.stop()
        except KeyboardInterrupt:
            for child in self._children.values():
                child.kill()
            raise


class _Child:
    """One name: the process that bears it now, and the thread that keeps it.

    That thread starts the process and lives as long as it: Linux sends the signal of a parent's death when
    the *thread* that started a child ends.
    """

    def __init__(
        self,
        name: str,
        argv: list[str],
        log: Path,
        env: Mapping[str, str],
        restart: bool,
        finishes: bool,
        most_ends: int | None,
    ) -> None:
        self.name = name
        self.restarts = 0
        self.status: int | None = None
        self.failure: str | None = None
        self.done = threading.Event()
        self._argv = argv
        self._log = log
        self._env = {**os.environ, **env}
        self._restart = restart
        self._finishes = finishes
        self._most_ends = most_ends
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._signalled = False
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        self._error: OSError | None = None

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    def start(self) -> None:
        threading.Thread(target=self._keep, name=f"keeper-{self.name}", daemon=True).start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def signal(self, number: int) -> None:
        with self._lock:
            self._signalled = True
            if self._process is not None:
                self._process.send_signal(number)

    def ask_to_end(self) -> None:
        with self._lock:
            self._ending.set()
            if self._process is not None:
                self._process.terminate()
                self._process.send_signal(
                    signal.SIGCONT
                )  # one that a test has stopped would sleep through it

    def kill(self) -> None:
        with self._lock:
            self._ending.set()
            if self._process is not None and self._process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _keep(self) -> None:
        ends: list[float] = []
        try:
            while True:
                process = self._spawn()
                if process is None:
                    return
                status = process.wait()
                if self._ending.is_set() or not self._restart or (self._finishes and status == 0):
                    self.status = status
                    return
                now = time.monotonic()
                if not self._signalled:
                    ends = [*(end for end in ends if now - end < _WINDOW_S), now]
                self._signalled = False
                if self._most_ends is not None and len(ends) >= self._most_ends:
                    self.status, self.failure = status, self._explained(status)
                    return
                self._ending.wait(min(_FIRST_PAUSE_S * 2 ** max(len(ends) - 1, 0), _LONGEST_PAUSE_S))
        finally:
            self._ready.set()
            self.done.set()

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        """The process; None where the child was told to end meanwhile, or cannot be run."""
        with self._lock:
            if self._ending.is_set():
                self.status = self._process.returncode if self._process else -signal.SIGTERM
                return None
            try:
                with self._log.open("ab") as output:
                    process = subprocess.Popen(
                        self._argv,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=self._env,
                        start_new_session=True,
                    )
            except OSError as error:
                self._error, self.status = error, -1
                self.failure = f"{self.name} cannot be started: {error}"
                return None
            if self._process is not None:
                self.restarts += 1
            self._process = process
        self._ready.set()
        return process

    def _explained(self, status: int) -> str:
        how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
        lines = "".join(f"\n  {line}" for line in last_lines(self._log))
        return (
            f"{self.name} ended {self._most_ends} times within {_WINDOW_S:g} s, at last {how}; "
            f"it is not started again. Its log, {self._log}, ends:{lines or ' with nothing'}"
        )


@functools.cache
def _tied() -> tuple[str, ...]:
    """What stands before a command so that it is killed with its parent.

    A program that replaces itself by the command does it without code of ours between fork and exec, which a
    parent with threads must not have. Empty where there is none (not Linux, or a setpriv that cannot).
    """
    tool = shutil.which("setpriv")
    if sys.platform != "linux" or tool is None:
        return ()
    tied = (tool, "--pdeathsig", "KILL", "--")
    return tied if subprocess.run([*tied, "true"], capture_output=True, check=False).returncode == 0 else ()
