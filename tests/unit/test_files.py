"""Trades out of CSV and Parquet files: exact values, lines, bad rows, guessed layouts."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.errors import FileUnreadable, LayoutError
from connectors.files import Columns, Constants, FilesSettings, TradesFile, values
from connectors.messages import BEGINNING, BadRow, Position
from schemas.records import Quote, Side, Tick

HEAD = "ts_ms_utc,symbol,price_e4,size,exchange,condition,suspicious\n"
ROW = "1381132800464,SPY,1674100,100,P,20002000,0\n"
TIME = 1_381_132_800_464_000


def write(folder: Path, text: str | bytes, name: str = "trades.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(path: Path, settings: FilesSettings | None = None) -> list[Tick | BadRow]:
    return list(TradesFile(path, settings or FilesSettings()).rows())


def one(path: Path, settings: FilesSettings | None = None) -> Tick:
    (row,) = read(path, settings)
    assert isinstance(row, Tick), row
    return row


def test_a_row_becomes_a_tick_named_by_content_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + ROW)
    tick = one(path)
    assert tick == Tick(
        symbol="SPY",
        source="files",
        session=tick.session,
        sequence=2,
        event_time=TIME,
        price=167.41,
        size=100.0,
        exchange="P",
        conditions=0x20002000,
        suspicious=False,
    )
    moved = write(tmp_path, HEAD + ROW, "elsewhere.csv")
    assert one(moved) == tick
    assert one(write(tmp_path, HEAD + ROW + "\n")).session != tick.session


def test_bad_rows_name_their_line_and_cost_no_neighbour(tmp_path: Path) -> None:
    good = ROW.replace("SPY", "IBM")
    bad = [
        ROW.replace("1674100", "cheap"),
        ROW.replace("SPY", " "),
        "1,2\n",
        ROW.replace("1381132800464", "yesterday"),
        ROW.replace("100,P", ",P"),
        ROW.replace("20002000", "xyz"),
        'x"' + ROW,
        ROW.replace("SPY", "S" * 70_000),
        ROW.replace("1381132800464", "9" * 30),
    ]
    rows = read(write(tmp_path, HEAD + ROW + "".join(line + good for line in bad)))
    assert [row.sequence for row in rows if isinstance(row, Tick)] == [2, *range(4, 4 + 2 * len(bad), 2)]
    found = [row for row in rows if isinstance(row, BadRow)]
    assert [row.line for row in found] == list(range(3, 3 + 2 * len(bad), 2))
    assert [row.text for row in found] == [line.rstrip("\n").encode() for line in bad]
    starts = ["price: ", "symbol: ", "2 columns instead of 7", "time: ", "size: ", "conditions: "]
    for row, start in zip(found, starts, strict=False):
        assert row.error.startswith(start)


def test_a_row_that_is_no_text_is_kept_byte_for_byte(tmp_path: Path) -> None:
    raw = ROW.encode().replace(b"SPY", b"S\xffY")
    row = read(write(tmp_path, HEAD.encode() + raw + ROW.encode()))[0]
    assert isinstance(row, BadRow)
    assert row.text == raw.rstrip(b"\n")


def test_numbers_that_break_market_rules_are_left_to_the_pipeline(tmp_path: Path) -> None:
    rows = read(write(tmp_path, HEAD + ROW.replace("1674100", "nan") + ROW.replace(",100,", ",-5,")))
    assert all(isinstance(row, Tick) for row in rows)
    assert rows[1].size == -5.0  # type: ignore[union-attr]


def test_blank_lines_are_no_rows_but_count(tmp_path: Path) -> None:
    rows = read(write(tmp_path, HEAD + "\n" + ROW + "\r\n" + ROW))
    assert [row.sequence for row in rows] == [3, 5]  # type: ignore[union-attr]


def test_quotes_carriage_returns_byte_order_mark_and_other_delimiters(tmp_path: Path) -> None:
    text = '\ufeffTime;Symbol;Price;Size\r\n"2013-10-07T08:00:00.464Z";"BRK;A";167.41;100\r\n'
    tick = one(write(tmp_path, text))
    assert (tick.symbol, tick.event_time, tick.price) == ("BRK;A", TIME, 167.41)


def test_compressed_and_damaged(tmp_path: Path) -> None:
    packed = gzip.compress((HEAD + ROW * 5000).encode())
    assert len(read(write(tmp_path, packed, "trades.csv.gz"))) == 5000
    reading = TradesFile(write(tmp_path, packed, "trades.csv.gz"))
    write(tmp_path, packed[: len(packed) // 2], "trades.csv.gz")
    with pytest.raises(FileUnreadable, match="damaged"):
        list(reading.rows())


@pytest.mark.parametrize(
    ("column", "cell", "settings"),
    [
        ("ts", "1381132800464", {}),
        ("ts", "1381132800.464", {}),
        ("ts", "1381132800464000", {}),
        ("ts", "1381132800464000000", {}),
        ("timestamp_ns", "1381132800464000000", {}),
        ("time", "2013-10-07 08:00:00.464", {}),
        ("datetime", "2013-10-07T08:00:00.464000123Z", {}),
        ("time", "2013-10-07T10:00:00.464+02:00", {}),
        ("time", "2013-10-07 04:00:00.464", {"time_zone": "America/New_York"}),
        ("time", "07/10/2013 08:00:00.464", {"time_format": "%d/%m/%Y %H:%M:%S.%f"}),
        ("date,time", "2013-10-07,08:00:00.464", {}),
    ],
)
def test_time_formats(tmp_path: Path, column: str, cell: str, settings: dict[str, str]) -> None:
    path = write(tmp_path, f"symbol,price,size,{column}\nSPY,1,1,{cell}\n")
    assert one(path, FilesSettings(**settings)).event_time == TIME


def test_summer_time_is_followed(tmp_path: Path) -> None:
    text = "symbol,price,size,time\nA,1,1,2024-03-08 09:30:00\nA,1,1,2024-03-11 09:30:00\n"
    rows = read(write(tmp_path, text), FilesSettings(time_zone="America/New_York"))
    hours = [datetime.fromtimestamp(row.event_time / 1e6, UTC).hour for row in rows if isinstance(row, Tick)]
    assert hours == [14, 13]


@given(st.integers(-(10**15), 10**15), st.integers(0, 9))
def test_scaled_prices_are_rounded_once(units: int, digits: int) -> None:
    scale = 10**digits
    nearest = float(Fraction(units, scale))
    convert = values.number(scale)
    assert convert(str(units)) == nearest
    assert convert(units) == nearest
    assert values.number(1)(str(Decimal(units).scaleb(-digits))) == nearest


@given(st.integers(-(10**14), 4 * 10**15))
def test_times_are_exact_in_every_unit(us: int) -> None:
    assert values.epoch(1_000_000)(str(us)) == us
    assert values.epoch(1_000_000_000)(str(us * 1000)) == us
    assert values.epoch(1)(str(Decimal(us).scaleb(-6))) == us
    assert values.epoch(1000)(str(Decimal(us).scaleb(-3))) == us


def test_other_names_constants_sides_and_no_header(tmp_path: Path) -> None:
    path = write(tmp_path, "1381132800464|7.5|sell|t-1\n")
    settings = FilesSettings(
        header=("when", "paid", "way", "id"),
        columns=Columns(time="when", price="paid", aggressor="way"),
        constants=Constants(symbol="BTC", size=2.0, exchange="X"),
    )
    tick = one(path, settings)
    assert (tick.symbol, tick.size, tick.exchange) == ("BTC", 2.0, "X")
    assert (tick.price, tick.aggressor, tick.trade_id, tick.sequence) == (7.5, Side.SELL, "t-1", 1)


def test_a_guessed_column_that_holds_something_else_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "ts,symbol,price,size,conditions\n1381132800464,A,1,1,@TI\n")
    assert one(path).conditions == 0
    with pytest.raises(AssertionError, match="conditions: "):
        one(path, FilesSettings(columns=Columns(conditions="conditions")))


@pytest.mark.parametrize(
    ("head", "columns", "said"),
    [
        ("when,symbol,price,size", {}, r"no column for time; set columns.time = .* 'when', 'symbol'"),
        ("ts,price", {}, r"no column for symbol, size; set .*constants.symbol"),
        ("ts_ms,ts_ns,symbol,price,size", {}, "columns.time could be ts_ms or ts_ns"),
        ("ts,symbol,price,size", {"price": "last"}, "columns.price names 'last', which is not there"),
    ],
)
def test_a_layout_that_cannot_be_told_says_what_to_set(
    tmp_path: Path, head: str, columns: dict[str, str], said: str
) -> None:
    path = write(tmp_path, head + "\n")
    with pytest.raises(LayoutError, match=said):
        TradesFile(path, FilesSettings(columns=Columns(**columns)))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="No such file"):
        TradesFile(tmp_path / "nowhere.csv")
    with pytest.raises(LayoutError, match="empty"):
        TradesFile(write(tmp_path, ""))
    with pytest.raises(FileUnreadable, match="no Parquet file"):
        TradesFile(write(tmp_path, "nonsense", "trades.parquet"))
    with pytest.raises(ValidationError, match="no time zone"):
        FilesSettings(time_zone="Mars/Olympus")
    with pytest.raises(ValidationError, match="strptime"):
        FilesSettings(time_format="minutes")


def test_parquet_says_what_csv_says(tmp_path: Path) -> None:
    table = pa.table(
        {
            "timestamp": pa.array([TIME * 1000, TIME * 1000 + 1999, None], pa.timestamp("ns", "UTC")),
            "symbol": pa.array(["SPY", "IBM", "IBM"]).dictionary_encode(),
            "price": pa.array(
                [Decimal("167.4100"), Decimal("184.0300"), Decimal("1.0000")], pa.decimal128(12, 4)
            ),
            "size": pa.array([100, 200, 300], pa.int32()),
            "condition": pa.array([0x20002000, None, 1]),
            "suspicious": pa.array([False, True, None]),
            "side": pa.array(["B", None, "S"]),
        }
    )
    path = tmp_path / "trades.parquet"
    pq.write_table(table, path)
    first, second, third = read(path)
    assert isinstance(first, Tick)
    assert (first.symbol, first.event_time, first.price, first.size) == ("SPY", TIME, 167.41, 100.0)
    assert (first.conditions, first.suspicious, first.aggressor) == (0x20002000, False, Side.BUY)
    assert isinstance(second, Tick)
    assert (second.event_time, second.sequence, second.suspicious, second.aggressor) == (
        TIME + 1,
        2,
        True,
        None,
    )
    assert isinstance(third, BadRow)
    assert (third.line, third.error) == (3, "time: missing")
    assert b'"symbol": "IBM"' in third.text


def test_parquet_times_without_a_zone_are_in_that_of_the_settings(tmp_path: Path) -> None:
    times = pa.array([datetime(2013, 10, 7, 4, 0, 0, 464000)], pa.timestamp("us"))
    pq.write_table(
        pa.table({"time": times, "symbol": ["A"], "price": [1.5], "size": [1]}), tmp_path / "a.parquet"
    )
    assert one(tmp_path / "a.parquet", FilesSettings(time_zone="America/New_York")).event_time == TIME


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("limit", [None, 1, 20_000, 99_999])
def test_reading_on_from_any_row(tmp_path: Path, form: str, limit: int | None) -> None:
    count = 40_000
    if form == "csv":
        path = write(tmp_path, HEAD + ROW * count)
    else:
        path = tmp_path / "trades.parquet"
        table = {"ts": [TIME] * count, "symbol": ["A"] * count, "price": [1.0] * count, "size": [1.0] * count}
        pq.write_table(pa.table(table), path)
    file = TradesFile(path, FilesSettings(limit=limit))
    whole = list(file.rows())
    assert len(whole) == min(limit or count, count)
    for done in (0, 1, 16_384, 19_999, 39_999, 40_001):
        assert list(file.rows(after=done)) == [row for row in whole if row.sequence > done]  # type: ignore[union-attr,operator]


def test_a_finished_file_has_nothing_to_say(tmp_path: Path) -> None:
    file = TradesFile(write(tmp_path, HEAD + ROW))
    assert len(list(file.messages(BEGINNING))) == 3
    assert file.fraction() == 1.0
    assert list(file.messages(Position(2, TIME, finished=True))) == []


QUOTES_HEAD = "time,ticker,bid_e2,bid_size,ask_e2,ask_size,exchange\n"


def test_a_file_with_bid_and_ask_and_no_price_is_of_quotes(tmp_path: Path) -> None:
    bad = ["1,2", "{t},SPY,16741,3,,4,P", "{t},SPY,high,3,16743,4,P", "soon,SPY,16741,3,16743,4,P"]
    lines = ["{t},SPY,16741,3,16743,4,P", *bad, "{t},IBM,18400,0,18400.5,1,N"]
    text = QUOTES_HEAD + "\n".join(lines).format(t=TIME // 1000) + "\n"
    file = TradesFile(write(tmp_path, text))
    assert file.topics == ("market.quotes",)
    assert "bid: bid_e2 / 100" in file.layout.describe()
    rows = list(file.rows())
    assert rows[0] == Quote(
        symbol="SPY",
        source="files",
        session=file.session,
        sequence=2,
        event_time=TIME,
        bid=167.41,
        bid_size=3.0,
        ask=167.43,
        ask_size=4.0,
        exchange="P",
    )
    assert [(row.line, row.error.split(":")[0]) for row in rows[1:-1] if isinstance(row, BadRow)] == [
        (3, "2 columns instead of 7"),
        (4, "ask"),
        (5, "bid"),
        (6, "time"),
    ]
    assert isinstance(rows[-1], Quote)
    assert (rows[-1].ask, rows[-1].bid_size) == (184.005, 0.0)
    messages = list(file.messages())
    assert {(message.topic, type(message.record).__name__) for message in messages} == {
        ("market.quotes", "Quote"),
        ("market.quotes", "NoneType"),
        ("market.ticks", "DeadLetter"),
    }


@pytest.mark.parametrize(
    "head",
    [
        "ts,symbol,bid_price,bid_qty,ask_price,ask_qty",
        "TIME,SYM_ROOT,BID,BIDSIZ,ASK,ASKSIZ",
        "ts_event,symbol,bid_px_00,bid_sz_00,ask_px_00,ask_sz_00",
        "timestamp,pair,Bid,BidVolume,Ask,AskVolume",
        "t,S,bp,bs,ap,as".replace("S", "sym"),
    ],
)
def test_usual_names_of_quotes(tmp_path: Path, head: str) -> None:
    row = read(write(tmp_path, f"{head}\n{TIME},A,1.5,2,1.75,3\n"))[0]
    assert isinstance(row, Quote)
    assert (row.symbol, row.event_time) == ("A", TIME)
    assert (row.bid, row.bid_size, row.ask, row.ask_size) == (1.5, 2.0, 1.75, 3.0)


def test_quotes_without_sizes_in_parquet_and_columns_named_for_another_file(tmp_path: Path) -> None:
    table = {"when": [TIME], "b": [1.5], "a": [1.75]}
    pq.write_table(pa.table(table), tmp_path / "quotes.parquet")
    columns = Columns(time="when", bid="b", ask="a", price="px", size="shares")
    settings = FilesSettings(columns=columns, constants=Constants(symbol="A", exchange="X"))
    (row,) = read(tmp_path / "quotes.parquet", settings)
    assert isinstance(row, Quote)
    assert (row.symbol, row.exchange, row.bid, row.ask) == ("A", "X", 1.5, 1.75)
    assert (row.bid_size, row.ask_size) == (0.0, 0.0)


def test_a_price_makes_it_a_file_of_trades_unless_it_is_said_to_be_none(tmp_path: Path) -> None:
    path = write(tmp_path, f"ts,symbol,price,size,bid,ask\n{TIME},A,1.6,9,1.5,1.75\n")
    assert isinstance(read(path)[0], Tick)
    assert isinstance(read(path, FilesSettings(columns=Columns(price="")))[0], Quote)


def test_real_trades_are_read_exactly(trades: Path) -> None:
    file = TradesFile(trades)
    assert file.layout.time_format == "ms"
    with gzip.open(trades, "rt") as lines:
        next(lines)
        for row, line in zip(islice(file.rows(), 50_000), lines, strict=False):
            time, symbol, price, size, exchange, condition, suspicious = line.rstrip("\n").split(",")
            assert isinstance(row, Tick)
            assert (row.event_time, row.symbol, row.exchange) == (int(time) * 1000, symbol, exchange)
            assert (row.price, row.size) == (float(Decimal(price) / 10_000), float(size))
            assert (row.conditions, row.suspicious) == (int(condition, 16), suspicious == "1")
