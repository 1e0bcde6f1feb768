"""State from a local copy and the changelog behind it is that of the whole changelog, whatever became of either."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from schemas.states import POSITION_KEY
from streams.errors import CopyUnfit
from streams.runtime import rocks
from streams.runtime.recovery import Anchor, Changes, Held
from streams.runtime.rocks import RocksCopy, remove

KEYS = [b"A", b"B", b"C", b"D", b"\0partition"]


class Record(NamedTuple):
    key: bytes
    value: bytes | None


class Changelog:
    """What a broker keeps of one partition: committed records by offset, with gaps, compacted and cut off at times."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.records: dict[int, Record] = {}
        self.written: dict[bytes | None, int] = {}
        """Where each value was written: no two are equal."""
        self.end = 0

    def append(self, changes: dict[bytes, bytes | None]) -> int:
        """A transaction: its records, the position last, and a marker. The position's offset."""
        for key, value in changes.items():
            self.records[self.end] = Record(key, value)
            self.written[value] = self.end
            self.end += 1
        self.end += 1
        return self.end - 2

    def behind(self, offset: int) -> list[tuple[int, Record]]:
        return [(at, record) for at, record in sorted(self.records.items()) if at >= offset]

    def state(self) -> dict[bytes, bytes]:
        latest = {record.key: record.value for _, record in sorted(self.records.items())}
        return {key: value for key, value in latest.items() if value is not None}

    def compact(self, below: int) -> None:
        """Of each key the last record stays, and all from ``below`` on; of a key that is gone, nothing need stay."""
        last = {record.key: at for at, record in sorted(self.records.items())}
        for at, record in list(self.records.items()):
            if at < below and (last[record.key] != at or record.value is None):
                del self.records[at]

    def cut(self, end: int) -> None:
        """What was not synced is lost with the broker's power."""
        self.records = {at: record for at, record in self.records.items() if at < end}
        self.end = min(self.end, end)


def recovered(log: Changelog, held: Held | None) -> tuple[Changes, dict[bytes, bytes]]:
    """As `streams.runtime.kafka` does it."""
    try:
        changes = Changes(held)
        for at, record in log.behind(0 if held is None else held.offset):
            changes.add(at, *record)
        if not changes.is_checked:
            raise CopyUnfit("nothing left")
    except CopyUnfit:
        assert held is not None
        return recovered(log, None)
    return changes, changes.onto(held)


class Killed(Exception):
    """The process is gone."""


class KilledAfter:
    """A database of a process that is killed after some writes."""

    def __init__(self, writes: int, db: Any) -> None:
        self._left, self._db = writes, db

    def write(self, batch: Any) -> None:
        if not self._left:
            raise Killed
        self._left -= 1
        self._db.write(batch)

    def close(self) -> None:
        self._db.close()


