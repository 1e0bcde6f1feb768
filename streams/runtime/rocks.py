"""A copy of one changelog partition in RocksDB.

Items and offset are written in one RocksDB batch, there or not at all, also after `kill -9`; where they are many, in
several, and the copy says so meanwhile. Nothing is synced: what a machine loses with its power is the end of the
write-ahead log, and an older copy is a copy as well.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec
from rocksdict import Options, Rdict, ReadOptions, WriteBatch

from schemas.states import POSITION_KEY
from streams.errors import CopyUnfit
from streams.runtime.framing import check_manifest
from streams.runtime.recovery import Anchor, Batch, Held

FORMAT = 1
"""Of the keys and of `_Head`; a copy of another one is thrown away."""
_HEAD, _ITEM = b"h", b"i"
_WRITE_BUFFER_BYTES = 1 << 20
_LOG_BYTES = 1 << 20
_OPEN_FILES = 64
_PART_BYTES = 128 << 10


class _Head(msgspec.Struct, frozen=True):
    """What a copy says of itself: of which changelog (the broker's id), through which offset, with how many keys.

    ``ahead``: see `Held`; the keys are not counted then.
    """

    format: int
    changelog_id: str
    offset: int
    keys: int
    ahead: Anchor | None = None


class RocksCopy:
    """One copy; belongs to one thread. What RocksDB or the disk has against a call comes as they raise it."""

    def __init__(self, folder: Path, changelog_id: str) -> None:
        """Open the copy in ``folder``, or begin one there.

        Raises `CopyUnfit` where RocksDB would not come back from it.
        """
        self._folder, self._changelog_id = folder, changelog_id
        self._keys: set[bytes] = set()
        self._offset: int | None = None
        self._ahead: Anchor | None = None
        folder.mkdir(parents=True, exist_ok=True)
        check_manifest(folder)
        self._db = Rdict(str(folder), _options())

    def load(self) -> Held | None:
        """All that it holds; None where it holds nothing.

        Raises `CopyUnfit` where it is of another changelog or format, or not whole.
        """
        raw = self._db.get(_HEAD)
        if raw is None:
            return None
        head = _decoded(raw)
        if head.format != FORMAT:
            raise CopyUnfit(f"it is of format {head.format}, and this build's is {FORMAT}")
        if head.changelog_id != self._changelog_id:
            raise CopyUnfit(
                f"it is of the changelog {head.changelog_id}, and this one is {self._changelog_id}"
            )
        items: dict[bytes, bytes] = {}
        rows = self._db.iter(ReadOptions())
        rows.seek(_ITEM)
        while rows.valid():
            items[rows.key()[1:]] = rows.value()
            rows.next()
        rows.status()  # an iterator that meets a damaged block just ends
        if POSITION_KEY not in items or (head.ahead is None and len(items) != head.keys):
            raise CopyUnfit(f"it should have {head.keys} keys and has {len(items)}")
        self._keys, self._offset, self._ahead = set(items), head.offset, head.ahead
        return Held(items, head.offset, head.ahead)

    def write(self, batch: Batch) -> None:
        """Take in a batch behind what `load` gave, or instead of it.

        RocksDB holds the interpreter while it writes, some 5 ms for each MB, so a large batch goes in parts, and the
        copy says until the last one how far its items may be ahead of its offset.
        """
        if batch.begins_anew and self._keys:
            raise AssertionError("what begins anew is written into an empty copy")
        position = batch.items[POSITION_KEY]
        assert position is not None  # a batch ends with one
        anchor = Anchor(batch.offset, position)
        ahead = anchor if self._ahead is None else max(anchor, self._ahead)
        writes, size = WriteBatch(raw_mode=True), 0
        if self._offset is not None:
            writes.put(_HEAD, self._head(self._offset, ahead))
        for key, value in batch.items.items():
            if key == POSITION_KEY:
                continue
            if value is None:
                self._keys.discard(key)
                writes.delete(_ITEM + key)
            else:
                self._keys.add(key)
                writes.put(_ITEM + key, value)
            size += len(key) + len(value or b"")
            if size > _PART_BYTES:
                self._db.write(writes)
                time.sleep(0)  # the worker's other threads wait for no more than this
                writes, size = WriteBatch(raw_mode=True), 0
        self._keys.add(POSITION_KEY)
        self._offset, self._ahead = batch.offset, None if ahead == anchor else ahead
        writes.put(_ITEM + POSITION_KEY, position)
        writes.put(_HEAD, self._head(batch.offset, self._ahead))
        self._db.write(writes)

    def _head(self, offset: int, ahead: Anchor | None) -> bytes:
        keys = len(self._keys) if ahead is None else 0
        return msgspec.msgpack.encode(_Head(FORMAT, self._changelog_id, offset, keys, ahead))

    def close(self) -> None:
        """Close it; what was written stays."""
        self._db.close()


def remove(folder: Path) -> None:
    """Throw the copy in ``folder`` away, whatever is left of it; nobody may have it open."""
    shutil.rmtree(folder, ignore_errors=True)


def _decoded(raw: bytes) -> _Head:
    try:
        return msgspec.msgpack.decode(raw, type=_Head)
    except msgspec.MsgspecError as error:
        raise CopyUnfit(f"its head cannot be read: {error}") from error


def _options() -> Options:
    """Small: a few MiB of memory for each copy, few files, and no more log than somebody would read."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_max_open_files(_OPEN_FILES)
    options.set_max_background_jobs(1)
    options.set_keep_log_file_num(1)
    options.set_max_log_file_size(_LOG_BYTES)
    options.set_stats_dump_period_sec(0)
    options.set_paranoid_checks(True)
    return options
