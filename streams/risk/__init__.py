"""What a portfolio may lose: parametric VaR and CVaR, exposures, drawdown, and the limits that they pass."""

from streams.risk.metrics import Breach, breaches, measure

__all__ = ["Breach", "breaches", "measure"]
