"""The `quotes` agent: best bids and asks in; bars of quotes, and clocks, into universe.bars.

A run is folded in two passes, as `streams.symbols` does: the first takes the partition in its order (settings, clocks,
bad input, repeats), the second each symbol's good quotes, each with the partition's clock at its place.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from schemas.records import Quote, Reason, Settings
from schemas.states import QuotesPartition, QuoteState
from streams import versions
from streams.admission import (
    MAX_NAME_CHARS,
    MAX_PRICE,
    MAX_SIZE,
    UNIVERSE_BARS,
    Fault,
    Intake,
    forward,
    is_repeat,
    is_settings,
    name_of,
    stretches,
    symbol_of,
    time_fault,
)
from streams.agent import DEAD_LETTERS, Input, Output, SourcePartition, dead_letter
from streams.bars.kinds import parse_utc
from streams.errors import SettingsMissing
from streams.quoting import bars
from streams.quoting.bars import Event, LateQuote, Window, Windows

INTAKE: Final = Intake(
    "quotes",
    Quote,
    lambda settings: settings.quote_sources,
    lambda settings: [universe.kind for universe in settings.universes],
)


class Quotes:
    """Reads market.quotes, keyed by symbol; records without key are settings and clocks.

    A symbol's quotes make bars of each kind that a universe with it is made of. A quote is refused
    (system.dead_letters, named as a tick is) where its source is not declared, a price, size or time is out of bounds,
    the bid is above the ask, its time is more than ``max_ahead_us`` past its source's clock, or it came after a window
    of its own had closed (LATE; it still counts in those that are open). A repeat, by name, is dropped before its
    content is looked at. After a refused quote the one before stays in force.
    """

    name = "quotes"
    source = "market.quotes"
    writes: tuple[str, ...] = (UNIVERSE_BARS, DEAD_LETTERS)
    partition_type = QuotesPartition
    key_type = QuoteState

    def step(
        self,
        where: SourcePartition,
        partition: QuotesPartition,
        keys: dict[str, QuoteState],
        inputs: Sequence[Input],
    ) -> tuple[list[Output], set[str]]:
        """See `streams.agent.Agent.step`.

        Raises:
            SettingsMissing: a record came before the partition's settings.
            UnknownKind: the settings name a universe whose bar kind does not exist.
        """
        outputs: list[Output] = []
        touched: set[str] = set()
        told = [place for place, item in enumerate(inputs) if is_settings(item)]
        for begin, end in stretches(inputs, told):
            some_outputs, some_touched = self._step(where, partition, keys, inputs[begin:end])
            outputs += some_outputs
            touched |= some_touched
        return outputs, touched

    def _step(
        self,
        where: SourcePartition,
        partition: QuotesPartition,
        keys: dict[str, QuoteState],
        inputs: Sequence[Input],
    ) -> tuple[list[Output], set[str]]:
        """A stretch with settings at its beginning, or none."""
        outputs: list[Output] = []
        touched: set[str] = set()
        before = partition.clock  # settings move it too, where a source is gone
        if inputs and is_settings(inputs[0]):
            watermarks = (state.watermark for state in keys.values())
            letter = INTAKE.settle(where, partition, inputs[0], watermarks)
            outputs += [] if letter is None else [letter]
            inputs = inputs[1:]
        events = _admit(where, partition, keys, inputs, outputs, touched)
        if partition.settings is None:
            return outputs, touched
        if partition.clock > before:
            through = partition.clock - partition.settings.lateness_us
            for symbol, state in keys.items():
                if symbol in events or any(bar.end <= through for bar in state.open_bars):
                    events.setdefault(symbol, []).append(Event(partition.clock))
        windows = _windows(versions.held(partition))
        none = Windows((), partition.settings.lateness_us, partition.settings.version)
        for symbol, run in events.items():
            touched.add(symbol)
            keys[symbol], results = bars.step(keys[symbol], symbol, run, windows.get(symbol, none))
            for result in results:
                if isinstance(result, LateQuote):
                    outputs.append(_late(where, inputs[result.place], result, symbol))
                else:
                    outputs.append(Output(UNIVERSE_BARS, result.universe, result, result.end))
        outputs += forward(where, partition)
        return outputs, touched


@functools.lru_cache(maxsize=64)
def _windows(held: tuple[Settings, ...]) -> dict[str, Windows]:
    """By symbol: the kinds of the universes that hold it, in the order in which the settings name them, by version."""
    each = [(settings, _of(settings)) for settings in held]
    (oldest, first), *later = each
    none = Windows((), oldest.lateness_us, oldest.version)
    return {
        symbol: first.get(symbol, none)._replace(
            later=tuple(
                (settings.effective_from, of.get(symbol, none._replace(settings=settings.version)))
                for settings, of in later
            )
        )
        for symbol in dict.fromkeys(symbol for _, of in each for symbol in of)
    }


def _of(settings: Settings) -> dict[str, Windows]:
    universes: dict[str, dict[str, tuple[str, ...]]] = {}
    for universe in settings.universes:
        for symbol in universe.symbols:
            kinds = universes.setdefault(symbol, {})
            kinds[universe.kind] = (*kinds.get(universe.kind, ()), universe.name)
    return {
        symbol: Windows(
            tuple(Window(kind, parse_utc(kind).size_us, names) for kind, names in kinds.items()),
            settings.lateness_us,
            settings.version,
        )
        for symbol, kinds in universes.items()
    }


def _admit(
    where: SourcePartition,
    partition: QuotesPartition,
    keys: dict[str, QuoteState],
    inputs: Sequence[Input],
    outputs: list[Output],
    touched: set[str],
) -> dict[str, list[Event]]:
    """The first pass: each symbol's good quotes; dead letters to ``outputs``, states with new names to ``keys``."""
    events: dict[str, list[Event]] = {}
    latest, own_clock = INTAKE.bounds(partition)
    held = versions.held(partition)
    for place, item in enumerate(inputs):
        quote = item.value
        if type(quote) is not Quote:
            letter = INTAKE.control(where, partition, item)
            if letter is not None:
                outputs.append(letter)
            latest, own_clock = INTAKE.bounds(partition)
            continue
        settings = partition.settings
        if settings is None:
            raise SettingsMissing(where.topic, where.partition)
        name = name_of(where, item, quote)
        fault = _misplaced(item, quote, latest, held)
        if fault is None:
            state = keys.get(quote.symbol) or QuoteState()
            if quote.sequence is not None:
                if is_repeat(state.names, quote.source, quote.session, quote.sequence):
                    continue
                keys[quote.symbol] = state
                touched.add(quote.symbol)
            fault = _fault(quote, latest[quote.source])
        if fault is not None:
            nameless = fault[0] in (Reason.BAD_KEY, Reason.TOO_LARGE)
            outputs.append(_refused(where, item, fault, None if nameless else name, quote.symbol))
            continue
        keys[quote.symbol] = state
        events.setdefault(quote.symbol, []).append(Event(partition.clock, quote, name, place))
        if quote.source in own_clock:
            INTAKE.strike(partition, quote.source, quote.event_time - settings.lateness_us)
    return events


