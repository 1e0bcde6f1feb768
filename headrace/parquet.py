"""Results as Parquet files, a file per kind of record, with columns that follow its Avro schema."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.codec import to_datum, topic_schema
from schemas.records import DeadLetter, Record
from schemas.topics import TOPICS
from streams.agent import Output

_BATCH_ROWS = 20_000
_SCALARS = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "bytes": pa.binary(),
}
_DECIMAL = pa.decimal128(28, 9)
_TIME = pa.timestamp("us", "UTC")


class ParquetFolder:
    """Writes results into ``folder`` as they come; a context manager that completes the files.

    Files are called as the topic, with _ for dots (``market_bars.parquet``; ``portfolio_events.parquet`` holds the
    snapshots), and replaced where they are there. Inputs of agents that are no results are left out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._rows: dict[str, list[Any]] = defaultdict(list)
        self._schemas: dict[str, pa.Schema] = {}
        self._writers: dict[str, pq.ParquetWriter] = {}

    def __call__(self, output: Output) -> None:
        """Take one output of the inline runner."""
        topic = output.topic
        if not isinstance(output.value, TOPICS[topic].compared):
            return
        rows = self._rows[topic]
        rows.append(to_datum(output.value))
        if len(rows) == _BATCH_ROWS:
            self._write(topic)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for topic in list(self._rows):
            self._write(topic)
        for writer in self._writers.values():
            writer.close()

    def _write(self, topic: str) -> None:
        rows, self._rows[topic] = self._rows[topic], []
        if topic not in self._writers:
            self._schemas[topic] = arrow_schema(topic)
            path = self.folder / f"{topic.replace('.', '_')}.parquet"
            self._writers[topic] = pq.ParquetWriter(path, self._schemas[topic], compression="zstd")
        self._writers[topic].write_table(pa.Table.from_pylist(rows, self._schemas[topic]))


def arrow_schema(topic: str) -> pa.Schema:
    """The columns of a result topic: times are timestamps in UTC, decimals have nine places."""
    kind: type[Record] = DeadLetter if topic == "system.dead_letters" else TOPICS[topic].compared[0]
    declared = topic_schema(topic)
    branches = declared if isinstance(declared, list) else [declared]
    named: dict[str, pa.DataType] = {}
    structs = {f"{b['namespace']}.{b['name']}": _arrow(b, named) for b in branches}
    return pa.schema(list(structs[str(kind.__struct_config__.tag)]))


def _arrow(node: Any, named: dict[str, pa.DataType]) -> pa.DataType:
    """The type of an Avro schema; every named one is put into ``named`` for those that refer to it."""
    if isinstance(node, str):
        return named[node] if node in named else _SCALARS[node]
    if isinstance(node, list):
        (other,) = (branch for branch in node if branch != "null")
        return _arrow(other, named)
    match node["type"]:
        case "record":
            fields = [pa.field(f["name"], _arrow(f["type"], named)) for f in node["fields"]]
            named[f"{node['namespace']}.{node['name']}"] = pa.struct(fields)
            return pa.struct(fields)
        case "enum":
            named[f"{node['namespace']}.{node['name']}"] = pa.string()
            return pa.string()
        case "array":
            return pa.list_(_arrow(node["items"], named))
        case "map":
            return pa.map_(pa.string(), _arrow(node["values"], named))
        case _ if node.get("logicalType") == "decimal":
            return _DECIMAL
        case _ if str(node.get("connect.name", "")).endswith("MicroTimestamp"):
            return _TIME
        case other:
            return _arrow(other, named)
