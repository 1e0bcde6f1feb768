"""Headrace's public names: what a strategy or a script of yours imports.

They are loaded when they are first used, so that ``import headrace`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import schemas as schemas  # before NumPy, for what it sets

if TYPE_CHECKING:
    from schemas.records import Bar, Label, OrderType, Regime, Side
    from streams.errors import HeadraceError
    from streams.regimes import indicators
    from streams.signals.strategy import Row, Strategy, Target, View

__all__ = [
    "Bar",
    "HeadraceError",
    "Label",
    "OrderType",
    "Regime",
    "Row",
    "Side",
    "Strategy",
    "Target",
    "View",
    "indicators",
]

_HOMES = {
    "schemas.records": ("Bar", "Label", "OrderType", "Regime", "Side"),
    "streams.errors": ("HeadraceError",),
    "streams.signals.strategy": ("Row", "Strategy", "Target", "View"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "indicators":
        return importlib.import_module("streams.regimes.indicators")
    if name not in _HOME:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
