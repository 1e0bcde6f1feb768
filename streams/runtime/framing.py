"""Whether the file in which RocksDB says what files there are is whole, as far as its frames show.

RocksDB 9.8 never returns from opening a database whose manifest ends within a record (a full disk, a lost machine),
and Python stands still meanwhile. So this is looked at first.
"""

from __future__ import annotations

import struct
from pathlib import Path

from streams.errors import CopyUnfit

_BLOCK = 32_768
_HEADER = struct.Struct("<IHB")
"""Checksum, length, type. (https://github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format)"""
_RECYCLED = 4
"""Types above carry the number of their log behind the header, in four bytes."""
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def check_manifest(folder: Path) -> None:
    """Raises `CopyUnfit` where the manifest of the database in ``folder`` ends, or breaks, within a record.

    A folder without a database is none of its business, nor is a record whose content is damaged: RocksDB notices.
    """
    current = folder / "CURRENT"
    if not current.exists():
        return
    manifest = folder / current.read_bytes().decode("ascii", "replace").strip()
    if not manifest.is_file():
        raise CopyUnfit(f"{manifest.name[:80]} is not there")
    content = manifest.read_bytes()
    at, is_inside = 0, False
    while at < len(content):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER.size:
            at += left
            continue
        if len(content) - at < _HEADER.size:
            raise CopyUnfit(f"{manifest.name} ends within a record")
        _, length, kind = _HEADER.unpack_from(content, at)
        size = _HEADER.size + length
        if kind > _LAST:
            kind, size = kind - _RECYCLED, size + 4
        begins = kind in (_FULL, _FIRST)
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or begins == is_inside or size > left:
            raise CopyUnfit(f"{manifest.name} is damaged at byte {at}")
        at, is_inside = at + size, kind in (_FIRST, _MIDDLE)
    if at > len(content) or is_inside:
        raise CopyUnfit(f"{manifest.name} ends within a record")