def _misplaced(item: Input, quote: Quote, latest: dict[str, int], held: tuple[Settings, ...]) -> Fault | None:
    """What is wrong with whose quote it is: key, source, session."""
    symbol = symbol_of(item.key)
    if symbol is None:
        return Reason.BAD_KEY, f"the key is not a symbol: {item.key!r}"
    if quote.symbol != symbol:
        return Reason.BAD_KEY, f"the key is {symbol!r}, the quote's symbol {quote.symbol!r}"
    is_declared = quote.source in latest
    if len(held) > 1:
        is_declared = INTAKE.declares(held, quote.source, quote.event_time)
    if not is_declared:
        return Reason.UNDECLARED_SOURCE, f"source {quote.source!r} is not in the settings"
    if quote.sequence is not None and len(quote.session) > MAX_NAME_CHARS:
        error = f"a session of {len(quote.session)} characters; at most {MAX_NAME_CHARS} name a quote"
        return Reason.TOO_LARGE, error
    return None


def _fault(quote: Quote, latest: int) -> Fault | None:
    """What is wrong with a quote's content, the first of: prices, sizes, time. NaN fails every comparison."""
    for side, price in (("bid", quote.bid), ("ask", quote.ask)):
        if not 0.0 < price <= MAX_PRICE:
            return Reason.BAD_PRICE, f"{side} {price} is not above 0 and at most {MAX_PRICE:g}"
    if quote.bid > quote.ask:
        return Reason.BAD_PRICE, f"crossed: bid {quote.bid} is above ask {quote.ask}"
    for side, size in (("bid", quote.bid_size), ("ask", quote.ask_size)):
        if not 0.0 <= size <= MAX_SIZE:
            return Reason.BAD_SIZE, f"{side} size {size} is not between 0 and {MAX_SIZE:g}"
    return time_fault(quote.event_time, latest)


def _refused(where: SourcePartition, item: Input, fault: Fault, name: str | None, symbol: str) -> Output:
    reason, error = fault
    name = name and f"{symbol}/{name}"  # its own within its symbol only
    return dead_letter(
        where, item, stage="quotes", reason=reason, error=error, name=name, symbol=symbol or None
    )


def _late(where: SourcePartition, item: Input, late: LateQuote, symbol: str) -> Output:
    error = f"windows that end by {late.through} were closed: {', '.join(late.kinds)}"
    return _refused(where, item, (Reason.LATE, error), late.name, symbol)
