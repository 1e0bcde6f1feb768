"""Fitting DCC-GARCH: margins by arch, correlations by (composite) quasi-likelihood. Only the fitter imports this."""

from streams.correlations.fitting.correlation import Estimate, Method, Start, estimate, log_likelihood
from streams.correlations.fitting.fit import FEWEST, DccFit, Spec, fit, lower_tail, worst_window
from streams.correlations.fitting.margins import Margin, VarianceStart, fit_margin
from streams.correlations.fitting.targets import Target, shrunk

__all__ = [
    "FEWEST",
    "DccFit",
    "Estimate",
    "Margin",
    "Method",
    "Spec",
    "Start",
    "Target",
    "VarianceStart",
    "estimate",
    "fit",
    "fit_margin",
    "log_likelihood",
    "lower_tail",
    "shrunk",
    "worst_window",
]
