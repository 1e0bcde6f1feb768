"""Linear algebra has one thread, whatever is imported first and however many cores there are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SUM = """
import hashlib
import numpy
z = numpy.random.default_rng(1).standard_normal((1250, 300))
product = z.T @ z
print(hashlib.sha256(product.tobytes() + numpy.linalg.eigvalsh(product).tobytes()).hexdigest())
"""


def digest(program: str, **environment: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


@pytest.mark.parametrize("module", ["headrace", "headrace.cli", "streams.correlations.fitting"])
def test_a_sum_has_the_order_of_one_thread(module: str) -> None:
    alone = digest(SUM, OPENBLAS_NUM_THREADS="1")
    assert digest(f"import {module}\n{SUM}", OPENBLAS_NUM_THREADS="4") == alone
    # Or the test would not see a difference if there were one.
    assert digest(SUM, OPENBLAS_NUM_THREADS="4") != alone
