"""DCC-GARCH: what is found again of a known truth, and how long fits and steps take, beside pymgarch and multiarch.

Panels are simulated, 1,250 bars each. A whole fit is margins and correlations, without standard errors for the peers
(ours are always there). A step is one bar through `streams.correlations.dcc.advance`: variances, Q and covariance.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.rig import BenchError, load, machine, put, save
from schemas.records import CorrelationModel
from streams.correlations import packed
from streams.correlations.dcc import DccParameters, Margins, advance
from streams.correlations.fitting import Method, Spec, estimate, fit

Floats = NDArray[np.float64]

DOCS = Path(__file__).parent.parent / "docs" / "correlations.md"
PEERS = ("pymgarch", "multiarch")
PEERS_HAVE = CorrelationModel.DCC, CorrelationModel.ADCC
"""The models that both peers have."""
STEPS = "pymgarch"
"""The peer that can move on by one bar."""
FITTED, STEPPED = (10, 50, 100), (10, 50, 100, 500)
OBSERVATIONS = 1250
MOST_FULL = 50
"""Symbols; the full likelihood of more takes the peers many minutes."""
TRUTHS = (
    (CorrelationModel.DCC, 0.04, 0.92, 0.0),
    (CorrelationModel.ADCC, 0.02, 0.92, 0.03),
    (CorrelationModel.CDCC, 0.05, 0.92, 0.0),
    (CorrelationModel.DECO, 0.05, 0.92, 0.0),
)
_TIMEOUT_S = 1200.0
_STEP_S = 0.5


def simulated(
    seed: int, observations: int, n: int, a: float, b: float, g: float = 0.0, model: str = "DCC"
) -> tuple[Floats, Floats]:
    """Residuals of a known truth, shape (T, n), and the target behind them; a burn-in of 200 bars is left out.

    For the ADCC, N is the downside's expectation of normal residuals with correlations S.
    """
    rng = np.random.default_rng(seed)
    loadings = rng.uniform(0.3, 0.9, n)
    target = np.outer(loadings, loadings)
    np.fill_diagonal(target, 1.0)
    downside = np.zeros((n, n))
    if g:
        fall = np.minimum(rng.multivariate_normal(np.zeros(n), target, 400_000), 0.0)
        downside = fall.T @ fall / len(fall)
    q, rows = target.copy(), []
    for _ in range(observations + 200):
        diagonal = np.sqrt(np.diag(q))
        r = q / np.outer(diagonal, diagonal)
        if model == "DECO":
            mean = (r.sum() - n) / (n * (n - 1))
            r = (1.0 - mean) * np.eye(n) + mean
        row = np.linalg.cholesky(r) @ rng.standard_normal(n)
        rows.append(row)
        shock = row * diagonal if model == "CDCC" else row
        fall = np.minimum(row, 0.0)
        news = a * np.outer(shock, shock) + g * np.outer(fall, fall)
        q = (1.0 - a - b) * target - g * downside + news + b * q
    return np.array(rows[200:]), target


def steps(repetitions: int, peers: bool) -> int:
    """How often `run` calls ``advance``."""
    return len(TRUTHS) + len(FITTED) * (1 + (2 * len(PEERS) if peers else 0)) * repetitions + len(STEPPED)


def run(repetitions: int, peers: Path | None, advance: Callable[[str], None]) -> dict[str, Any]:
    """All of it; ``peers`` is the Python that has the peers, None for none. Writes dcc.json and the docs' tables."""
    about = machine()
    recovered = []
    for model, a, b, g in TRUTHS:
        advance(f"recovery: {model}")
        recovered.append(_recovered(model, a, b, g, peers))
    fits: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for n in FITTED:
            z, _ = simulated(1, OBSERVATIONS, n, 0.03, 0.95)
            panel = Path(folder) / f"{n}.npy"
            np.save(panel, z)
            for _ in range(repetitions):
                advance(f"fit of {n}: Headrace")
                fits += [_ours(z, n, method) for method in (Method.FULL, Method.COMPOSITE)]
                for name in PEERS if peers is not None else ():
                    for method in (Method.FULL, Method.COMPOSITE):
                        advance(f"fit of {n}: {name}, {method}")
                        if method is Method.COMPOSITE or n <= MOST_FULL:
                            fits.append(_theirs(str(peers), name, method, panel, n))
    stepped = []
    for n in STEPPED:
        advance(f"step of {n}")
        theirs = None if peers is None else _ran(str(peers), STEPS, "step", str(n))
        stepped.append({"n": n, "us": _step_us(n), "peer_us": theirs and theirs["us"]})
    figures = {
        "what": "DCC-GARCH: parameters of a known truth, seconds of fits, microseconds of a step",
        "machine": {**about, "load_average_after": load()},
        "setting": {"observations": OBSERVATIONS, "repetitions": repetitions},
        "recovery": recovered,
        "fits": fits,
        "steps": stepped,
    }
    save("dcc", figures)
    _put("recovery", recovery_table(recovered))
    _put("speed", f"{speed_table(fits)}\n\n{step_table(stepped)}")
    return figures


