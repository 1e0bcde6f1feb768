"""A file of trades, or of quotes, row by row: each row is a tick or a quote, or a bad row with its line and what is
wrong with it.

A row that parses goes on as it is: whether a price may be negative or infinite is the pipeline's own check.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.clocks import Row, interleave
from connectors.errors import FileUnreadable, LayoutError
from connectors.files.layout import Layout
from connectors.files.settings import FilesSettings
from connectors.files.values import Convert
from connectors.messages import BEGINNING, QUOTES, TICKS, BadRow, Message, Position
from schemas.records import Quote, Tick

if TYPE_CHECKING:
    from connectors.columns import Batch, Lanes, Stretch
    from connectors.files.scan import Lines

USUAL = FilesSettings()

_SAMPLES = 100
_BATCH_ROWS = 16_384
_BLOCK_BYTES = 2_097_152
_MOST_KEPT = 2_000_000
"""Rows that are held from a first reading to the next, about 200 MB."""
_MAX_LINE = 65_536


class _Reader(Protocol):
    layout: Layout
    first: int
    """Sequence of the first row: line 2 below a header, row 1 of a Parquet file."""

    def rows(self, after: int, last: int | None) -> Iterator[Row]: ...

    def batches(self, lanes: Lanes, last: int | None) -> Iterator[Batch]: ...

    def fraction(self) -> float: ...


class TradesFile:
    """The trades of one file, or its quotes (`Layout` tells), in its order, as many times as asked.

    ``session`` is the beginning of the SHA-256 of the file's bytes: with the line number it names a row
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
        self._kept: tuple[Lanes, Iterable[Batch]] | None = None
        self._reader: _Reader = (_Parquet if parquet else _Csv)(path, settings, self.session)

    @property
    def source(self) -> str:
        return self.settings.source

    @property
    def layout(self) -> Layout:
        """Which column was taken for what."""
        return self._reader.layout

    @property
    def topics(self) -> tuple[str, ...]:
        """Where its rows go."""
        return (QUOTES if self.layout.holds_quotes else TICKS,)

    def fraction(self) -> float:
        """How much of the file the latest reading has consumed, 0 to 1."""
        return self._reader.fraction()

    def rows(self, after: int = 0) -> Iterator[Row]:
        """The rows behind line ``after``."""
        return self._reader.rows(after, self._last)

    @property
    def _last(self) -> int | None:
        limit = self.settings.limit
        return None if limit is None else self._reader.first + limit - 1

    def messages(self, position: Position = BEGINNING) -> Iterator[Message]:
        """The rows behind ``position`` with clocks at their places."""
        if position.finished:
            return iter(())
        rows = self.rows(position.sequence)
        return interleave(rows, self.source, self.settings.clocks, position.clock_us, self.topics)

    def columns(self) -> Iterator[Stretch]:
        """All that `messages` says, as columns: many times as fast."""
        lanes, batches = self._kept or self._batches()
        self._kept = None
        yield from _columns().interleave(batches, lanes, self.settings.clocks)

    def symbols(self) -> tuple[str, ...]:
        """The symbols that the readable rows name, sorted. Reads all of the file; the next `columns` need not."""
        lanes, batches = self._batches()
        kept: list[Batch] = []
        seen: set[int] = set()
        count = 0
        for batch in batches:
            seen.update(np.unique(batch.rows["lane"]).tolist())
            count += len(batch.rows)
            if count <= _MOST_KEPT:
                kept.append(batch)
        self._kept = (lanes, kept) if count <= _MOST_KEPT else None
        return tuple(sorted(lanes.known[lane].symbol for lane in seen))

    def _batches(self) -> tuple[Lanes, Iterable[Batch]]:
        lanes = _columns().Lanes(self.source, self.session)
        return lanes, self._reader.batches(lanes, self._last)


def _columns() -> ModuleType:
    """Imported by who reads by columns: the kernels' compiler takes half a second to import."""
    from connectors import columns

    return columns