class Recoveries(RuleBasedStateMachine):
    """One copy; its worker owns the partition or follows it, dies, and comes back to a changelog that has changed."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.part_bytes, rocks._PART_BYTES = rocks._PART_BYTES, 0
        self.log = Changelog("log 0")
        self.logs = self.count = 0
        self.boundaries = [0]
        self.copy = RocksCopy(self.folder / "copy", self.log.name)
        self.changes = Changes(None)
        self.owns, self.read = True, 0

    def teardown(self) -> None:
        if hasattr(self, "copy"):
            rocks._PART_BYTES = self.part_bytes
            self.copy.close()
            shutil.rmtree(self.folder)

    # ---- the worker at work

    @rule(
        keys=st.dictionaries(st.sampled_from(KEYS), st.booleans(), max_size=4),
        hears=st.booleans(),
        aborted=st.integers(0, 3),
    )
    def commit(self, keys: dict[bytes, bool], hears: bool, aborted: int) -> None:
        """The owner's transaction, its own or another's; it may not hear at which offset it was written."""
        self.count += 1
        self.log.end += aborted
        changes: dict[bytes, bytes | None] = {key: b"%s %d" % (key, self.count) for key in keys}
        if not self.owns:
            changes |= {key: None for key, stays in keys.items() if not stays}
        changes[POSITION_KEY] = b"position %d" % self.count
        offset = self.log.append(changes)
        self.boundaries.append(self.log.end)
        if self.owns:
            self.changes.commit(
                {k: v for k, v in changes.items() if v is not None}, offset if hears else None
            )

    @rule(count=st.integers(1, 7))
    def follow(self, count: int) -> None:
        """The follower reads some records, perhaps half a transaction."""
        if self.owns:
            return
        for at, record in self.log.behind(self.read)[:count]:
            self.changes.add(at, *record)
            self.read = at + 1

    @rule(parts=st.none() | st.integers(0, 3), is_cut=st.booleans(), data=st.data())
    def write(self, parts: int | None, is_cut: bool, data: st.DataObject) -> None:
        """A part for each item; with ``parts``, the process is killed after so many, perhaps with the broker."""
        batch = self.changes.take()
        if batch is None:
            return
        if batch.begins_anew:
            self.copy.close()
            remove(self.folder / "copy")
            self.copy = RocksCopy(self.folder / "copy", self.log.name)
        if parts is None:
            self.copy.write(batch)
            return
        self.copy._db = KilledAfter(parts, self.copy._db)
        with suppress(Killed):
            self.copy.write(batch)
        self.copy.close()
        if is_cut:
            self.cut(data)
        self.open_again(self.owns)

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        """Only of what the follower has read: a reader that is overtaken is told, and begins anew (Kafka)."""
        self.log.compact(data.draw(st.integers(0, self.log.end if self.owns else self.read)))

    # ---- the worker ends, and another begins where it was

    @rule(
        owns=st.booleans(),
        meanwhile=st.sampled_from(["nothing", "goes on", "compacted", "cut", "cut, goes on", "another"]),
        damaged=st.booleans(),
        data=st.data(),
    )
    def die_and_come_back(self, owns: bool, meanwhile: str, damaged: bool, data: st.DataObject) -> None:
        self.copy.close()
        self.owns = True
        self.changes = Changes(None)
        if "cut" in meanwhile:
            self.cut(data)
        if meanwhile == "another":
            self.logs += 1
            self.log, self.boundaries = Changelog(f"log {self.logs}"), [0]
        if "goes on" in meanwhile or meanwhile == "another":
            for _ in range(data.draw(st.integers(1, 3))):
                self.commit({b"A": True, b"B": True}, True, 0)
        if meanwhile == "compacted":
            self.log.compact(self.log.end)
        if damaged:
            self.damage(data)
        self.open_again(owns)

    def cut(self, data: st.DataObject) -> None:
        """The last transactions go, most often one or two."""
        self.log.cut(data.draw(st.sampled_from(self.boundaries[::-1])))
        self.boundaries = [end for end in self.boundaries if end <= self.log.end]

    def damage(self, data: st.DataObject) -> None:
        """Which files there are, and how long, is RocksDB's affair: what is drawn may not hang on it."""
        which, where = data.draw(st.integers(0, 99)), data.draw(st.integers(0, 999))
        is_short, bit = data.draw(st.booleans()), data.draw(st.integers(0, 7))
        files = sorted(path for path in (self.folder / "copy").iterdir() if path.stat().st_size)
        file = files[which % len(files)]
        content = bytearray(file.read_bytes())
        at = len(content) * where // 1000
        if is_short:
            del content[at:]
        else:
            content[at] ^= 1 << bit
        file.write_bytes(content)

    def open_again(self, owns: bool) -> None:
        held, is_fit = None, False
        with suppress(Exception):
            self.copy = RocksCopy(self.folder / "copy", self.log.name)
            held = self.copy.load()
            is_fit = True
        if not is_fit:  # as `streams.runtime.copies` does it
            with suppress(Exception):
                self.copy.close()
            remove(self.folder / "copy")
            self.copy = RocksCopy(self.folder / "copy", self.log.name)
        self.changes, state = recovered(self.log, held)
        assert state == self.log.state()
        self.owns, self.read = owns, self.log.end

    @invariant()
    def whoever_came_now_would_find_the_state(self) -> None:
        held = self.copy.load() if hasattr(self, "copy") else None
        if held is None:
            return
        assert recovered(self.log, held)[1] == self.log.state()
        if self.log.records.get(held.offset) == (POSITION_KEY, held.items[POSITION_KEY]):
            through = held.offset if held.ahead is None else held.ahead.offset
            assert max(self.log.written[value] for value in held.items.values()) <= through, "it is ahead"


Recoveries.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestRecoveries = Recoveries.TestCase


def test_a_copy_goes_on_from_its_last_position_and_no_other() -> None:
    held = Held({b"A": b"1", POSITION_KEY: b"p1"}, 4)
    changes = Changes(held)
    changes.add(4, POSITION_KEY, b"p1")
    changes.add(6, b"A", b"2")
    changes.add(7, POSITION_KEY, b"p2")
    assert changes.onto(held) == {b"A": b"2", POSITION_KEY: b"p2"}
    others: list[Any] = [(4, POSITION_KEY, b"p0"), (5, POSITION_KEY, b"p1"), (4, b"A", b"p1")]
    for other in others:
        with pytest.raises(CopyUnfit):
            Changes(held).add(*other)


def test_a_copy_that_was_being_written_needs_the_position_that_it_may_be_ahead_to() -> None:
    """Else what it has of a transaction that the broker has lost would come back."""
    held = Held({b"A": b"2", POSITION_KEY: b"p1"}, 4, Anchor(9, b"p3"))
    whole, lost, another = Changes(held), Changes(held), Changes(held)
    for changes in (whole, lost, another):
        changes.add(4, POSITION_KEY, b"p1")
        assert not changes.is_checked
    whole.add(8, b"A", b"2")
    whole.add(9, POSITION_KEY, b"p3")
    assert whole.is_checked
    lost.add(6, POSITION_KEY, b"p2")
    assert not lost.is_checked
    with pytest.raises(CopyUnfit, match="its position at 9"):
        another.add(9, POSITION_KEY, b"another")
    with pytest.raises(CopyUnfit, match="its position at 9"):
        lost.add(11, b"A", b"7")


def test_half_a_transaction_is_not_given_out() -> None:
    changes = Changes(None)
    changes.add(0, b"A", b"1")
    assert changes.take() is None
    changes.add(1, POSITION_KEY, b"p1")
    changes.add(3, b"A", b"2")
    batch = changes.take()
    assert batch is not None
    assert batch == (True, {b"A": b"1", POSITION_KEY: b"p1"}, 1)
    changes.add(4, POSITION_KEY, b"p2")
    assert changes.take() == (False, {b"A": b"2", POSITION_KEY: b"p2"}, 4)


def test_a_transaction_whose_place_is_not_known_waits_for_the_next() -> None:
    changes = Changes(None)
    changes.commit({b"A": b"1", POSITION_KEY: b"p1"}, None)
    assert changes.take() is None
    changes.commit({b"B": b"2", POSITION_KEY: b"p2"}, 9)
    assert changes.take() == (True, {b"A": b"1", b"B": b"2", POSITION_KEY: b"p2"}, 9)
