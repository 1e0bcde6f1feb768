"""Every kind of bar from real trades, through Kafka, into TimescaleDB: held against the twins over the file alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from connectors.files import FilesSettings, TradesFile
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints
from schemas.records import Bar, Tick
from sinks.timescale.results import RESULTS
from streams.bars import plain
from tests import database
from tests.pipeline import KafkaRun

KINDS = (
    *("time:1s", "time:1m", "time:1h", "time:1d", "time:5m@XNYS", "time:1d@XNYS"),
    *("tick:500", "volume:50000", "dollar:2500000", "range:0.1", "renko:0.05"),
    *("tick-imbalance:500", "volume-imbalance:500", "dollar-imbalance:500:10"),
    *("tick-run:500", "volume-run:500", "dollar-run:500:10"),
)
SETTINGS = PipelineSettings.model_validate(
    {"market": {"bars": KINDS, "sources": [{"name": "files"}], "regimes": {"bars": []}}}
)
"""All of them at once."""
(STORED,) = (result for result in RESULTS if result.record is Bar)
_END_US = 4_000_000_000_000_000


def check(
    stack: Endpoints, namespace: str, trades: Path, folder: Path, limit: int | None = None
) -> dict[str, int]:
    """Run the first ``limit`` rows, or all; how many bars there are of each kind. Every column of every row counts."""
    rows = TradesFile(trades, FilesSettings(limit=limit)).rows()
    expected = plain.fold((row for row in rows if isinstance(row, Tick)), KINDS, clock=_END_US)
    with KafkaRun(stack, namespace, SETTINGS, folder) as run:
        run.start(["files", str(trades), *(() if limit is None else ("--limit", str(limit)))])
        run.wait_for_ingest()
        run.settle()
    assert database.differences(stack.database, namespace, STORED, expected) == []
    found = Counter(bar.kind for bar in expected)
    assert set(found) == set(KINDS)
    return dict(found)
