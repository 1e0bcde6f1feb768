"""Which column holds what: usual names are recognised, anything else is said in `Columns`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from connectors.errors import LayoutError
from connectors.files import values
from connectors.files.settings import TIME_UNITS_PER_SECOND, FilesSettings
from connectors.files.values import Convert
from schemas.records import Quote, Tick

_USUAL = {
    "symbol": "symbol sym ticker instrument sym_root pair product",
    "time": "time ts timestamp datetime date_time date_and_time event_time trade_time ts_event t date",
    "price": "price p px trade_price last last_price",
    "size": "size s qty quantity volume vol amount trade_size trade_volume shares",
    "exchange": "exchange ex exch venue x mic",
    "conditions": "condition conditions cond sale_condition",
    "suspicious": "suspicious suspect",
    "trade_id": "trade_id tradeid id trade_number tid",
    "aggressor": "aggressor side aggressor_side taker_side",
    "bid": "bid bid_price bidprice bid_px bid_px_00 best_bid best_bid_price bp",
    "bid_size": "bid_size bidsize bidsiz bid_sz bid_sz_00 bid_qty bid_quantity bid_volume bid_amount bid_shares"
    " best_bid_size best_bid_qty bs",
    "ask": "ask ask_price askprice ask_px ask_px_00 best_ask best_ask_price ap offer ofr",
    "ask_size": "ask_size asksize asksiz ask_sz ask_sz_00 ask_qty ask_quantity ask_volume ask_amount ask_shares"
    " best_ask_size best_ask_qty as offer_size ofrsiz",
}
_OF_TRADES = (
    *("symbol", "time", "price", "size"),
    *("exchange", "conditions", "suspicious", "trade_id", "aggressor"),
)
_OF_QUOTES = ("symbol", "time", "bid", "ask", "bid_size", "ask_size", "exchange")
_REQUIRED = 4
"""The first so many of them."""
_PRICES = ("price", "bid", "ask")
_SCALE = re.compile(r"_e(\d{1,2})$")
_NOT_A_NUMBER = (ValueError, TypeError, ArithmeticError)
_LONG = 2**63

Cells = Sequence[Any]
Read = Callable[[Cells, int], Tick | Quote]


class Layout:
    """How a row of one file becomes a tick, or a quote: a file with bid and ask and without a price is of quotes.

    ``names`` are the columns in order, ``samples`` the file's first rows: they tell the time format, and
    whether an optional column that was only guessed holds what its name says. ``typed`` are the converters of
    columns whose cells are not text. Raises `LayoutError` with the columns found and what to set.
    """

    def __init__(
        self,
        file: str,
        names: Sequence[str],
        samples: Sequence[Cells],
        settings: FilesSettings,
        session: str,
        typed: Mapping[int, Convert] | None = None,
    ) -> None:
        self._file = file
        self._names = tuple(names)
        self._settings = settings
        self._session = session
        self.holds_quotes = not self._has("price") and self._has("bid") and self._has("ask")
        wanted = _OF_QUOTES if self.holds_quotes else _OF_TRADES
        required = wanted[:_REQUIRED]
        columns = self._columns(wanted, required)
        stamped = columns["time"][0] in (typed or {})
        self.time_format = "timestamp" if stamped else self._time_format(columns["time"], samples)
        self.price_scale = self._price_scale(columns["bid" if self.holds_quotes else "price"])
        self._fields = {
            field: (found, self._converter(field, found, typed or {}))
            for field, found in columns.items()
            if found
        }
        for field in [field for field in self._fields if field not in required]:
            if getattr(settings.columns, field) is None and not self._holds(field, samples):
                del self._fields[field]
        self.read: Read = self._quote_reader() if self.holds_quotes else self._tick_reader()

    @property
    def width(self) -> int:
        """How many columns a row has."""
        return len(self._names)

    @property
    def columns(self) -> dict[str, tuple[int, ...]]:
        """The columns that are read, by field."""
        return {field: found for field, (found, _) in self._fields.items()}

    def describe(self) -> str:
        """What was recognised, for people."""
        told = {field: " ".join(self._names[i] for i in found) for field, (found, _) in self._fields.items()}
        told["time"] += f" ({self.time_format})"
        for field in _PRICES:
            if field in told and (scale := self._price_scale(self._fields[field][0])) != 1:
                told[field] += f" / {scale}"
        return ", ".join(f"{field}: {column}" for field, column in told.items())

    def explain(self, cells: Cells) -> str:
        """Why `read` refused ``cells``."""
        if len(cells) != len(self._names):
            return f"{len(cells)} columns instead of {len(self._names)}"
        for field, ((index, *more), convert) in self._fields.items():
            cell = " ".join(str(cells[i]) for i in (index, *more)) if more else cells[index]
            if cell is None:
                return f"{field}: missing"
            try:
                convert(cell)
            except _NOT_A_NUMBER as error:
                return f"{field}: {error}"
        return "time: outside of 64 bits"

    def _columns(self, wanted: Sequence[str], required: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The columns of every field; an empty tuple where the file has none. Raises `LayoutError`."""
        found = {field: self._find(field) for field in wanted}
        constant = {
            field for field in ("symbol", "size") if getattr(self._settings.constants, field) is not None
        }
        missing = [field for field in required if not found[field] and field not in constant]
        if missing:
            told = [f'columns.{field} = "…"' for field in missing]
            told += [f'constants.{field} = "…"' for field in missing if field in ("symbol", "size")]
            raise LayoutError(self._told(f"no column for {', '.join(missing)}; set {' or '.join(told)}"))
        return {field: () if field in constant else found[field] for field in found}

    def _has(self, field: str) -> bool:
        """Whether there is a column for ``field``; one that the settings name may be that of another file."""
        wanted = getattr(self._settings.columns, field)
        return bool(self._guess(field)) if wanted is None else wanted in self._names

    def _find(self, field: str) -> tuple[int, ...]:
        wanted = getattr(self._settings.columns, field)
        if wanted is None:
            return self._guess(field)
        if wanted == "":
            return ()
        chosen = (wanted,) if isinstance(wanted, str) else wanted
        unknown = [name for name in chosen if name not in self._names]
        if unknown:
            raise LayoutError(
                self._told(f"columns.{field} names {', '.join(map(repr, unknown))}, which is not there")
            )
        return tuple(self._names.index(name) for name in chosen)

    def _guess(self, field: str) -> tuple[int, ...]:
        plain = [_plain(name, field) for name in self._names]
        if field == "time" and "date" in plain and "time" in plain:
            return plain.index("date"), plain.index("time")
        for usual in _USUAL[field].split():
            places = [i for i, name in enumerate(plain) if name == usual]
            if len(places) > 1:
                several = " or ".join(self._names[i] for i in places)
                raise LayoutError(self._told(f"columns.{field} could be {several}: set it"))
            if places:
                return (places[0],)
        return ()

    def _told(self, problem: str) -> str:
        return f"{self._file}: {problem}. Columns found: {', '.join(map(repr, self._names))}"

    def _time_format(self, found: tuple[int, ...], samples: Sequence[Cells]) -> str:
        if self._settings.time_format != "auto":
            return self._settings.time_format
        texts = [
            " ".join(str(cells[i]) for i in found) for cells in samples if len(cells) == len(self._names)
        ]
        guesses = [values.guess_time_format(text) for text in texts if text.strip()]
        if not guesses:
            return "iso"
        guess = max(guesses, key=guesses.count)
        return (guess != "iso" and _unit(self._names[found[0]])) or guess

    def _price_scale(self, found: tuple[int, ...]) -> int:
        if self._settings.price_scale is not None:
            return self._settings.price_scale
        named = _SCALE.search(_words(self._names[found[0]]))
        return 10 ** int(named[1]) if named else 1

    def _converter(self, field: str, found: tuple[int, ...], typed: Mapping[int, Convert]) -> Convert:
        match field:
            case "symbol":
                return values.symbol
            case "time":
                return typed.get(found[0]) or self._time_converter()
            case "price" | "bid" | "ask":
                return values.number(self._price_scale(found))
            case "size" | "bid_size" | "ask_size":
                return values.number(1)
            case "conditions":
                return values.bits(self._settings.condition_base)
            case "suspicious":
                return values.flag
            case "aggressor":
                return values.side
            case _:
                return values.text

    def _time_converter(self) -> Convert:
        zone = ZoneInfo(self._settings.time_zone)
        if self.time_format == "iso":
            return values.iso(zone)
        if self.time_format in TIME_UNITS_PER_SECOND:
            return values.epoch(TIME_UNITS_PER_SECOND[self.time_format])
        return values.pattern(self.time_format, zone)

    def _holds(self, field: str, samples: Sequence[Cells]) -> bool:
        """Whether most of the first rows hold what a guessed optional column should."""
        (index,), convert = self._fields[field]
        balance = 0
        for cells in samples:
            if len(cells) == len(self._names) and cells[index] is not None:
                try:
                    convert(cells[index])
                    balance += 1
                except _NOT_A_NUMBER:
                    balance -= 1
        return balance >= 0

    def _quote_reader(self) -> Read:
        """As `_tick_reader`, for quotes."""
        width, source, session = len(self._names), self._settings.source, self._session
        constants = self._settings.constants
        time_at, to_time = self._fields["time"]
        (bid_at,), to_bid = self._fields["bid"]
        (ask_at,), to_ask = self._fields["ask"]
        symbol_at, exchange_at = self._index("symbol"), self._index("exchange")
        bid_size_at, ask_size_at = self._index("bid_size"), self._index("ask_size")
        symbol, to_text, explain = values.symbol(constants.symbol or "-"), values.text, self.explain

        def read(cells: Cells, sequence: int) -> Quote:
            if len(cells) != width:
                raise ValueError(explain(cells))
            try:
                stamp = cells[time_at[0]] if len(time_at) == 1 else " ".join(str(cells[i]) for i in time_at)
                quote = Quote(
                    symbol=symbol if symbol_at is None else values.symbol(cells[symbol_at]),
                    source=source,
                    session=session,
                    sequence=sequence,
                    event_time=to_time(stamp),
                    bid=to_bid(cells[bid_at]),
                    bid_size=0.0 if bid_size_at is None else float(cells[bid_size_at]),
                    ask=to_ask(cells[ask_at]),
                    ask_size=0.0 if ask_size_at is None else float(cells[ask_size_at]),
                    exchange=constants.exchange if exchange_at is None else to_text(cells[exchange_at] or ""),
                )
            except _NOT_A_NUMBER:
                raise ValueError(explain(cells)) from None
            if not -_LONG <= quote.event_time < _LONG:
                raise ValueError(explain(cells))
            return quote

        return read

    def _tick_reader(self) -> Read:
        """The function of the hot loop: cells and their sequence to a tick, or ValueError."""
        width, source, session = len(self._names), self._settings.source, self._session
        constants = self._settings.constants
        (time_at, *time_more), to_time = self._fields["time"]
        (price_at,), to_price = self._fields["price"]
        symbol_at = self._index("symbol")
        size_at = self._index("size")
        exchange_at, conditions_at = self._index("exchange"), self._index("conditions")
        suspicious_at, trade_id_at = self._index("suspicious"), self._index("trade_id")
        aggressor_at = self._index("aggressor")
        to_bits = values.bits(self._settings.condition_base)
        symbol, size = values.symbol(constants.symbol or "-"), constants.size or 0.0
        to_symbol, to_text, to_flag, to_side = values.symbol, values.text, values.flag, values.side
        explain = self.explain

        def read(cells: Cells, sequence: int) -> Tick:
            if len(cells) != width:
                raise ValueError(explain(cells))
            try:
                if time_more:
                    time = to_time(" ".join([str(cells[time_at]), *(str(cells[i]) for i in time_more)]))
                else:
                    time = to_time(cells[time_at])
                tick = Tick(
                    symbol=symbol if symbol_at is None else to_symbol(cells[symbol_at]),
                    source=source,
                    session=session,
                    sequence=sequence,
                    event_time=time,
                    price=to_price(cells[price_at]),
                    size=size if size_at is None else float(cells[size_at]),
                    exchange=constants.exchange if exchange_at is None else to_text(cells[exchange_at] or ""),
                    conditions=0 if conditions_at is None else to_bits(cells[conditions_at] or 0),
                    suspicious=suspicious_at is not None and to_flag(cells[suspicious_at] or 0),
                    trade_id=None if trade_id_at is None else (to_text(cells[trade_id_at]) or None),
                    aggressor=None if aggressor_at is None else to_side(cells[aggressor_at] or ""),
                )
            except _NOT_A_NUMBER:
                raise ValueError(explain(cells)) from None
            if not -_LONG <= time < _LONG:
                raise ValueError(explain(cells))
            return tick

        return read

    def _index(self, field: str) -> int | None:
        found = self._fields.get(field)
        return None if found is None else found[0][0]


def _words(name: str) -> str:
    return "_".join(re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))


def _plain(name: str, field: str) -> str:
    """A column's name without case, punctuation, and the unit or scale that it ends with."""
    words = _words(name)
    if field in _PRICES:
        return _SCALE.sub("", words)
    if field == "time":
        parts = words.split("_")
        while len(parts) > 1 and (parts[-1] in TIME_UNITS_PER_SECOND or parts[-1] in ("utc", "epoch")):
            parts.pop()
        return "_".join(parts)
    return words


def _unit(name: str) -> str | None:
    """The unit that a column's name tells."""
    return next((part for part in reversed(_words(name).split("_")) if part in TIME_UNITS_PER_SECOND), None)
