"""Symmetric matrices as records carry them: the upper triangle by rows, in one flat sequence.

With the diagonal (covariances): n(n+1)/2 values. Without (correlations): n(n-1)/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def size(n: int) -> int:
    """How many values the triangle of an n by n matrix has, diagonal included."""
    return n * (n + 1) // 2


@lru_cache(maxsize=64)
def triangle(n: int) -> tuple[Indices, Indices]:
    """Row and column of each packed value, diagonal included; shared, so read-only."""
    i, j = np.triu_indices(n)
    i.flags.writeable = j.flags.writeable = False
    return i, j


def unpack(packed: Sequence[float] | Floats, n: int) -> Floats:
    """The full matrix, shape (n, n), of a triangle with the diagonal."""
    matrix = np.empty((n, n))
    i, j = triangle(n)
    matrix[i, j] = packed
    matrix[j, i] = packed
    return matrix


def pack(matrix: Floats) -> Floats:
    """The triangle with the diagonal, shape (n(n+1)/2,), of a full matrix."""
    return matrix[triangle(len(matrix))]
