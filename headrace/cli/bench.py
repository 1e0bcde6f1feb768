"""`headrace bench`: the measurements that the README quotes. They live in the repository, not in what is installed."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import typer

from streams.errors import HeadraceError

_CHECKOUT = Path(__file__).resolve().parents[2]


class CheckoutNeeded(HeadraceError):
    """Raised where the measurements are not at hand, because Headrace was installed from a wheel."""


def bench(context: typer.Context) -> None:
    """Measure throughput, latency and more beside other frameworks. Needs a checkout of the repository.

    Each command prints a table and writes its figures as JSON and a plot into bench/results.

    Examples:

        headrace bench --help

        headrace bench throughput
    """
    if not ((_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "bench" / "__main__.py").is_file()):
        raise CheckoutNeeded(
            "the measurements are not part of the installed package: clone the repository and run `make bench` there"
        )
    sys.path.insert(0, str(_CHECKOUT))
    import_module("bench.__main__").main(context.args)
