"""A backup of the local stack: its files, as they are while no service runs, and back again.

What was committed refers to the topics by offset and by the broker's own ids, schemas are named by the registry's, rows
by offsets again: copied together while nothing writes, all of it agrees, and goes on agreeing wherever it is put. The
stop is short. What has not changed for a while is copied before it (closed segments, most of a database), and what an
earlier backup in the same folder has already is linked, not copied.

A backup is a folder, ``<UTC time>``: the files below ``data``, and last of all ``manifest.json``. Without it, the
backup was never finished.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec

from headrace.stack import versions
from headrace.stack.errors import BackupFailed, NotRestored
from headrace.stack.local import is_running, suspended
from headrace.stack.processes import locked, write_atomically
from headrace.stack.settings import ExternalServices, StackSettings

KEPT = ("kafka/data", "postgres/data", "postgres/password", "ingest")
"""Below ``data_dir``: topics, tables with the schemas, and how far each connector has sent."""
MANIFEST, DATA, UNFINISHED = "manifest.json", "data", ".partial"
SETTLED_S = 10.0
"""A file that was written to more lately will be again: it is left for the stop."""
_CHUNK = 1 << 20
_LEFT_BY_DOWN = {"lock", "logs", "run"}

Tell = Callable[[str], None]


class Kept(msgspec.Struct, frozen=True):
    """One file of a backup."""

    size: int
    mtime_ns: int
    mode: int
    blake2b: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds, and what can read it. Paths are below ``data_dir``; ``folders`` have their modes."""

    headrace: str
    machine: str
    services: dict[str, str]
    folders: dict[str, int]
    files: dict[str, Kept]


class Made(NamedTuple):
    """A backup that was made: where, how large, what of it was not there before, and how long the services stood."""

    path: Path
    size_bytes: int
    new_bytes: int
    stopped_s: float


def services() -> dict[str, str]:
    """The versions that the files belong to."""
    return {
        "kafka": versions.KAFKA,
        "apicurio": versions.APICURIO,
        "postgres": versions.POSTGRES,
        "timescaledb": versions.TIMESCALEDB,
    }


def backup(
    settings: StackSettings, external: ExternalServices, into: Path, tell: Tell = lambda _: None
) -> Made:
    """Back the stack up into a new folder below ``into``; services that run stand for a moment and go on.

    Raises `BackupFailed`, and `StackError` where they could not be started again.
    """
    foreign = [name for name, address in external if address is not None]
    if foreign:
        raise BackupFailed(
            f"not all of it is the local stack's: the settings name another {', '.join(foreign)}. Back those services "
            "up by their own means, all at one moment while nothing writes to them (docs/maintenance.md)"
        )
    if not (settings.data_dir / KEPT[0]).is_dir():
        raise BackupFailed(f"there is nothing in {settings.data_dir}: was it ever up?")
    made = into / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    stopped_s = 0.0
    try:
        into.mkdir(parents=True, exist_ok=True)
        copy = _Copy(settings.data_dir, made.with_suffix(UNFINISHED), _last(into))
        try:
            if is_running(settings):
                copy.settled()
                tell(f"{_mb(copy.new_bytes)} copied while everything runs; now it stops for a moment")
            began_s = time.monotonic()
            with suspended(settings):
                copy.all()
                copy.finish(made)
            stopped_s = time.monotonic() - began_s
            os.sync()
        finally:
            shutil.rmtree(made.with_suffix(UNFINISHED), ignore_errors=True)
    except OSError as error:
        raise BackupFailed(f"{error}. The stack goes on as it was; nothing of this backup is kept") from error
    return Made(made, sum(file.size for file in copy.files.values()), copy.new_bytes, stopped_s)


def check(made: Path) -> Manifest:
    """Read every file of a backup; its manifest. Raises `NotRestored` where one is missing or not what it was."""
    manifest = _manifest(made)
    if manifest is None:
        raise NotRestored(f"{made} is no backup: it has no {MANIFEST}")
    for name, file in manifest.files.items():
        try:
            with (made / DATA / name).open("rb") as content:
                found = hashlib.file_digest(content, _digest).hexdigest()
        except OSError as error:
            raise NotRestored(f"{made} is not whole: {error}") from error
        if found != file.blake2b:
            raise NotRestored(f"{made / DATA / name} is not what was backed up: take another backup")
    return manifest


def restore(settings: StackSettings, made: Path) -> Manifest:
    """Put a backup into ``data_dir``, where there must be nothing; `headrace.stack.up` goes on from it.

    Raises `NotRestored` where that cannot be done; nothing was changed then.
    """
    manifest = check(made)
    if (manifest.machine, manifest.services) != (platform.machine(), services()):
        raise NotRestored(
            f"it was made on {manifest.machine} by Headrace {manifest.headrace} with {_told(manifest.services)}; this "
            f"is {platform.machine()} with {_told(services())}. Restore it with that version of Headrace, then upgrade"
        )
    target = settings.data_dir
    target.mkdir(parents=True, exist_ok=True)
    with locked(target / "lock"):
        there = sorted(path.name for path in target.iterdir() if path.name not in _LEFT_BY_DOWN)
        if there or is_running(settings):
            raise NotRestored(
                f"{target} holds a stack already ({', '.join(there)}): stop it with `headrace down` and move the "
                "folder away, or set stack.data_dir to another"
            )
        work = target / "restoring"
        try:
            for name, mode in manifest.folders.items():
                (work / name).mkdir(parents=True, exist_ok=True)
                _like(made / DATA / name, work / name, mode)
            for name, file in manifest.files.items():
                shutil.copyfile(made / DATA / name, work / name)
                _like(made / DATA / name, work / name, file.mode, file.mtime_ns)
            for path in sorted(work.iterdir()):
                path.rename(target / path.name)
            work.rmdir()
        except OSError as error:
            shutil.rmtree(work, ignore_errors=True)
            raise NotRestored(f"{error}: {target} is as it was") from error
    return manifest


