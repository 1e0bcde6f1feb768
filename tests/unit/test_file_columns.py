"""Files as columns: they say, row by row and clock by clock, what the row reader says."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.clocks import ClockSettings
from connectors.columns import Stretch
from connectors.errors import FileUnreadable
from connectors.files import Columns, Constants, FilesSettings, TradesFile, scan, trades
from connectors.messages import Message
from schemas.records import Side, Tick

SECOND = 1_000_000
SIDES = {1: Side.BUY, -1: Side.SELL, 0: None}


def told(stretches: Iterator[Stretch]) -> Iterator[Message]:
    """The messages that columns stand for; each row is compared with its whole record on the way."""
    for rows, lanes, clocks, letters, source, tick in stretches:
        placed: list[tuple[int, int, Message]] = [
            (int(clock["index"]), 1, Message(None, None, int(clock["time"]), source)) for clock in clocks
        ]
        placed += [(index, 0, message) for index, message in letters]
        for index, row in enumerate(rows):
            record = tick(index)
            lane = lanes[row["lane"]]
            assert (record.symbol, record.source, record.session) == lane
            assert (record.event_time, record.sequence) == (row["event_time"], row["sequence"])
            assert same(record.price, row["price"])
            assert same(record.size, row["size"])
            assert (record.conditions, record.suspicious) == (row["conditions"], row["suspicious"])
            assert record.aggressor is SIDES[int(row["side"])]
            placed.append((index, 2, Message(record.symbol, record, record.event_time, source)))
        assert max((index for index, _, _ in placed), default=0) <= len(rows)
        yield from (message for _, _, message in sorted(placed, key=lambda each: each[:2]))


def same(one: float, other: Any) -> bool:
    return math.copysign(1.0, one) == math.copysign(1.0, other) and (one == other or one != one)


def agree(path: Path, given: FilesSettings) -> int:
    """Hold columns against rows; the number of rows."""
    file = TradesFile(path, given)
    expected = list(file.messages())
    assert repr(list(told(file.columns()))) == repr(expected)
    named = {message.record.symbol for message in expected if isinstance(message.record, Tick)}
    assert file.symbols() == tuple(sorted(named))
    assert file.fraction() == 1.0
    return len(expected)


CELLS = {
    "time": st.one_of(
        st.integers(1_381_132_800_000, 1_381_132_900_000).map(str),
        st.sampled_from(
            [
                *("1381132800464.5", "1381132800464.5005", " 1381132800464 ", "+1381132800464", "", "."),
                *("13811328004640000000", "1_381_132_800_464", "١٣٨١١٣٢٨٠٠٤٦٤", "1.3811328e12", "nan"),
            ]
        ),
    ),
    "symbol": st.sampled_from(
        ["SPY", "IBM", "BRK.A", " SPY", "SPY ", "Ä", "", " ", "S" * 24, "S" * 25, "A,B"]
    ),
    "price": st.one_of(
        st.integers(0, 10**7).map(str),
        st.decimals(0, 10**6, places=4).map(str),
        st.sampled_from(
            [
                *(
                    "007",
                    ".5",
                    "5.",
                    ".",
                    "1..2",
                    "-0",
                    "-1",
                    "inf",
                    "nan",
                    "1e3",
                    "0x10",
                    "123456789012345678",
                ),
                *("9007199254740993", "0.1234567890123456789", "1234567890123456.75", "\t5", " 5", "²"),
            ]
        ),
    ),
    "size": st.sampled_from(["100", "1", "0", "0.001", "12.50", "", "x", "3 ", "1,000"]),
    "exchange": st.sampled_from(["P", "", "Ä", "\udcff", 'a"b', '"q"']),
    "condition": st.sampled_from(["0", "20000020", "", "FF", "zz", "-1", " 20", "fffffffffffffffff"]),
    "suspicious": st.sampled_from(["0", "1", "", "true", "N", "maybe", " 1 "]),
    "side": st.sampled_from(["B", "s", "", "none", "?", "-1"]),
}
ENDS = st.sampled_from(["\n"] * 9 + ["\r\n", "\r\r\n", "\n\n", "\n \n", ",\n", ",1\n", "\r,\n"])
CLOCKS = st.builds(
    ClockSettings,
    step_us=st.sampled_from([100_000, SECOND]),
    lateness_us=st.sampled_from([0, 3 * SECOND]),
    open_end=st.booleans(),
    every_step=st.booleans(),
    max_ahead_us=st.sampled_from([10 * SECOND, 60 * SECOND]),
)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    names = ["time_ms", "symbol", "price", "size"]
    names += draw(st.lists(st.sampled_from(["exchange", "condition", "suspicious", "side"]), unique=True))
    names = draw(st.permutations(names))
    usual = {**dict.fromkeys(names, "1"), "time_ms": "1381132800464", "symbol": "SPY"}
    text = ",".join(names) + "\n"
    for _ in range(draw(st.integers(0, 25))):
        odd = draw(st.sets(st.sampled_from(names), max_size=2))
        cells = [draw(CELLS[name.removesuffix("_ms")]) if name in odd else usual[name] for name in names]
        text += ",".join(cells) + draw(ENDS)
    if draw(st.booleans()):
        text = text.rstrip("\n")
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + text.encode("utf-8", "surrogateescape")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a line or a few, so that every kind of line is met at their ends."""
    monkeypatch.setattr(trades, "_BLOCK_BYTES", 150)
    monkeypatch.setattr(trades, "_BATCH_ROWS", 3)


