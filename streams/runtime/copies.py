"""The local copies of a worker: of the partitions that it owns, and of those whose changelogs it follows.

A copy only saves the time of reading the changelog from its beginning. Nothing may ever depend on one: whatever goes
wrong with it is told once and leaves the worker as it would be without. So all that touches the disk is done by one
thread, which nobody waits for, but a take-over for a few seconds (`Lease.held`).

Whoever writes a copy holds its lease: the owner of the partition, or the follower of its changelog (`standby`). The
owner takes it from the follower, never the other way. Changes gather in memory, and are written about once a second.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from streams.errors import CopyUnfit
from streams.runtime.recovery import Batch, Changes, Held
from streams.runtime.rocks import RocksCopy, remove

log = logging.getLogger("headrace.copies")

WRITE_EVERY_S = 1.0
HELD_WITHIN_S = 5.0
"""A disk that has not answered by then is worse than the changelog."""
_CLOSE_WITHIN_S = 5.0
_SLOTS = 64


class Lease:
    """The right to write one partition's copy; void once another was given. Any thread may call its methods."""

    def __init__(self, copies: Copies, partition: int, *, is_owner: bool) -> None:
        self._copies = copies
        self.partition = partition
        self.is_owner = is_owner
        self.is_void = False
        self.changes: Changes | None = None
        """What is to be written; `Copies` guards it."""

    def held(self) -> Held | None:
        """What the copy holds; None where there is none that can be read. Blocks, for `HELD_WITHIN_S` at most."""
        return self._copies.load(self)

    def keep(self, changes: Changes) -> None:
        """Write ``changes``, and all that comes behind them. They are the lease's from now on."""
        with self._copies.lock:
            if not self.is_void:
                self.changes = changes

    def commit(self, items: Mapping[bytes, bytes], offset: int | None) -> None:
        """Take in a transaction of the owner's that is committed, with the offset of its position record."""
        with self._copies.lock:
            if not self.is_void and self.changes is not None:
                self.changes.commit(items, offset)

    def add(self, offset: int, key: bytes, value: bytes | None) -> None:
        """Take in the next committed record of the changelog. Raises `CopyUnfit` as `Changes.add` does."""
        with self._copies.lock:
            if not self.is_void and self.changes is not None:
                self.changes.add(offset, key, value)

    def end(self) -> None:
        """Give it back: a follower may have it. What was taken in is still written."""
        self.is_owner = False