class _Copy:
    """One backup on its way: pass by pass, a file is copied again where it has changed since."""

    def __init__(self, source: Path, work: Path, last: Path | None) -> None:
        self._source, self._work, self._last = source, work, last
        manifest = None if last is None else _manifest(last)
        self._held = {} if manifest is None else manifest.files
        self.files: dict[str, Kept] = {}
        self._new: set[str] = set()
        work.mkdir(mode=0o700)
        (work / DATA).mkdir()

    @property
    def new_bytes(self) -> int:
        """What no earlier backup had."""
        return sum(self.files[name].size for name in self._new)

    def settled(self) -> None:
        """What nobody writes to at the moment."""
        before = time.time() - SETTLED_S
        for name, found in _walk(self._source):
            # A file with holes is an index that is being filled: it is cut to its size when the broker stops.
            has_holes = found.st_blocks * 512 < found.st_size
            if stat.S_ISREG(found.st_mode) and found.st_mtime < before and not has_holes:
                with suppress(FileNotFoundError):  # removed while we were looking
                    self._take(name, found)

    def all(self) -> None:
        """Everything that has changed since, and nothing that has gone since. Nobody writes meanwhile."""
        there = {name: found for name, found in _walk(self._source) if stat.S_ISREG(found.st_mode)}
        for name in self.files.keys() - there.keys():
            (self._work / DATA / name).unlink()
            self._new.discard(name)
            del self.files[name]
        for name, found in there.items():
            held = self.files.get(name)
            if held is None or not _same(held, found):
                self._take(name, found)

    def finish(self, made: Path) -> None:
        """Make it a backup."""
        folders = {name: found.st_mode for name, found in _walk(self._source) if stat.S_ISDIR(found.st_mode)}
        for name, mode in folders.items():
            (self._work / DATA / name).mkdir(parents=True, exist_ok=True)
            _like(self._source / name, self._work / DATA / name, mode)
        manifest = Manifest(
            headrace=version("headrace"),
            machine=platform.machine(),
            services=services(),
            folders={name: stat.S_IMODE(mode) for name, mode in folders.items()},
            files=self.files,
        )
        write_atomically(self._work / MANIFEST, msgspec.json.encode(manifest).decode())
        self._work.rename(made)

    def _take(self, name: str, found: os.stat_result) -> None:
        target = self._work / DATA / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        held = self._held.get(name)
        if held is not None and _same(held, found) and self._linked(name, target):
            self.files[name] = held
            self._new.discard(name)
            return
        digest = _digest()
        with (self._source / name).open("rb") as content, target.open("wb") as copy:
            while chunk := content.read(_CHUNK):
                digest.update(chunk)
                copy.write(chunk)
        _like(self._source / name, target, found.st_mode, found.st_mtime_ns)
        self.files[name] = Kept(
            target.stat().st_size, found.st_mtime_ns, stat.S_IMODE(found.st_mode), digest.hexdigest()
        )
        self._new.add(name)

    def _linked(self, name: str, target: Path) -> bool:
        """Whether the last backup's file is this one's too. Not every file system has links."""
        assert self._last is not None
        try:
            target.hardlink_to(self._last / DATA / name)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOENT):
                raise
            return False
        return True


def _walk(source: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Files and folders that are kept, folders first; links are none that a stack makes."""
    for part in KEPT:
        top = source / part
        paths = [top] if top.exists() else []
        while paths:
            path = paths.pop()
            with suppress(FileNotFoundError):
                found = path.lstat()
                if stat.S_ISLNK(found.st_mode):
                    raise BackupFailed(f"{path} is a link: what it points to would be left out")
                yield path.relative_to(source).as_posix(), found
                if stat.S_ISDIR(found.st_mode):
                    paths += path.iterdir()


def _same(held: Kept, found: os.stat_result) -> bool:
    return (held.size, held.mtime_ns) == (found.st_size, found.st_mtime_ns)


def _like(original: Path, path: Path, mode: int, mtime_ns: int | None = None) -> None:
    """Give ``path`` mode and time; and, as root, the owner of the original: PostgreSQL wants to own its files."""
    if os.geteuid() == 0:
        owner = original.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
    path.chmod(stat.S_IMODE(mode))
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def _last(into: Path) -> Path | None:
    """The latest finished backup in a folder."""
    made = [path for path in into.iterdir() if not path.suffix and (path / MANIFEST).is_file()]
    return max(made, default=None)


def _manifest(made: Path) -> Manifest | None:
    try:
        return msgspec.json.decode((made / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise NotRestored(f"{made / MANIFEST} cannot be read: {error}") from error


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _told(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"
