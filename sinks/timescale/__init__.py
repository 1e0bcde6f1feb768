"""Results in TimescaleDB: a hypertable per result topic, each record there once.

What needs the database's libraries is loaded when it is first used: every process reads the sink's settings.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sinks.timescale.errors import (
    OutOfGroup,
    PositionLost,
    RunRemoved,
    SinkError,
    TopicDeleted,
    TopicsMissing,
)
from sinks.timescale.settings import SinkSettings

if TYPE_CHECKING:
    from sinks.timescale.migrations import migrate
    from sinks.timescale.sink import SINK_TOPICS, Progress, TimescaleSink
    from sinks.timescale.tables import LIVE, run_of

__all__ = [
    "LIVE",
    "SINK_TOPICS",
    "OutOfGroup",
    "PositionLost",
    "Progress",
    "RunRemoved",
    "SinkError",
    "SinkSettings",
    "TimescaleSink",
    "TopicDeleted",
    "TopicsMissing",
    "migrate",
    "run_of",
]

_HOMES = {
    "LIVE": "tables",
    "SINK_TOPICS": "sink",
    "Progress": "sink",
    "TimescaleSink": "sink",
    "migrate": "migrations",
    "run_of": "tables",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
