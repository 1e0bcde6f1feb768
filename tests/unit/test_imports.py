"""Imports go one way, and what is meant to be pure cannot reach the world (DESIGN.md, "The house")."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
MAY_IMPORT = {
    "schemas": {"schemas"},
    "streams": {"schemas", "streams"},
    "connectors": {"schemas", "connectors"},
    "sinks": {"schemas", "sinks"},
    "headrace": {"schemas", "streams", "connectors", "sinks", "headrace"},
}
KAFKA = {"faust", "mode", "aiokafka", "confluent_kafka"}
PURE_LIBRARIES = {"msgspec", "numpy", "fastavro"}
PURE_STDLIB = {
    *("__future__", "abc", "bisect", "collections", "contextlib", "copy", "dataclasses", "decimal", "enum"),
    *("functools", "heapq", "io", "itertools", "json", "math", "operator", "re", "statistics"),
    *("types", "typing"),
}
"""A stage may import these and nothing else: clocks, randomness, sockets and threads are outside. ``io`` is
there for its buffers in memory; its ways to a file are calls that no stage may make."""
LOADS_CODE = "streams/signals/loading.py"
"""Finds strategies by entry point or path when the process starts; it runs in no step."""
READS_CALENDARS = "streams/bars/sessions.py"
"""Turns a library's calendars of a fixed range into arrays; its two libraries reach nowhere else."""
CALENDARS = {"exchange_calendars", "pandas"}
FITTING = ("streams/correlations/fitting/", "streams/hmm/fitting/")
"""Only the fitter's: what estimates is a library's, and says on a logger or as a warning what a record says here; two
threads add to halves whose sum is the same in any order of events."""
ESTIMATES = {"arch", "hmmlearn", "scipy", "logging", "warnings", "concurrent"}
IMPURE_CALLS = {
    *("open", "print", "input", "exec", "eval", "__import__", "breakpoint"),
    *("io.open", "io.FileIO", "io.open_code"),
}


def imports(tree: ast.AST, path: str) -> Iterator[str]:
    """Full names of what a module imports, relative ones resolved."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])])


def faults(path: str, source: str) -> list[str]:
    """What a module at ``path`` (from the repository's root) does that it may not."""
    tree = ast.parse(source)
    package = path.split("/")[0]
    pure = package == "streams" and not path.startswith("streams/runtime/") and path != LOADS_CODE
    found = []
    for name in imports(tree, path):
        root = name.split(".")[0]
        if root in MAY_IMPORT and root not in MAY_IMPORT[package]:
            found.append(f"{package} imports {root}")
        if root in {"faust", "mode"} and not path.startswith("streams/runtime/"):
            found.append(f"{root} outside streams/runtime")
        if package == "schemas" and root in KAFKA:
            found.append(f"schemas imports {root}")
        if pure and (name == "streams.runtime" or name.startswith("streams.runtime.")):
            found.append("a stage imports the runtime")
        allowed = PURE_STDLIB | PURE_LIBRARIES | (CALENDARS if path == READS_CALENDARS else set())
        allowed |= ESTIMATES if path.startswith(FITTING) else set()
        if pure and root not in MAY_IMPORT and root not in allowed:
            found.append(f"a stage imports {root}")
    if pure:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_CALLS:
                found.append(f"a stage calls {ast.unparse(node.func)}")
            if isinstance(node, ast.Global):
                found.append("a stage changes a global")
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(
                ("numpy.random", "np.random")
            ):
                found.append("a stage draws random numbers")
    return sorted(set(found))


MODULES = sorted(
    path.relative_to(REPO).as_posix() for package in MAY_IMPORT for path in (REPO / package).rglob("*.py")
)


@pytest.mark.parametrize("path", MODULES)
def test_a_module_imports_only_what_it_may(path: str) -> None:
    assert faults(path, (REPO / path).read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("schemas/topics.py", "import streams.agent", "schemas imports streams"),
        ("schemas/codec.py", "from confluent_kafka import Producer", "schemas imports confluent_kafka"),
        ("connectors/files/trades.py", "from streams import agent", "connectors imports streams"),
        ("sinks/timescale/sink.py", "def f():\n    import connectors", "sinks imports connectors"),
        ("streams/runtime/kafka.py", "import headrace.settings", "streams imports headrace"),
        ("headrace/replay.py", "import faust", "faust outside streams/runtime"),
        ("streams/symbols.py", "from .runtime.runs import Run", "a stage imports the runtime"),
        ("streams/bars/time.py", "from ..runtime import runs", "a stage imports the runtime"),
        ("streams/bars/time.py", "import time", "a stage imports time"),
        ("streams/bars/time.py", "from datetime import datetime", "a stage imports datetime"),
        ("streams/bars/time.py", "from random import random", "a stage imports random"),
        ("streams/venue/paper.py", "import numpy as np\nnp.random.rand()", "a stage draws random numbers"),
        ("streams/risk/metrics.py", "open('x')", "a stage calls open"),
        ("streams/risk/metrics.py", "import io\nio.open('x')", "a stage calls io.open"),
        ("streams/risk/metrics.py", "def f():\n    global x\n    x = 1", "a stage changes a global"),
    ],
)
def test_a_breach_is_seen(path: str, source: str, fault: str) -> None:
    assert fault in faults(path, source)


def test_every_package_is_looked_at() -> None:
    assert {path.split("/")[0] for path in MODULES} == set(MAY_IMPORT)
    assert set(sys.stdlib_module_names) >= PURE_STDLIB


HEAVY = {
    "alembic",
    "exchange_calendars",
    "faust",
    "matplotlib",
    "numba",
    "pandas",
    "psycopg",
    "pyarrow",
    "sqlalchemy",
}
"""A second and more to import, all together: whoever needs one imports it when it is used."""


@pytest.mark.parametrize(
    ("module", "needs"),
    [
        ("headrace.cli", set()),
        ("streams.runtime.app", {"faust"}),
        ("streams.topology", set()),
        ("sinks.timescale.sink", {"alembic", "psycopg", "sqlalchemy"}),
    ],
)
def test_a_process_waits_for_nothing_that_it_does_not_use(module: str, needs: set[str]) -> None:
    """Every command, worker and replay is a process of its own: each pays for what it imports."""
    script = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPO
    )
    assert HEAVY & set(done.stdout.split()) == needs