class Copies:
    """The copies of one agent's changelog below ``folder``, and the thread that writes them."""

    def __init__(self, folder: Path, changelog_id: str) -> None:
        self.lock = threading.Lock()
        """Held for moments, and never while anything is read or written."""
        self._folder, self._changelog_id = folder, changelog_id
        self._leases: dict[int, Lease] = {}
        self._left: list[tuple[int, Batch]] = []
        """What void leases had still to write."""
        self._asked: list[tuple[Lease, Future[Held | None]]] = []
        self._open: dict[int, RocksCopy] = {}
        self._wake = threading.Event()
        self._is_off = self._is_closing = False
        self._thread = threading.Thread(target=self._write, name="copies", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def lease(self, partition: int, *, is_owner: bool) -> Lease | None:
        """The right to write the copy of a partition, taken from whoever has it; None where an owner keeps it.

        None, too, where there are no copies any more.
        """
        with self.lock:
            if self._is_off:
                return None
            before = self._leases.get(partition)
            if before is not None:
                if before.is_owner and not is_owner:
                    return None
                batch = None if before.changes is None else before.changes.take()
                if batch is not None:
                    self._left.append((partition, batch))
                before.is_void, before.changes = True, None
            given = self._leases[partition] = Lease(self, partition, is_owner=is_owner)
            return given

    def load(self, lease: Lease) -> Held | None:
        """See `Lease.held`."""
        asked: Future[Held | None] = Future()
        with self.lock:
            if self._is_off:
                return None
            self._asked.append((lease, asked))
        self._wake.set()
        try:
            return asked.result(HELD_WITHIN_S)
        except NotInTime:
            self._switch_off(f"{self._folder} does not answer")
            return None

    def close(self) -> None:
        """Write what is to be written, and close all; waits for it a little."""
        atexit.unregister(self.close)
        self._is_closing = True
        self._wake.set()
        self._thread.join(_CLOSE_WITHIN_S)

    # ---- the thread

    def _write(self) -> None:
        next_s = time.monotonic() + WRITE_EVERY_S
        while not self._is_off:
            self._wake.wait(max(next_s - time.monotonic(), 0.0))
            self._wake.clear()
            is_last = self._is_closing
            try:
                self._answer()
                if is_last or time.monotonic() >= next_s:
                    self._write_all()
                    next_s = time.monotonic() + WRITE_EVERY_S
                if is_last:
                    for copy in self._open.values():
                        copy.close()
                    return
            except Exception as error:
                self._switch_off(f"{type(error).__name__}: {error}")
        self._leave()

    def _answer(self) -> None:
        while True:
            with self.lock:
                if not self._asked:
                    return
                lease, asked = self._asked.pop(0)
                left, self._left = self._left, []
            try:
                for partition, batch in left:
                    self._put(partition, batch)
                asked.set_result(self._load(lease.partition))
            except BaseException:
                asked.set_result(None)
                raise

    def _write_all(self) -> None:
        with self.lock:
            batches, self._left = self._left, []
            for partition, lease in self._leases.items():
                batch = None if lease.changes is None else lease.changes.take()
                if batch is not None:
                    batches.append((partition, batch))
        for partition, batch in batches:
            self._put(partition, batch)

    def _load(self, partition: int) -> Held | None:
        try:
            return self._opened(partition).load()
        except Exception as error:  # RocksDB raises nothing more special
            reason = str(error) if isinstance(error, CopyUnfit) else f"it cannot be read: {error}"
        # Not above: the error's frames would keep an iterator, and with it the database, open.
        log.warning("the local copy of partition %s is thrown away: %s", partition, reason)
        self._renewed(partition)
        return None

    def _put(self, partition: int, batch: Batch) -> None:
        copy = self._renewed(partition) if batch.begins_anew else self._opened(partition)
        copy.write(batch)

    def _opened(self, partition: int) -> RocksCopy:
        if partition not in self._open:
            self._open[partition] = RocksCopy(self._place(partition), self._changelog_id)
        return self._open[partition]

    def _renewed(self, partition: int) -> RocksCopy:
        copy = self._open.pop(partition, None)
        if copy is not None:
            copy.close()
        remove(self._place(partition))
        return self._opened(partition)

    def _place(self, partition: int) -> Path:
        return self._folder / str(partition)

    # ---- without copies

    def _switch_off(self, reason: str) -> None:
        with self.lock:
            if self._is_off:
                return
            self._is_off = True
            for lease in self._leases.values():
                lease.is_void, lease.changes = True, None
        log.warning("no local copies from now on, recovery reads the changelogs: %s", reason)
        self._wake.set()

    def _leave(self) -> None:
        """Give back what the copies take; who still asks is told that there is none."""
        with self.lock:
            asked, self._asked = self._asked, []
        for _, future in asked:
            future.set_result(None)
        for partition, copy in self._open.items():
            with suppress(Exception):
                copy.close()
            remove(self._place(partition))


def open_copies(
    state_dir: Path, namespace: str, agent: str, instance: str | None, changelog_id: str
) -> Copies | None:
    """The copies of a worker in a folder that no other process has, for as long as this one lives.

    That is ``<state_dir>/<namespace>/<agent>/worker-<instance>``, with the first free number for a worker without name.
    None where there can be none, which is told.
    """
    try:
        return Copies(_claimed(state_dir / (namespace or "live") / agent, instance), changelog_id)
    except OSError as error:
        log.warning("no local copies, recovery reads the changelogs: %s", error)
        return None


def _claimed(parent: Path, instance: str | None) -> Path:
    for name in (instance,) if instance else map(str, range(1, _SLOTS)):
        folder = parent / f"worker-{quote(name, safe='')}"
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return folder  # the descriptor stays open, and with it the lock, until the process ends
    raise BlockingIOError(f"another process has {folder}")
