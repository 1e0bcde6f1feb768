"""A DCC(1,1) with GARCH(1,1) margins by pymgarch or multiarch: PEER METHOD PANEL; prints seconds, a, b as JSON."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np


def pymgarch(returns: Any, method: str) -> tuple[float, float]:
    import pymgarch

    found = pymgarch.DCC().fit(returns, compute_se=False, method=method)
    return float(found.psi[0]), float(found.psi[1])


def multiarch(returns: Any, method: str) -> tuple[float, float]:
    import multiarch

    found = multiarch.DCC(returns, estimator=method, pairs="adjacent").fit(se=None)
    return float(found.params["corr", "a"]), float(found.params["corr", "b"])


def main() -> None:
    name, method, panel = sys.argv[1:]
    returns = np.load(panel)
    fit: Callable[[Any, str], tuple[float, float]] = {"pymgarch": pymgarch, "multiarch": multiarch}[name]
    warnings.simplefilter("ignore")
    fit(returns[:300, :3], method)  # kernels are compiled, libraries imported
    began_s = time.perf_counter()
    a, b = fit(returns, method)
    print(json.dumps({"seconds": time.perf_counter() - began_s, "a": a, "b": b}))


if __name__ == "__main__":
    main()
