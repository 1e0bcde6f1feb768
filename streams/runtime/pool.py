"""Processes for what takes long and hangs on nothing: the margins of a fit."""

from __future__ import annotations

import ctypes
import functools
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

FEWEST = 64
"""Items that are worth processes of their own: those take some seconds to start, a margin some hundredths."""
_PR_SET_PDEATHSIG = 1

log = logging.getLogger("headrace.fitter")


def mapped(function: Callable[[A], B], items: Iterable[A]) -> Iterable[B]:
    """As ``map`` does, in as many processes as the machine has cores; they stay for the next time."""
    whole = list(items)
    return map(function, whole) if len(whole) < FEWEST else _pool().map(function, whole, chunksize=8)


def told(line: str) -> None:
    """To the log."""
    log.info("%s", line)


@functools.cache
def _pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=_end_with_the_worker)


def _end_with_the_worker() -> None:
    """However the worker ends: one that is killed cannot tell its pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