ANY_FILE = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150
)


@ANY_FILE
@given(tables(), CLOCKS, st.sampled_from([None, 10_000]), st.sampled_from([None, 1, 7]), st.booleans())
def test_columns_of_any_table_are_its_rows(
    tmp_path: Path,
    small_blocks: None,
    table: bytes,
    clocks: ClockSettings,
    scale: int | None,
    limit: int | None,
    packed: bool,
) -> None:
    path = tmp_path / ("trades.csv.gz" if packed else "trades.csv")
    path.write_bytes(gzip.compress(table) if packed else table)
    agree(path, FilesSettings(clocks=clocks, price_scale=scale, limit=limit, time_format="ms"))


ISO = st.one_of(
    st.datetimes(datetime(1979, 12, 31), datetime(2200, 1, 2)).map(str),
    st.builds(
        "{}-{:02}-{:02}{}{:02}:{:02}:{:02}{}{}".format,
        st.sampled_from([1980, 1999, 2000, 2013, 2100]),
        st.integers(0, 13),
        st.sampled_from([0, 1, 28, 29, 30, 31, 32]),
        st.sampled_from("T t"),
        st.sampled_from([0, 1, 2, 3, 23, 24]),
        st.sampled_from([0, 30, 59, 60]),
        st.sampled_from([0, 59, 60]),
        st.sampled_from(["", ".", ".1", ".123456", ".1234567", ",5", ".5x"]),
        st.sampled_from(["", "", "Z", "z", "+00:00", "-05:30", "+23:59", "+24:00", "+0200", " "]),
    ),
    st.sampled_from(["", "2013-10-07", "20131007T080000", "2013-10-07T08:00", "x"]),
)


@ANY_FILE
@given(st.lists(ISO, max_size=10), st.sampled_from(["UTC", "America/New_York", "Asia/Tokyo"]), st.booleans())
def test_columns_read_iso_times_as_rows_do(
    tmp_path: Path, small_blocks: None, times: list[str], zone: str, parted: bool
) -> None:
    path = tmp_path / "trades.csv"
    head, lines = "time,symbol,price,size\n", [f"{time},SPY,1.5,1\n" for time in times]
    if parted:
        head = "date,symbol,time,price,size\n"
        lines = [f"{time[:10]},SPY,{time[11:]},1.5,1\n" for time in times]
    path.write_text(head + "2013-10-07 08:00:00,SPY,1.5,1\n" * (not parted) + "".join(lines))
    agree(path, FilesSettings(time_zone=zone, time_format="iso"))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_every_unit_and_rounding(tmp_path: Path, unit: str) -> None:
    times = ["1381132800", "1381132800.5", "1381132800123", "1381132800123499", "1381132800123456500"]
    times += ["1381132800123457500", "1381132800.123456", "1381132800.1234567", "4611686018427", "18"]
    path = tmp_path / "trades.csv"
    path.write_text("t,s,price,size\n" + "".join(f"{time},SPY,1,1\n" for time in times))
    agree(path, FilesSettings(time_format=unit, columns=Columns(time="t", symbol="s", size="size")))


def test_other_layouts(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_text("1381132800464|7.5|sell|t-1\n1381132800465|7.25||Ä\nx\n")
    given = FilesSettings(
        header=("when", "paid", "way", "id"),
        columns=Columns(time="when", price="paid", aggressor="way"),
        constants=Constants(symbol="BTC", size=2.0, exchange="X"),
    )
    assert agree(path, given) == 5
    path.write_text("07/10/2013 08:00;A;1;1\n" * 5)
    agree(
        path,
        FilesSettings(
            header=("time", "symbol", "price", "size"), time_format="%d/%m/%Y %H:%M", delimiter=";"
        ),
    )


def test_more_words_than_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_MOST_WORDS", 4)
    path = tmp_path / "trades.csv"
    lines = [f"{1_381_132_800_000 + i},S{i % 7},1,1\n" for i in range(50)]
    path.write_text("time,symbol,price,size\n" + "".join(lines))
    assert agree(path, FilesSettings()) == 52


def test_damage_is_told_after_what_could_be_read(tmp_path: Path) -> None:
    line = "1381132800464,SPY,1674100,100\n"
    packed = gzip.compress(("ts_ms,symbol,price_e4,size\n" + line * 400_000).encode())
    path = tmp_path / "trades.csv.gz"
    path.write_bytes(packed)
    file = TradesFile(path)
    path.write_bytes(packed[: len(packed) * 3 // 4])
    stretches = file.columns()
    assert len(next(stretches).rows) > 0
    with pytest.raises(FileUnreadable, match="damaged"):
        list(stretches)


def test_real_trades(trades: Path) -> None:
    agree(trades, FilesSettings(limit=100_000))
