"""Rows and offsets into the database, in one transaction.

The offsets of a batch's partitions are locked first, and records below them are skipped: a process that lost
its partitions and does not know it yet (a zombie) waits for the new owner's transaction, then finds nothing
left to do. So whatever is killed, and whenever, each record is taken once.

Rows go by binary COPY into a temporary table, from there into the hypertable, ``on conflict do nothing``. A
copy of an identity already held is a repeat and is dropped; one that differs from the row held is written to
``sink_conflicts`` besides. What the database refuses (a time outside its calendar, a character NUL in a text)
becomes a dead letter, and costs its neighbours nothing.
"""

from __future__ import annotations

import logging
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg

from schemas.records import DeadLetter, Reason
from sinks.timescale.errors import RunRemoved, TopicDeleted
from sinks.timescale.results import RESULTS, Result
from sinks.timescale.rows import Row, RowMaker, without_nul
from sinks.timescale.settings import libpq_url
from sinks.timescale.staging import Staging

logger = logging.getLogger(__name__)

DEAD_LETTERS = next(result for result in RESULTS if result.record is DeadLetter)
_REFUSALS = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,  # an identity too long for an index
    OverflowError,
    struct.error,
)


class Partition(NamedTuple):
    """A partition; ``topic`` is the logical name."""

    topic: str
    partition: int


