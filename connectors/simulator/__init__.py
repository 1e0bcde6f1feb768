"""A made-up market whose truth is known: `Simulation(SimulatorSettings(seed=1)).messages()`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from connectors.simulator.settings import SimulatorSettings

if TYPE_CHECKING:
    from connectors.simulator.market import Minute, Simulation
    from connectors.simulator.truth import export_truth

__all__ = ["Minute", "Simulation", "SimulatorSettings", "export_truth"]

_HOMES = {"Minute": "market", "Simulation": "market", "export_truth": "truth"}


def __getattr__(name: str) -> Any:
    """The market is imported when it is used: settings must not cost the time that numpy and pyarrow take."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
