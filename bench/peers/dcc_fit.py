"""A DCC(1,1) with GARCH(1,1) margins by pymgarch or multiarch, as JSON.

PEER METHOD PANEL prints the seconds of a fit, a and b; PEER MODEL PANEL what is found for a DCC or an ADCC; ``pymgarch
step N`` the microseconds of one bar of N symbols.
"""

from __future__ import annotations

import json
import statistics
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


def found(name: str, model: str, returns: Any) -> list[float]:
    """a, b and, of an ADCC, g, by the full likelihood."""
    if name == "pymgarch":
        import pymgarch

        fitted = getattr(pymgarch, model)().fit(returns, compute_se=False, method="full")
        return [float(each) for each in fitted.psi]
    import multiarch

    params = multiarch.DCC(returns, model=model.lower()).fit(se=None).params
    return [float(params["corr", each]) for each in ("a", "b", "g")[: len(model) - 1]]


def step_us(n: int) -> float:
    """Q of the next bar and its R: what pymgarch has of a step, without the variances. multiarch has none."""
    from pymgarch.correlation import cov2cor, one_step_q

    target = 0.5 * np.eye(n) + 0.5
    q, z = target.copy(), np.random.default_rng(1).standard_normal(n)
    times = []
    for _ in range(5):
        count, began_s = 0, time.perf_counter()
        while time.perf_counter() - began_s < 0.1:
            q = one_step_q(q, z, 0.03, 0.95, 0.0, target, None)
            cov2cor(q)
            count += 1
        times.append((time.perf_counter() - began_s) / count * 1e6)
    return statistics.median(times)


def main() -> None:
    name, method, panel = sys.argv[1:]
    if method == "step":
        print(json.dumps({"us": step_us(int(panel))}))
        return
    returns = np.load(panel)
    if method in ("DCC", "ADCC"):
        warnings.simplefilter("ignore")
        print(json.dumps({"found": found(name, method, returns)}))
        return
    fit: Callable[[Any, str], tuple[float, float]] = {"pymgarch": pymgarch, "multiarch": multiarch}[name]
    warnings.simplefilter("ignore")
    fit(returns[:300, :3], method)  # kernels are compiled, libraries imported
    began_s = time.perf_counter()
    a, b = fit(returns, method)
    print(json.dumps({"seconds": time.perf_counter() - began_s, "a": a, "b": b}))


if __name__ == "__main__":
    main()
