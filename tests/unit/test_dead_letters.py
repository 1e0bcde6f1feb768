"""Dead letters apart from Kafka: their ids, which are chosen, what an export says, and what a repair makes of one."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import moments
from headrace.dead_letters import (
    Choice,
    Letter,
    LineUnreadable,
    NoSuchLetter,
    decoded,
    exported,
    find,
    id_of,
    repaired_lines,
)
from headrace.repair import NotRedriven, RepairInvalid, edited, rewritten
from schemas.codec import Codec, UnknownSchema, Unreadable, topic_schema_text
from schemas.records import Bar, Command, DeadLetter, Quote, Reason, Record, Tick, TradingState
from schemas.topics import TOPICS
from tests.examples import DAY0, SECOND, bar, quote, settings, tick


def _fetch(number: int) -> str:
    if number >= len(TOPICS):
        raise UnknownSchema(f"no schema {number}")
    return topic_schema_text(list(TOPICS)[number])


CODEC = Codec({name: number for number, name in enumerate(TOPICS)}, _fetch)


def letter(record: Record | bytes | None = None, topic: str = "market.ticks", **over: Any) -> Letter:
    """A letter as an agent makes it of a record (or of bytes) in a topic."""
    value = CODEC.encode(topic, record) if isinstance(record, Record) else record
    fields: dict[str, Any] = {
        "stage": "symbols",
        "reason": Reason.BAD_PRICE,
        "error": "it is bad",
        "input": "test/s/7",
        "topic": topic,
        "partition": 1,
        "offset": 12,
        "timestamp_ms": DAY0 // 1000,
        "key": b"A",
        "value": value,
        "value_size": 0 if value is None else len(value),
        "symbol": "A",
        **over,
    }
    made = DeadLetter(**fields)
    return Letter(id_of(made), made, 0, 3)


BAD = tick(price=math.nan, sequence=7)


# ---- names and choices


def test_a_copy_has_the_same_id_and_nothing_else_has() -> None:
    first = letter(BAD)
    assert letter(BAD, error="in other words", offset=99).id == first.id
    others = (
        letter(BAD, symbol="B"),
        letter(BAD, stage="quotes"),
        letter(BAD, reason=Reason.BAD_SIZE),
        letter(BAD, input="test/s/8"),
        letter(BAD, symbol=None),
    )
    assert len({first.id, *(each.id for each in others)}) == 6


def test_a_letter_is_found_by_the_beginning_of_its_id() -> None:
    letters = [letter(BAD, input=f"test/s/{i}") for i in range(40)]
    assert find(letters, [letters[7].id[:8]]) == {letters[7].id[:8]: letters[7]}
    assert find(letters, [letters[7].id.upper()])[letters[7].id.upper()] is letters[7]
    twice = next(d for d in "0123456789abcdef" if sum(each.id.startswith(d) for each in letters) > 1)
    with pytest.raises(NoSuchLetter, match="write more of the id"):
        find(letters, [twice])
    with pytest.raises(NoSuchLetter, match="dead-letters list"):
        find(letters, ["zz"])
    with pytest.raises(NoSuchLetter):
        find(letters[:1], [""])


@pytest.mark.parametrize(
    ("choice", "taken"),
    [
        (Choice(), True),
        (Choice(stage="symbols", reason=Reason.BAD_PRICE, topic="market.ticks"), True),
        (Choice(stage="quotes"), False),
        (Choice(reason=Reason.BAD_SIZE), False),
        (Choice(topic="market.quotes"), False),
        (Choice(since_us=DAY0, until_us=DAY0 + SECOND), True),
        (Choice(since_us=DAY0 + SECOND), False),
        (Choice(until_us=DAY0), False),
    ],
)
def test_what_is_chosen(choice: Choice, taken: bool) -> None:
    assert choice.takes(letter(BAD)) is taken


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("2013-10-07", DAY0 - 8 * 3600 * SECOND),
        ("2013-10-07 08:00", DAY0),
        ("2013-10-07T08:00:00.250001Z", DAY0 + 250_001),
        ("2013-10-07T10:00:00+02:00", DAY0),
    ],
)
def test_times_are_read_and_shown(text: str, time_us: int) -> None:
    assert moments.parse(text) == time_us
    assert moments.parse(moments.shown(time_us)) == time_us


def test_what_is_no_time_is_told() -> None:
    with pytest.raises(moments.NoTime, match="'yesterday' is no time"):
        moments.parse("yesterday")
    assert moments.shown(2**62) == f"{2**62} µs"


# ---- what it was


def test_a_value_is_read_as_what_it_is() -> None:
    assert isinstance(decoded(CODEC, letter(BAD).record), Tick)
    framed = CODEC.encode("market.bars", bar())
    stray = letter(framed, reason=Reason.WRONG_SCHEMA)
    assert isinstance(decoded(CODEC, stray.record), Bar)
    for bad in (b"this is no Avro", b"\0\0\0\xff\xff unknown", None):
        assert isinstance(decoded(CODEC, letter(bad).record), Unreadable)
    row = letter(b"2013-10-07,A,cheap,1", topic="trades.csv", partition=-1, stage="files")
    assert isinstance(decoded(CODEC, row.record), Unreadable)


def test_an_exported_line_has_all_of_it(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(exported(CODEC, letter(BAD)) + b"\n" + exported(CODEC, letter(b"\xff\xfe", input="x")))
    first, second = (json.loads(line) for line in file.read_text().splitlines() if line)
    value = letter(BAD).record.value
    assert base64.b64decode(first["value"]) == value
    assert (first["id"], first["event_time"], first["key"]) == (letter(BAD).id, "2013-10-07 08:00:00", "A")
    assert first["record"]["price"] is None
    assert first["record"]["event_time"] == DAY0
    assert (base64.b64decode(second["value"]), second["record"]) == (b"\xff\xfe", None)
    first["record"]["price"] = 101.5
    file.write_text(json.dumps(first) + "\n\n")
    (line,) = repaired_lines(file)
    assert rewritten(CODEC, letter(BAD), line.record).record == msgspec.structs.replace(BAD, price=101.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "line 1"),
        ("[]", "the letter's id"),
        ('{"record": {}}', "the letter's id"),
        ('{"id": "abc", "record": null}', "abc has no record"),
    ],
)
def test_a_line_that_is_none_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(LineUnreadable, match=told):
        list(repaired_lines(tmp_path / "x"))
    with pytest.raises(LineUnreadable, match="missing"):
        list(repaired_lines(tmp_path / "missing"))


# ---- what may become of it


def test_a_field_is_set_and_the_others_stay() -> None:
    made = edited(CODEC, letter(BAD), {"price": "101.25", "event_time": "2013-10-07T08:00:01"})
    assert made.record == msgspec.structs.replace(BAD, price=101.25, event_time=DAY0 + SECOND)
    assert (made.topic, made.key, made.time_us) == ("market.ticks", "A", DAY0 + SECOND)


def test_what_could_not_be_read_is_written_anew() -> None:
    fields = {"symbol": "7203", "source": "test", "event_time": str(DAY0), "price": "1", "size": "2"}
    made = edited(CODEC, letter(b"garbage", reason=Reason.UNREADABLE), {**fields, "aggressor": "BUY"})
    assert made.record == Tick(
        symbol="7203", source="test", event_time=DAY0, price=1.0, size=2.0, aggressor="BUY"
    )
    row = letter(b"a;b", topic="trades.csv", partition=-1, stage="files", reason=Reason.BAD_ROW)
    assert edited(CODEC, row, fields).topic == "market.ticks"
    sides = {"bid": "1", "ask": "2", "bid_size": "1", "ask_size": "1"}
    two_sided = {name: told for name, told in fields.items() if name not in ("price", "size")} | sides
    made = edited(CODEC, row, two_sided)
    assert (made.topic, type(made.record)) == ("market.quotes", Quote)


def test_a_command_keeps_its_id_and_an_unreadable_one_takes_the_letters() -> None:
    told = Command(portfolio="beta", id="x1", state=TradingState.HALTED, issued_at=DAY0)
    found = letter(told, topic="portfolio.events", stage="portfolios", reason=Reason.UNDECLARED_KEY)
    made = edited(CODEC, found, {"portfolio": "alpha"})
    assert made.record == msgspec.structs.replace(told, portfolio="alpha")
    assert (made.key, made.time_us) == ("alpha", DAY0)
    lost = letter(b"?", topic="portfolio.events", stage="portfolios", reason=Reason.UNREADABLE)
    fields = {"portfolio": "alpha", "state": "HALTED", "issued_at": str(DAY0)}
    placed = {**fields, "after": f'{{"start": {DAY0}, "ordinal": 2}}'}
    record = edited(CODEC, lost, placed).record
    assert isinstance(record, Command)
    assert (record.id, record.after and record.after.ordinal) == (lost.id, 2)


def test_a_quote_is_repaired_as_one() -> None:
    crossed = quote(bid=102.0, ask=101.0)
    found = letter(crossed, topic="market.quotes", stage="quotes")
    assert edited(CODEC, found, {"bid": "100"}).record == msgspec.structs.replace(crossed, bid=100.0)


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ({"prise": "1"}, "a Tick has no prise; it has aggressor"),
        ({"price": "cheap"}, "price"),
        ({"sequence": "9"}, "sequence cannot be set"),
        ({"session": "x"}, "session cannot be set"),
    ],
)
def test_a_repair_that_makes_no_record_is_told(edits: Mapping[str, str], told: str) -> None:
    with pytest.raises(RepairInvalid, match=told):
        edited(CODEC, letter(BAD), edits)


def test_a_record_without_what_it_needs_is_told() -> None:
    with pytest.raises(RepairInvalid, match="price"):
        rewritten(CODEC, letter(BAD), {**msgspec.to_builtins(BAD), "price": None})
    with pytest.raises(RepairInvalid, match="missing required field `source`"):
        rewritten(CODEC, letter(BAD), {"symbol": "A"})
    with pytest.raises(RepairInvalid, match=r"headrace\.Quote"):
        rewritten(CODEC, letter(BAD), {**msgspec.to_builtins(BAD), "-type": "headrace.Quote"})


SNAPSHOTS: dict[str, Any] = {"topic": "portfolio.events", "stage": "portfolios"}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (letter(b"x" * 10, value_size=3_000_000), "only 10 of its 3,000,000 bytes"),
        (letter(bar(), topic="market.bars"), "comes from market.bars, which agents write"),
        (letter(b"?", topic="universe.bars", stage="barrier"), "comes from universe.bars"),
        (letter(None, key=None, reason=Reason.UNDECLARED_SOURCE), "is a clock"),
        (letter(None, key=None, reason=Reason.BAD_CLOCK), "the next clock"),
        (letter(settings(), key=None, reason=Reason.SETTINGS_CHANGED), "headrace settings apply"),
        (letter(quote(), topic="market.quotes", stage="quotes", reason=Reason.LATE), "late for the others"),
        (letter(b"?", **{**SNAPSHOTS, "stage": "signals"}, reason=Reason.STRATEGY_RAISED), "was decided on"),
        (letter(settings(), **SNAPSHOTS, reason=Reason.WRONG_SCHEMA), "is a Settings"),
    ],
)
def test_what_has_no_place_to_go_back_to_is_refused(found: Letter, told: str) -> None:
    for make in (
        lambda: edited(CODEC, found, {"symbol": "A"}),
        lambda: rewritten(CODEC, found, {"symbol": "A"}),
    ):
        with pytest.raises(NotRedriven, match=told):
            make()
