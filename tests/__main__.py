"""`python -m tests`: the suite on both cores, over one local stack of its own that is gone afterwards.

Arguments go to pytest: `python -m tests -k limits -x`. Without them, everything but the acceptance runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from headrace import stack
from headrace.stack import StackSettings

PROCESSES = 2


def compile_kernels() -> None:
    """Once, and kept: otherwise each of the first tests' processes would compile them for itself, all at once."""
    from streams.runtime import walk
    from streams.symbols import Symbols

    walk.prepare()
    Symbols()


def main() -> int:
    """Bring a stack up (unless HEADRACE_TEST_ENDPOINTS names one), run pytest over it, take it down."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would compile the same modules
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        str(PROCESSES),
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
    ]
    if os.environ.get("HEADRACE_TEST_ENDPOINTS"):
        compile_kernels()
        return subprocess.call([*pytest, *sys.argv[1:]])
    with tempfile.TemporaryDirectory(prefix="headrace-tests-") as folder:
        settings = StackSettings(data_dir=Path(folder))
        endpoints = Path(folder) / "test-endpoints.json"
        try:
            with ThreadPoolExecutor(1) as pool:
                found = pool.submit(stack.up, settings)
                compile_kernels()
            endpoints.write_text(found.result().model_dump_json())
            environment = {**os.environ, "HEADRACE_TEST_ENDPOINTS": str(endpoints)}
            return subprocess.call([*pytest, *sys.argv[1:]], env=environment)
        finally:
            stack.down(settings)


if __name__ == "__main__":
    raise SystemExit(main())
