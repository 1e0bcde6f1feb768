"""Results in TimescaleDB: a hypertable per result topic, each record there once."""

from sinks.timescale.errors import PositionLost, RunRemoved, SinkError, TopicsMissing
from sinks.timescale.migrations import migrate
from sinks.timescale.settings import SinkSettings
from sinks.timescale.sink import SINK_TOPICS, Progress, TimescaleSink
from sinks.timescale.tables import LIVE, run_of

__all__ = [
    "LIVE",
    "SINK_TOPICS",
    "PositionLost",
    "Progress",
    "RunRemoved",
    "SinkError",
    "SinkSettings",
    "TimescaleSink",
    "TopicsMissing",
    "migrate",
    "run_of",
]