def _trades(rows: Iterable[Row]) -> Iterator[Tick | BadRow]:
    """Rows of a file of trades."""
    return (row for row in rows if not isinstance(row, Quote))


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

    def rows(self, after: int, last: int | None) -> Iterator[Row]:
        begin = max(after + 1, self.first)
        with self._open() as (lines, raw):
            for number, line in enumerate(islice(lines, begin - 1, last), begin):
                row = self._row(line, number)
                if row is not None:
                    yield row
                if not number & 1023:
                    self._bytes_read = raw.tell()
            self._bytes_read = self._size

    def _row(self, line: str, number: int) -> Row | None:
        """What a line says; None for a blank one."""
        try:
            if len(line) > _MAX_LINE:
                raise ValueError(f"{len(line)} characters: longer than any trade")
            cells = self._split(line) if '"' in line else line.rstrip("\r\n").split(self._delimiter)
            return self.layout.read(cells, number)
        except (ValueError, csv.Error) as error:
            text = line.rstrip("\r\n")
            if not text.strip():
                return None
            content = text.encode("utf-8", "surrogateescape")
            return BadRow(self._path.name, self._session, number, content, str(error))

    def batches(self, lanes: Lanes, last: int | None) -> Iterator[Batch]:
        from connectors.files.scan import Scanner

        if not Scanner.can_read(self.layout, self._delimiter):
            yield from _columns().of_rows(_trades(self.rows(0, last)), lanes, _BATCH_ROWS)
            return
        scanner = Scanner(self.layout, self._settings, self._delimiter, lanes.number)
        number = self.first
        for block in self._blocks():
            lines = scanner.read(block, number, None if last is None else last + 1 - number)
            number += len(lines.rows)
            if len(lines.rows):
                yield self._batch(lines, block, lanes)
            if last is not None and number > last:
                break
        self._bytes_read = self._size

    def _batch(self, lines: Lines, block: bytes, lanes: Lanes) -> Batch:
        """The rows of a block: plain lines are there already, the others are read one by one."""
        from connectors.files.scan import LineState

        rows, state, begins = lines

        def read(place: int) -> Row | None:
            line = block[begins[place] : begins[place + 1]]
            return self._row(line.decode("utf-8", "surrogateescape"), int(rows["sequence"][place]))

        good, bad = state == LineState.PLAIN, list[tuple[int, BadRow]]()
        for place in np.flatnonzero(state == LineState.UNSURE).tolist():
            row = read(place)
            if isinstance(row, Tick):
                lanes.put(rows, place, row)
                good[place] = True
            elif isinstance(row, BadRow):
                bad.append((place, row))
        kept = np.flatnonzero(good)

        def tick(index: int) -> Tick:
            row = read(int(kept[index]))
            assert isinstance(row, Tick)
            return row

        places = np.searchsorted(kept, [place for place, _ in bad]).tolist()
        told = tuple((at, row) for at, (_, row) in zip(places, bad, strict=True))
        batch: Batch = _columns().Batch(rows if len(kept) == len(rows) else rows[kept], told, tick)
        return batch

    def _blocks(self) -> Iterator[bytes]:
        """The file below its header in stretches of whole lines."""
        rest = b""
        with self._unpacked() as (plain, raw):
            if plain.peek(3)[:3] == codecs.BOM_UTF8:
                plain.read(3)
            for _ in range(self.first - 1):
                plain.readline()
            while read := plain.read(_BLOCK_BYTES):
                cut = read.rfind(b"\n") + 1
                if cut:
                    yield rest + read[:cut]
                    rest = b""
                rest += read[cut:]
                self._bytes_read = raw.tell()
        if rest:
            yield rest

    def fraction(self) -> float:
        return self._bytes_read / self._size

    def _split(self, line: str) -> list[str]:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=self._delimiter, strict=True), [])

    @contextmanager
    def _open(self) -> Iterator[tuple[Iterator[str], IO[bytes]]]:
        """The lines, and the file below whose position tells how far they are read."""
        # bytes that are no UTF-8 survive into the dead letter; newline: a lone CR does not end a line
        with (
            self._unpacked() as (plain, raw),
            io.TextIOWrapper(plain, "utf-8-sig", errors="surrogateescape", newline="\n") as lines,
        ):
            yield lines, raw

    @contextmanager
    def _unpacked(self) -> Iterator[tuple[Any, IO[bytes]]]:
        """The bytes of the text, buffered, and the file below."""
        path = self._path
        with path.open("rb") as raw:
            plain: Any = gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw
            try:
                yield plain, raw
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

    def rows(self, after: int, last: int | None) -> Iterator[Row]:
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
                        row: Row = read(cells, number)
                    except ValueError as error:
                        text = json.dumps(dict(zip(self._names, cells, strict=True)), default=str).encode()
                        row = BadRow(name, self._session, number, text, str(error))
                    yield row
                self._rows_read = number
                if number >= last:
                    return

    def batches(self, lanes: Lanes, last: int | None) -> Iterator[Batch]:
        yield from _columns().of_rows(_trades(self.rows(0, last)), lanes, _BATCH_ROWS)

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