def _recovered(model: CorrelationModel, a: float, b: float, g: float, peers: Path | None) -> dict[str, Any]:
    z, _ = simulated(11, 3000, 6, a, b, g, model.value)
    found = estimate(z, model)
    truth = (a, b, g)[: len(found.errors)]
    told = (found.a, found.b, found.g)[: len(found.errors)]
    beside = {}
    if peers is not None and model in PEERS_HAVE:
        with tempfile.NamedTemporaryFile(suffix=".npy") as panel:
            np.save(panel.name, z)
            for name in PEERS:
                ran = _ran(str(peers), name, model.value, panel.name)
                beside[name] = ran and ran["found"]
    return {"model": model.value, "truth": truth, "found": told, "errors": found.errors, "peers": beside}


def _ours(z: Floats, n: int, method: Method) -> dict[str, Any]:
    estimate(z[:300, :3], method=method)  # kernels are compiled
    began_s = time.perf_counter()
    found = estimate(z, method=method)
    second_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    fit(z * 1e-3, [str(i) for i in range(n)], Spec(method=method))
    whole_s = time.perf_counter() - began_s
    return {
        "n": n,
        "who": "Headrace",
        "method": method.value,
        "seconds": whole_s,
        "second": second_s,
        "a": found.a,
        "b": found.b,
    }


def _theirs(python: str, name: str, method: Method, panel: Path, n: int) -> dict[str, Any]:
    told = _ran(python, name, method.value, str(panel))
    return {"n": n, "who": name, "method": method.value, **(told or {"seconds": None})}


def _ran(python: str, name: str, *arguments: str) -> dict[str, Any] | None:
    """What a peer says; None where it takes too long."""
    script = Path(__file__).parent / "peers" / "dcc_fit.py"
    argv = [python, str(script), name, *arguments]
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    if ran.returncode:
        raise BenchError(f"{name}: {ran.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return told


def parameters(symbols: tuple[str, ...], target: Floats) -> DccParameters:
    """A DCC of symbols that are all alike but for their correlations, ``target`` of shape (n, n)."""
    zeros, triangle = np.zeros(len(symbols)), packed.pack(target)
    margins = Margins(
        volatility=np.zeros(len(symbols), np.int64),
        mean=zeros,
        omega=zeros + 1e-8,
        alpha=zeros + 0.05,
        gamma=zeros,
        beta=zeros + 0.9,
        nu=zeros,
        variance=zeros + 1e-6,
    )
    return DccParameters(
        symbols, CorrelationModel.DCC, margins, 0.03, 0.95, 0.0, triangle, np.zeros_like(triangle), triangle
    )


def _step_us(n: int) -> float:
    """The median of a few stretches of steps."""
    told = parameters(tuple(map(str, range(n))), 0.5 * np.eye(n) + 0.5)
    variance, q = told.margins.variance.copy(), told.q.copy()
    returns = np.random.default_rng(1).standard_normal(n) * 1e-3
    advance(told, variance, q, returns)
    times = []
    for _ in range(5):
        count, began_s = 0, time.perf_counter()
        while time.perf_counter() - began_s < _STEP_S / 5:
            advance(told, variance, q, returns)
            count += 1
        times.append((time.perf_counter() - began_s) / count * 1e6)
    return statistics.median(times)


def recovery_table(recovered: list[dict[str, Any]]) -> str:
    """A row for each model."""
    lines = [
        f"| model | truth (a, b, g) | found | {' | '.join(PEERS)} |",
        "|---|---|---|" + "---|" * len(PEERS),
    ]
    for each in recovered:
        truth = ", ".join(f"{value:g}" for value in each["truth"])
        found = ", ".join(
            f"{value:.4f} ({error:.4f})" for value, error in zip(each["found"], each["errors"], strict=True)
        )
        theirs = [each["peers"].get(name) for name in PEERS]
        cells = ["–" if told is None else ", ".join(f"{value:.4f}" for value in told) for told in theirs]
        lines.append(f"| {each['model']} | {truth} | {found} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed_table(fits: list[dict[str, Any]]) -> str:
    """Medians by number of symbols: whole fits, and our second stage alone."""

    def seconds(n: int, who: str, method: Method, field: str = "seconds") -> str:
        found = [e[field] for e in fits if (e["n"], e["who"], e["method"]) == (n, who, method.value)]
        times = [each for each in found if each is not None]
        if not times:
            return "more than 20 min" if found else "–"
        return f"{statistics.median(times):.3g} s"

    names = ("Headrace", *PEERS)
    lines = [
        "| symbols | likelihood | second stage alone | "
        + " | ".join(f"whole fit, {name}" for name in names)
        + " |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for n in sorted({each["n"] for each in fits}):
        for method in (Method.FULL, Method.COMPOSITE):
            cells = [seconds(n, name, method) for name in names]
            second = seconds(n, "Headrace", method, "second")
            lines.append(f"| {n} | {method.value} | {second} | {' | '.join(cells)} |")
    return "\n".join(lines)


def step_table(stepped: list[dict[str, Any]]) -> str:
    """Microseconds of a step by number of symbols."""
    lines = [f"| symbols | one bar: variances, Q, covariance | Q and R alone, {STEPS} |", "|---|---|---|"]
    for each in stepped:
        theirs = "–" if each["peer_us"] is None else f"{each['peer_us']:.3g} µs"
        lines.append(f"| {each['n']} | {each['us']:.3g} µs | {theirs} |")
    return "\n".join(lines)


def _put(name: str, table: str) -> None:
    put(DOCS, f"<!-- headrace bench dcc: {name} -->", table)
