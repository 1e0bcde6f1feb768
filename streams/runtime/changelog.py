"""Reads a partition of a changelog: what was committed, to its end."""

from __future__ import annotations

import time
from typing import Any

import confluent_kafka as ck

from streams.errors import CopyUnfit, RuntimeFault
from streams.runtime.recovery import Changes, Held

RESTORE_TIMEOUT_S = 120.0
WATERMARKS_TIMEOUT_S = 20.0

_NO_LEADER = {ck.KafkaError.NOT_LEADER_FOR_PARTITION, ck.KafkaError.LEADER_NOT_AVAILABLE}


def reader_settings(bootstrap: str, group: str) -> dict[str, Any]:
    """librdkafka settings of a consumer that sees committed records only, and is told where its place is gone."""
    return {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "fetch.queue.backoff.ms": 5,
    }


def read_behind(
    bootstrap: str, place: ck.TopicPartition, group: str, held: Held | None
) -> tuple[Changes, int]:
    """The committed records behind ``held`` (None: all) to the end as it is now, and how many. Blocks.

    The end of a read_committed reader is the last stable offset; only an EOF at or past the high watermark that
    was seen after the fence is the end of everything the last owner committed.

    Raises `CopyUnfit` where ``held`` does not fit, RuntimeFault where the end is not reached in time.
    """
    changes, records = Changes(held), 0
    low, high = _watermarks(bootstrap, place)
    if held is not None and not low <= held.offset < high:
        raise CopyUnfit(f"it ends at {held.offset}, and the changelog has {low} to {high}")
    place.offset = position = low if held is None else held.offset
    settings = {"enable.partition.eof": True, "fetch.wait.max.ms": 50}
    reader = ck.Consumer({**reader_settings(bootstrap, group), **settings})
    try:
        reader.assign([place])
        deadline = time.monotonic() + RESTORE_TIMEOUT_S
        while position < high:
            if time.monotonic() > deadline:
                raise RuntimeFault(f"{place.topic}[{place.partition}]: restore stuck at {position} of {high}")
            for message in reader.consume(5_000, 0.02):
                error = message.error()
                if error is None:
                    changes.add(message.offset(), message.key(), message.value())
                    records += 1
                elif error.code() == ck.KafkaError._PARTITION_EOF:
                    position = message.offset()
                elif error.code() == ck.KafkaError._AUTO_OFFSET_RESET and held is not None:
                    raise CopyUnfit(f"its place in the changelog, {held.offset}, is gone")
                else:
                    raise ck.KafkaException(error)
    finally:
        reader.close()
    if not changes.is_checked:
        raise CopyUnfit("nothing of the changelog is left behind it")
    return changes, records


def _watermarks(bootstrap: str, place: ck.TopicPartition) -> tuple[int, int]:
    """Low and high watermark; a read_uncommitted reader, since a read_committed one is told the stable offset.

    A partition that is new, or moves, has no leader for a moment.
    """
    reader = ck.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "headrace-watermarks",
            "isolation.level": "read_uncommitted",
        }
    )
    deadline_s = time.monotonic() + WATERMARKS_TIMEOUT_S
    try:
        while True:
            try:
                low, high = reader.get_watermark_offsets(place, timeout=WATERMARKS_TIMEOUT_S)
            except ck.KafkaException as error:
                if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)
            else:
                return low, high
    finally:
        reader.close()
