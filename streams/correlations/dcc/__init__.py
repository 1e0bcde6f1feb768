"""DCC-GARCH as a stream: parameters come in a fit, every bar moves variances, Q and R by one step."""

from schemas.records import CorrelationModel as Model
from schemas.records import VolatilityModel as Volatility
from streams.correlations.dcc.model import Dcc, advance, move
from streams.correlations.dcc.parameters import (
    CLIP,
    DccParameters,
    Margins,
    code_of,
    from_record,
)

__all__ = [
    "CLIP",
    "Dcc",
    "DccParameters",
    "Margins",
    "Model",
    "Volatility",
    "advance",
    "code_of",
    "from_record",
    "move",
]
