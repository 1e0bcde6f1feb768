"""Kernels: functions on arrays that numba compiles once per machine.

The compiled code is kept in ``~/.cache/headrace/kernels`` (or below ``XDG_CACHE_HOME``), in a folder named by the
content of every file that holds kernels: numba itself does not notice when a function that a kernel calls, in another
file, has changed. Where that folder cannot be written, they are compiled for the process alone, in about 15 s.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import numba
from numba import carray as carray
from numba.core import cgutils, types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("headrace.kernels")

_ROOT: Final = Path(__file__).resolve().parent.parent
_MARKS: Final = b"@kernel", b"@long_kernel"


def kernel(function: F) -> F:
    """Compile ``function`` at its first call, in IEEE arithmetic as Python's: no fast math, no fused operations.

    It keeps Python's lock: kernels are short, and who gives the lock up to a busy thread waits for it longer than most
    of them run. The plain function stays at hand as ``py_func``.
    """
    return _compiled(function, keeps_lock=True)


def long_kernel(function: F) -> F:
    """As `kernel`, but without Python's lock while it runs: of tens of milliseconds, to be called in threads."""
    return _compiled(function, keeps_lock=False)


def _compiled(function: F, *, keeps_lock: bool) -> F:
    numba.config.CACHE_DIR = _folder()
    compiled: F = numba.njit(cache=True, error_model="numpy", nogil=not keeps_lock)(function)
    return compiled


@intrinsic  # type: ignore[untyped-decorator]
def pointer(_: Any, address: Any) -> Any:
    """In a kernel: an address (int64) as a pointer, for ``carray(pointer(address), shape, dtype)``.

    For kernels that work on many arrays of different lengths in one call. Whoever passes addresses keeps the arrays
    alive, and C-contiguous, until the kernel returns.
    """

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@cache
def _folder() -> str:
    """Where this build's kernels are kept."""
    digest = hashlib.sha256()
    for package in ("schemas", "streams", "connectors"):
        for file in sorted((_ROOT / package).rglob("*.py")):
            text = file.read_bytes()
            if any(mark in text for mark in _MARKS):
                digest.update(text)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "headrace" / "kernels" / digest.hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return str(folder)
    except OSError:
        pass
    log.warning("%s cannot be written: kernels are compiled at each start; set XDG_CACHE_HOME", folder)
    return tempfile.mkdtemp(prefix="headrace-kernels-")