class Taken(NamedTuple):
    """One record of a partition. Without a result it is none of the sink's, and only moves the offset on."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    result: Result | None = None
    row: Row = ()


Batch = Mapping[Partition, Sequence[Taken]]
"""By partition, in order of offset, without a gap between what was read before and the first."""


@dataclass
class Written:
    """What a transaction did: records taken, rows inserted by table, and what came of the others."""

    rows: dict[str, int] = field(default_factory=dict)
    records: int = 0
    repeats: int = 0
    conflicts: int = 0
    refused: int = 0


class Writer:
    """One connection to the database, opened when it is needed.

    Every method raises `psycopg.OperationalError` where the database is away; the next call connects anew.
    """

    def __init__(self, database_url: str, run: str) -> None:
        self._url = libpq_url(database_url)
        self._run = run
        self._makers = {result: RowMaker(result, run) for result in RESULTS}
        self._staging = {result: Staging(result) for result in RESULTS}
        self._connection: psycopg.Connection[Any] | None = None

    def row(self, result: Result, record: Any) -> Row:
        """The row of a record in its table."""
        if isinstance(record, DeadLetter):
            record = without_nul(record)
        return self._makers[result](record)

    def refuse(self, partition: Partition, item: Taken, reason: Reason, error: str) -> Taken:
        """The same record as a dead letter of the sink."""
        letter = DeadLetter(
            stage="sink",
            reason=reason,
            error=error,
            input=f"{partition.topic}/{partition.partition}/{item.offset}",
            topic=partition.topic,
            partition=partition.partition,
            offset=item.offset,
            timestamp_ms=item.timestamp_ms,
            key=item.key,
            value=item.value,
            value_size=0 if item.value is None else len(item.value),
        )
        return item._replace(result=DEAD_LETTERS, row=self.row(DEAD_LETTERS, letter))

    def positions(self, partitions: Iterable[Partition], ids: Mapping[str, str]) -> dict[Partition, int]:
        """Where to go on in each partition: the offset after the last that was written, 0 at first.

        ``ids`` are the broker's ids of the topics now. Raises `TopicDeleted` where a position is one in another.
        """
        wanted = sorted(set(partitions))
        topics, numbers = [one.topic for one in wanted], [one.partition for one in wanted]
        arguments: dict[str, Any] = {"run": self._run, "topics": topics, "numbers": numbers}
        arguments["ids"] = [ids[topic] for topic in topics]
        given = "unnest(%(topics)s::text[], %(numbers)s::int[], %(ids)s::text[]) as p (topic, partition, id)"
        with self._transaction() as connection:
            connection.execute(
                "insert into sink_offsets (run, topic, partition, next_offset, topic_id)"
                f" select %(run)s, topic, partition, 0, id from {given} on conflict do nothing",
                arguments,
            )
            connection.execute(  # those of 0.1 have none yet; nothing was stored of an empty one
                f"update sink_offsets held set topic_id = p.id from {given} where held.run = %(run)s"
                " and held.topic = p.topic and held.partition = p.partition"
                " and (held.topic_id = '' or held.next_offset = 0)",
                arguments,
            )
            held = connection.execute(
                "select topic, partition, next_offset, topic_id from sink_offsets where run = %s",
                (self._run,),
            )
            found = {Partition(topic, partition): rest for topic, partition, *rest in held}
        for one in wanted:
            if found[one][1] != ids[one.topic]:
                raise TopicDeleted(self._run, one.topic)
        return {one: found[one][0] for one in wanted}

    def write(self, batch: Batch) -> Written:
        """Write a batch in one transaction.

        May be called again with the same batch after an error, whether or not the first call was committed.
        Raises `RunRemoved` where the run's offsets are gone.
        """
        written = Written()
        with self._transaction() as connection:
            floors = self._lock(connection, batch)
            pending: dict[Result, list[tuple[Partition, Taken]]] = defaultdict(list)
            for partition, items in batch.items():
                for item in items:
                    if item.offset < floors[partition]:
                        continue
                    written.records += 1
                    if item.result is not None:
                        pending[item.result].append((partition, item))
            letters: list[tuple[Partition, Taken]] = []
            for result, rows in pending.items():
                self._insert(connection, result, rows, written, letters)
            if letters:
                written.refused = len(letters)
                self._insert(connection, DEAD_LETTERS, letters, written, None, len(pending[DEAD_LETTERS]))
            self._advance(connection, batch)
        if written.conflicts:
            logger.error(
                "%d records differ from those held under their identity: sink_conflicts", written.conflicts
            )
        return written

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction; after an error the connection is closed, and the next one opens another."""
        try:
            connection = self._connect()
            with connection.transaction():
                yield connection
        except BaseException:
            self.close()
            raise

    def _connect(self) -> psycopg.Connection[Any]:
        """The connection, opened if need be, with a staging table for each result."""
        if self._connection is None:
            connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=5,
                application_name="headrace sink",
                keepalives_idle=5,
                keepalives_interval=5,
                keepalives_count=3,
                tcp_user_timeout=20_000,
            )
            # Staging tables have no statistics: each join here is a batch against an index.
            connection.execute(
                "set enable_hashjoin = off; set enable_mergejoin = off; set enable_seqscan = off;"
                "set plan_cache_mode = force_custom_plan"
            )
            # A process that hangs in a transaction holds the lock on its offsets, but not for ever.
            connection.execute(
                "set statement_timeout = '60s'; set idle_in_transaction_session_timeout = '10s'"
            )
            for staging in self._staging.values():
                connection.execute(staging.create)
            self._connection = connection
        return self._connection

    def _lock(self, connection: psycopg.Connection[Any], batch: Batch) -> dict[Partition, int]:
        held = connection.execute(
            "select topic, partition, next_offset from sink_offsets"
            " where run = %s and (topic, partition) in (select * from unnest(%s::text[], %s::int[]))"
            " order by topic, partition for update",
            (self._run, [one.topic for one in batch], [one.partition for one in batch]),
        )
        floors = {Partition(topic, partition): offset for topic, partition, offset in held}
        if floors.keys() != batch.keys():
            raise RunRemoved(self._run)
        return floors

    def _advance(self, connection: psycopg.Connection[Any], batch: Batch) -> None:
        connection.execute(
            "update sink_offsets held set next_offset = taken.next_offset"
            " from unnest(%s::text[], %s::int[], %s::bigint[]) as taken (topic, partition, next_offset)"
            " where held.run = %s and held.topic = taken.topic and held.partition = taken.partition"
            " and held.next_offset < taken.next_offset",
            (
                [one.topic for one in batch],
                [one.partition for one in batch],
                [items[-1].offset + 1 for items in batch.values()],
                self._run,
            ),
        )

    def _insert(
        self,
        connection: psycopg.Connection[Any],
        result: Result,
        rows: list[tuple[Partition, Taken]],
        written: Written,
        letters: list[tuple[Partition, Taken]] | None,
        first: int = 0,
    ) -> None:
        """Insert rows of one table, numbered from ``first``.

        Those that the database refuses are found by halving and go to ``letters``; None: none may be refused.
        """
        try:
            with connection.transaction():
                inserted, conflicts = self._merge(connection, result, [item.row for _, item in rows], first)
        except _REFUSALS as error:
            if letters is None:
                raise
            if len(rows) > 1:
                middle = len(rows) // 2
                self._insert(connection, result, rows[:middle], written, letters, first)
                self._insert(connection, result, rows[middle:], written, letters, first + middle)
            else:
                partition, item = rows[0]
                letter = self.refuse(partition, item, Reason.BAD_ROW, f"the database refuses it: {error}")
                letters.append((partition, letter))
            return
        written.rows[result.table.name] = written.rows.get(result.table.name, 0) + inserted
        written.repeats += len(rows) - inserted
        written.conflicts += conflicts

    def _merge(
        self, connection: psycopg.Connection[Any], result: Result, rows: list[Row], first: int
    ) -> tuple[int, int]:
        """Returns how many rows were inserted, and how many repeats differ from the row held."""
        staging = self._staging[result]
        part = {"first": first, "end": first + len(rows)}
        with connection.cursor() as cursor:
            with cursor.copy(staging.copy) as copy:
                copy.set_types(("int8", *self._makers[result].copy_types))
                for number, row in enumerate(rows, start=first):
                    copy.write_row((number, *row))
            cursor.execute(staging.insert, part)
            inserted = cursor.rowcount
            if inserted == len(rows):
                return inserted, 0
            low, high = cursor.execute(staging.span, part).fetchone() or (None, None)
            cursor.execute(staging.report, {**part, "low": low, "high": high})
            return inserted, cursor.rowcount
