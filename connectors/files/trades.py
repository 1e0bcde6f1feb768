"""A file of trades, row by row: each row is a tick, or a bad row with its line and what is wrong with it.

A row that parses goes on as it is: whether a price may be negative or infinite is the pipeline's own check.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.clocks import interleave
from connectors.errors import FileUnreadable, LayoutError
from connectors.files.layout import Layout
from connectors.files.settings import FilesSettings
from connectors.files.values import Convert
from connectors.messages import BEGINNING, BadRow, Message, Position
from schemas.records import Tick

USUAL = FilesSettings()

_SAMPLES = 100
_BATCH_ROWS = 16_384
_MAX_LINE = 65_536


class _Reader(Protocol):
    layout: Layout
    first: int
    """Sequence of the first row: line 2 below a header, row 1 of a Parquet file."""

    def rows(self, after: int, last: int | None) -> Iterator[Tick | BadRow]: ...

    def fraction(self) -> float: ...


class TradesFile:
    """The trades of one file, in its order, as many times as asked.

    ``session`` is the beginning of the SHA-256 of the file's bytes: with the line number it names a tick
    wherever the file lies and whatever it is called. A file that has grown is another file.

    Raises `FileUnreadable` and `LayoutError`.
    """

    def __init__(self, path: Path, settings: FilesSettings = USUAL) -> None:
        self.settings = settings
        try:
            with path.open("rb") as file:
                self.session = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        except OSError as error:
            raise FileUnreadable(f"{path}: {error.strerror or error}") from error
        parquet = path.suffix.lower() in (".parquet", ".pq")
        self._reader: _Reader = (_Parquet if parquet else _Csv)(path, settings, self.session)

    @property
    def source(self) -> str:
        return self.settings.source

    @property
    def layout(self) -> Layout:
        """Which column was taken for what."""
        return self._reader.layout

    def fraction(self) -> float:
        """How much of the file the latest reading has consumed, 0 to 1."""
        return self._reader.fraction()

    def rows(self, after: int = 0) -> Iterator[Tick | BadRow]:
        """The rows behind line ``after``."""
        limit = self.settings.limit
        return self._reader.rows(after, None if limit is None else self._reader.first + limit - 1)

    def messages(self, position: Position = BEGINNING) -> Iterator[Message]:
        """The rows behind ``position`` with clocks at their places."""
        if position.finished:
            return iter(())
        rows = self.rows(position.sequence)
        return interleave(rows, self.source, self.settings.clocks, position.clock_us)


class _Csv:
    """Line by line, so that what a row says never depends on its neighbours; blank lines are no rows."""

    def __init__(self, path: Path, settings: FilesSettings, session: str) -> None:
        self._path = path
        self._settings = settings
        self._session = session
        self._size = path.stat().st_size
        self._bytes_read = 0
        self.first = 2 if settings.header is None else 1
        with self._open() as (lines, _):
            head = list(islice(lines, _SAMPLES))
        if not head:
            raise LayoutError(f"{path.name}: the file is empty")
        self._delimiter = settings.delimiter or max(",;\t|", key=head[0].count)
        names = settings.header or tuple(name.strip() for name in self._split(head[0]))
        samples = []
        for line in head[self.first - 1 :]:
            with suppress(csv.Error):
                samples.append(self._split(line))
        self.layout = Layout(path.name, names, samples, settings, session)

    def rows(self, after: int, last: int | None) -> Iterator[Tick | BadRow]:
        name, session, read, delimiter = (
            self._path.name,
            self._session,
            self.layout.read,
            self._delimiter,
        )
        begin = max(after + 1, self.first)
        with self._open() as (lines, raw):
            for number, line in enumerate(islice(lines, begin - 1, last), begin):
                try:
                    if len(line) > _MAX_LINE:
                        raise ValueError(f"{len(line)} characters: longer than any trade")
                    cells = self._split(line) if '"' in line else line.rstrip("\r\n").split(delimiter)
                    row: Tick | BadRow = read(cells, number)
                except (ValueError, csv.Error) as error:
                    text = line.rstrip("\r\n")
                    if not text.strip():
                        continue
                    row = BadRow(name, session, number, text.encode("utf-8", "surrogateescape"), str(error))
                yield row
                if not number & 1023:
                    self._bytes_read = raw.tell()
            self._bytes_read = self._size

    def fraction(self) -> float:
        return self._bytes_read / self._size

    def _split(self, line: str) -> list[str]:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=self._delimiter, strict=True), [])

    @contextmanager
    def _open(self) -> Iterator[tuple[Iterator[str], IO[bytes]]]:
        """The lines, and the file below whose position tells how far they are read."""
        path = self._path
        with path.open("rb") as raw:
            plain: Any = gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw
            # bytes that are no UTF-8 survive into the dead letter; newline: a lone CR does not end a line
            with io.TextIOWrapper(plain, "utf-8-sig", errors="surrogateescape", newline="\n") as lines:
                try:
                    yield lines, raw
                except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                    raise FileUnreadable(f"{path}: damaged, the rest cannot be unpacked: {error}") from error


class _Parquet:
    """Batch by batch; the sequence of a row is its number, from 1."""

    first = 1

    def __init__(self, path: Path, settings: FilesSettings, session: str) -> None:
        self._path = path
        self._settings = settings
        self._session = session
        self._rows_read = 0
        try:
            with pq.ParquetFile(path) as file:
                self._names = tuple(file.schema_arrow.names)
                self._count = file.metadata.num_rows
                stamps = [i for i, kind in enumerate(file.schema_arrow.types) if pa.types.is_timestamp(kind)]
                typed: dict[int, Convert] = dict.fromkeys(stamps, int)
                sample = next(file.iter_batches(_SAMPLES), None)
        except (OSError, pa.ArrowException) as error:
            raise FileUnreadable(f"{path}: no Parquet file: {error}") from error
        samples = [] if sample is None else list(self._cells(sample))
        self.layout = Layout(path.name, self._names, samples, settings, session, typed)

    def rows(self, after: int, last: int | None) -> Iterator[Tick | BadRow]:
        name, read = self._path.name, self.layout.read
        last = self._count if last is None else min(last, self._count)
        number = 0
        with pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                skipped = min(max(after - number, 0), batch.num_rows)
                number += skipped
                for cells in self._cells(batch.slice(skipped, max(last - number, 0))):
                    number += 1
                    try:
                        row: Tick | BadRow = read(cells, number)
                    except ValueError as error:
                        text = json.dumps(dict(zip(self._names, cells, strict=True)), default=str).encode()
                        row = BadRow(name, self._session, number, text, str(error))
                    yield row
                self._rows_read = number
                if number >= last:
                    return

    def fraction(self) -> float:
        return self._rows_read / self._count if self._count else 1.0

    def _cells(self, batch: pa.RecordBatch) -> Iterator[Sequence[Any]]:
        """Rows of plain Python values; a timestamp is microseconds since the epoch."""
        return zip(*(self._plain(column) for column in batch.columns), strict=True)

    def _plain(self, column: pa.Array) -> list[Any]:
        if pa.types.is_timestamp(column.type):
            if column.type.tz is None:
                zone = self._settings.time_zone
                column = pc.assume_timezone(column, zone, ambiguous="earliest", nonexistent="earliest")
            column = column.cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.int64())
        values: list[Any] = column.to_pylist()
        return values
