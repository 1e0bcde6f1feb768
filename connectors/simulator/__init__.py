"""A made-up market whose truth is known: `Simulation(SimulatorSettings(seed=1)).messages()`."""

from connectors.simulator.market import Minute, Simulation
from connectors.simulator.settings import SimulatorSettings
from connectors.simulator.truth import export_truth

__all__ = ["Minute", "Simulation", "SimulatorSettings", "export_truth"]
