"""Follows the changelogs of the partitions that others own, so that whoever takes one over has most of it already.

A thread of its own reads what is committed about once a second and hands it to the local copies (`copies`). A worker
that owns all partitions follows none, and costs nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

import confluent_kafka as ck

from streams.errors import CopyUnfit
from streams.runtime.changelog import reader_settings
from streams.runtime.copies import Copies, Lease
from streams.runtime.recovery import Changes

log = logging.getLogger("headrace.standby")

POLL_S = 0.5
FETCH_WAIT_MS, FETCH_BYTES = 1_000, 1 << 20
"""The broker answers when so much is there, or at the latest after so long."""
_BATCH = 500
"""Messages that are made at a time: meanwhile, nothing else of the worker runs."""
_QUEUED_KB = 4_096


class Standby:
    """Follows what `follow` names, until the process ends."""

    def __init__(self, bootstrap: str, topic: str, group: str, copies: Copies) -> None:
        """``topic``: the changelog's name on the broker."""
        self._bootstrap, self._topic, self._group, self._copies = bootstrap, topic, group, copies
        self._wanted: frozenset[int] = frozenset()
        self._followed: dict[int, Lease] = {}
        self._changed = threading.Event()
        threading.Thread(target=self._run, name="standby", daemon=True).start()

    def follow(self, partitions: Iterable[int]) -> None:
        """Follow these partitions from now on, and no others; any thread may say so."""
        self._wanted = frozenset(partitions)
        self._changed.set()

    def _run(self) -> None:
        reader: ck.Consumer | None = None
        while True:
            if not self._followed:
                self._changed.wait()
            if reader is None:
                reader = self._reader()
            try:
                if self._changed.is_set():
                    self._changed.clear()
                    self._adjust(reader)
                self._take(reader, reader.consume(_BATCH, POLL_S))
            except ck.KafkaException as error:
                log.debug("not followed: %s", error)
                self._changed.wait(POLL_S)
                self._changed.set()

    def _reader(self) -> ck.Consumer:
        pace = {
            "fetch.wait.max.ms": FETCH_WAIT_MS,
            "fetch.min.bytes": FETCH_BYTES,
            "queued.max.messages.kbytes": _QUEUED_KB,
        }
        return ck.Consumer({**reader_settings(self._bootstrap, self._group), **pace}, logger=log)

    def _adjust(self, reader: ck.Consumer) -> None:
        wanted = self._wanted
        for partition in [each for each in self._followed if each not in wanted]:
            self._drop(reader, partition)
        for partition in sorted(wanted - self._followed.keys()):
            self._begin(reader, partition)

    def _begin(self, reader: ck.Consumer, partition: int, *, anew: bool = False) -> None:
        lease = self._copies.lease(partition, is_owner=False)
        if lease is None:
            return  # it is ours meanwhile
        held = None if anew else lease.held()
        lease.keep(Changes(held))
        offset = ck.OFFSET_BEGINNING if held is None else held.offset
        reader.incremental_assign([ck.TopicPartition(self._topic, partition, offset)])
        self._followed[partition] = lease

    def _drop(self, reader: ck.Consumer, partition: int) -> None:
        del self._followed[partition]
        reader.incremental_unassign([ck.TopicPartition(self._topic, partition)])

    def _take(self, reader: ck.Consumer, messages: Iterable[ck.Message]) -> None:
        followed = dict(self._followed)  # what is begun anew takes nothing that was read before
        for message in messages:
            partition = message.partition()
            lease = followed.get(partition)
            if lease is None:
                continue
            if lease.is_void:  # it is ours now, or there are no copies any more
                del followed[partition]
                self._drop(reader, partition)
                continue
            error = message.error()
            try:
                if error is None:
                    lease.add(message.offset(), message.key(), message.value())
                elif error.code() == ck.KafkaError._AUTO_OFFSET_RESET:
                    raise CopyUnfit("its place in the changelog is gone")
                else:
                    log.debug("partition %s: %s", partition, error)
            except CopyUnfit as unfit:
                log.warning("the local copy of %s[%s] is thrown away: %s", self._topic, partition, unfit)
                del followed[partition]
                self._drop(reader, partition)
                self._begin(reader, partition, anew=True)
