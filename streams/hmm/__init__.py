"""Regimes by a hidden Markov model: parameters come in a fit, every bar moves the state probabilities by one step."""

from streams.hmm.features import FEATURES, follow
from streams.hmm.filter import filtered
from streams.hmm.model import Hmm, Verdict, step
from streams.hmm.parameters import HmmParameters, from_record, symbols_of

__all__ = [
    "FEATURES",
    "Hmm",
    "HmmParameters",
    "Verdict",
    "filtered",
    "follow",
    "from_record",
    "step",
    "symbols_of",
]
