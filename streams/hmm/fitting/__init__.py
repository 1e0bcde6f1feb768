"""Fitting the hidden Markov models, by hmmlearn. Only the fitter imports this."""

from streams.hmm.fitting.fit import FEWEST, HmmFit, features_of, fit

__all__ = ["FEWEST", "HmmFit", "features_of", "fit"]
