"""The `symbols` agent: ticks in, bars and regimes out; and clocks, so that silence closes windows too.

A run is folded in two passes. The first, the gate, goes through the partition in its order: settings, clocks, bad
input, repeats. It leaves each symbol its good ticks, each with the partition's clock at its place. The second takes
the symbols one by one through the stages: bars, then regimes on the bars. Clocks between two ticks of a symbol are
dealt with at the second tick or at the end of the run: what they close comes out in the same order as if each had
been dealt with at its place, because windows close in order of their ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas import decode
from schemas.codec import Encoded
from schemas.records import (
    Bar,
    DeadLetter,
    LateTick,
    Reason,
    Tick,
    UniverseBar,
)
from schemas.states import SymbolsPartition, SymbolState
from streams import gate
from streams.admission import (
    MAX_NAME_CHARS,
    MAX_PRICE,
    MAX_SIZE,
    MAX_TIME_US,
    UNIVERSE_BARS,
    Intake,
    Struck,
    forward,
    is_settings,
    name_of,
    stretches,
    symbol_of,
    time_fault,
)
from streams.agent import DEAD_LETTERS, Input, Output, SourcePartition, dead_letter
from streams.bars import bodies, fold
from streams.bars.state import Outbox
from streams.errors import SettingsMissing
from streams.gate import Verdict
from streams.regimes import rule
from streams.symbol import Plan, Plans, Run, Symbol, working
from streams.ticks import Ticks

BARS: Final = "market.bars"
REGIMES: Final = "market.regimes"
LATE: Final = "market.ticks.late"

INTAKE: Final = Intake("symbols", Tick, lambda settings: settings.sources, lambda settings: settings.kinds)


class Symbols:
    """Reads market.ticks, keyed by symbol; records without key are settings and clocks.

    What is refused goes to system.dead_letters, a tick named by its own name; see `streams.gate` for the reasons.
    """

    name = "symbols"
    source = "market.ticks"
    writes: tuple[str, ...] = (BARS, REGIMES, LATE, UNIVERSE_BARS, DEAD_LETTERS)
    partition_type = SymbolsPartition
    key_type = SymbolState

    def __init__(self, *, encoded: bool = False) -> None:
        """Compiles the kernels: done in the middle of the work, it would cost a worker its membership.

        ``encoded``: bars are put out as Avro bodies, for a worker that would only encode them; else as records.
        """
        decode.prepare()
        gate.prepare()
        fold.prepare()
        bodies.prepare()
        self._encoded = encoded
        self._out = Outbox()
        self._plans = Plans()

    def step(
        self,
        where: SourcePartition,
        partition: SymbolsPartition,
        keys: dict[str, Any],
        inputs: Sequence[Input],
    ) -> tuple[list[Output], set[str]]:
        """See `streams.agent.Agent.step`. The states of ``keys`` are `SymbolState` at first, then `Symbol`.

        Raises:
            SettingsMissing: a record came before the partition's settings.
            UnknownKind: the settings name a bar kind that does not exist.
        """
        ticks = inputs if isinstance(inputs, Ticks) else Ticks.of(inputs)
        told = [index for index, item in ticks.others if is_settings(item)]
        if not any(told):  # as always but where settings change
            return self._step(where, partition, keys, ticks)
        outputs: list[Output] = []
        touched: set[str] = set()
        for begin, end in stretches(ticks, told):
            some_outputs, some_touched = self._step(where, partition, keys, ticks.part(begin, end))
            outputs += some_outputs
            touched |= some_touched
        return outputs, touched

    def _step(
        self,
        where: SourcePartition,
        partition: SymbolsPartition,
        keys: dict[str, Any],
        ticks: Ticks,
    ) -> tuple[list[Output], set[str]]:
        """A stretch with settings at its beginning, or none."""
        outputs: list[Output] = []
        forgotten: set[str] = set()
        before = partition.clock  # settings move it too, where a source is gone
        plan = self._plans.of(where, partition)
        if ticks.others and is_settings(ticks.others[0][1]):
            letter = INTAKE.settle(where, partition, ticks.others[0][1], _watermarks(keys))
            outputs += [] if letter is None else [letter]
            known = () if plan is None else plan.bars.kinds
            plan = self._plans.of(where, partition)
            if plan is not None and not set(known) <= set(plan.bars.kinds):
                # Here, and in the changelog: a kind that comes back begins anew, whoever owns the partition then.
                forgotten = set(keys)
                keys.update((symbol, working(state, plan)) for symbol, state in list(keys.items()))
        clocks = _controls(where, partition, plan, ticks, outputs)
        settings = partition.settings
        if settings is None or plan is None:  # a run without a record
            return outputs, set()
        run = Run(where, ticks, keys, plan)
        passed = run.admit(partition, clocks)
        _refuse(where, ticks, passed, outputs)
        outputs.sort(key=_offset)
        touched = run.note(passed, keys)

        symbols, states, begins = _busy(run, passed)
        if passed.clock > before:
            through = passed.clock - settings.lateness_us
            busy = set(symbols)
            for symbol, state in keys.items():
                if type(state) is not Symbol or state.plan is not plan:
                    state = keys[symbol] = working(state, plan)
                if state.bars.next_end <= through and symbol not in busy:
                    touched.add(symbol)
                    symbols.append(symbol)
                    states.append(state)
                    begins.append(begins[-1])
        if symbols:
            told = np.array(begins)
            fold.step_all(
                [state.bars for state in states], told, passed.events, passed.clock, plan.bars, self._out
            )
            self._emit_late(symbols, states, run, passed, told, outputs)
            self._emit_bars(symbols, states, plan, outputs)
        outputs += forward(where, partition)
        return outputs, touched | forgotten

    def _emit_late(
        self,
        symbols: list[str],
        states: list[Symbol],
        run: Run,
        passed: gate.Passed,
        begins: NDArray[np.int64],
        outputs: list[Output],
    ) -> None:
        out = self._out
        late_ticks = out.late.tolist()
        for number, late in zip(out.late_symbols.tolist() if late_ticks else (), late_ticks, strict=True):
            prefixes = states[number].bars.prefixes
            outputs.append(
                _late(symbols[number], prefixes, run.ticks, passed, begins[number], late, run.plan)
            )

    def _emit_bars(self, symbols: list[str], states: list[Symbol], plan: Plan, outputs: list[Output]) -> None:
        """Closed bars, and what follows from them: regimes, bars of universes."""
        bars = self._out.bars
        if not len(bars):
            return
        numbers = self._out.bar_symbols
        in_force = plan.bars.version_of(bars["start"]).tolist()
        values: Sequence[bytes | tuple[Any, ...]]
        if self._encoded:
            values = bodies.encode(
                bars,
                numbers,
                [symbol.encode() for symbol in symbols],
                [state.bars.prefixes for state in states],
                plan.bars,
            )
        else:
            values = bars.tolist()
        told = zip(numbers.tolist(), bars["kind"].tolist(), bars["end"].tolist(), values, strict=True)
        append = outputs.append
        for place, (number, kind, end, value) in enumerate(told):
            symbol = symbols[number]
            name, terms = plan.bars.kinds[kind], plan.terms[in_force[place]]
            judged, taken = name in terms.judged, terms.universes.get((symbol, name), ())
            if type(value) is bytes:
                append(Output(BARS, symbol, Encoded(body=value), end))
                if not judged and not taken:
                    continue
                value = bars[place].item()
            assert type(value) is tuple
            state = states[number]
            bar = _bar(symbol, state.bars.prefixes, value, plan, int(plan.bars.settings[in_force[place]]))
            if not self._encoded:
                append(Output(BARS, symbol, bar, end))
            regime = None
            if judged:
                _, regime = rule.step(state.regime(bar.kind), bar, terms.regimes)
                append(Output(REGIMES, symbol, regime, end))
            for universe in taken:
                append(
                    Output(
                        UNIVERSE_BARS, universe, UniverseBar(universe=universe, bar=bar, regime=regime), end
                    )
                )


def _busy(run: Run, passed: gate.Passed) -> tuple[list[str], list[Symbol], list[int]]:
    """The run's symbols that have events, their states, and where the events of each begin, and those of all end."""
    has = np.flatnonzero(np.diff(passed.begins)).tolist()
    begins = passed.begins.tolist()
    return (
        [run.symbols[number] for number in has],
        [run.states[number] for number in has],
        [*[begins[number] for number in has], begins[-1]],
    )


def _refuse(where: SourcePartition, ticks: Ticks, passed: gate.Passed, outputs: list[Output]) -> None:
    """Bad ticks to the dead letters."""
    for index in np.flatnonzero(passed.verdicts >= Verdict.UNDECLARED).tolist():
        item = ticks[index]
        tick = item.value
        assert isinstance(tick, Tick)
        verdict, limit = Verdict(passed.verdicts[index]), int(passed.marks[index])
        reason, error = _fault(tick, verdict, limit)
        name = None if verdict is Verdict.LONG_SESSION else name_of(where, item, tick)
        outputs.append(_refused(where, item, reason, error, tick, name))


def _offset(letter: Output) -> int:
    assert isinstance(letter.value, DeadLetter)
    return letter.value.offset


def _watermarks(keys: dict[str, Any]) -> Iterator[int]:
    """The latest time of a tick of each symbol."""
    for state in keys.values():
        yield int(state.bars.head[0]["watermark"]) if type(state) is Symbol else state.watermark


def _controls(
    where: SourcePartition,
    partition: SymbolsPartition,
    plan: Plan | None,
    ticks: Ticks,
    outputs: list[Output],
) -> NDArray[Any]:
    """The clocks of a stretch, in order; ticks without a key that fits, and what is no tick, are refused."""
    if plan is None:
        if len(ticks):
            raise SettingsMissing(where.topic, where.partition)
        return np.empty(0, gate.CLOCK)
    others: list[tuple[int, Input]] = []
    for index, item in ticks.others:
        tick = item.value
        if is_settings(item):
            continue
        if not isinstance(tick, Tick):
            others.append((index, item))
            continue
        symbol = symbol_of(item.key)
        reason = Reason.BAD_KEY
        if symbol is None:
            error = f"the key is not a symbol: {item.key!r}"
        elif symbol != tick.symbol:
            error = f"the key is {symbol!r}, the tick's symbol {tick.symbol!r}"
        else:
            reason, error = Reason.UNREADABLE, f"the sequence {tick.sequence} is kept for ticks without one"
        outputs.append(_refused(where, item, reason, error, tick, None))
    columns = _struck(plan, ticks)
    if columns is None and ticks.clocks is not None:
        others += [(place, ticks[place]) for place in ticks.clocks.places.tolist()]
        others.sort(key=lambda each: each[0])
    told_clocks: list[tuple[int, Struck]] = []
    for index, item in others:
        told = INTAKE.read(where, partition, item)
        if isinstance(told, Struck):
            told_clocks.append((index, told))
        else:
            outputs.append(told)
    if not told_clocks:
        return np.empty(0, gate.CLOCK) if columns is None else columns
    numbers = plan.source_numbers
    single = np.array([(index, numbers[source], time) for index, (source, time) in told_clocks], gate.CLOCK)
    if columns is None:
        return single
    return np.sort(np.concatenate((columns, single)), order="place", kind="stable")


def _struck(plan: Plan, ticks: Ticks) -> NDArray[Any] | None:
    """The run's columns of clocks, where there are any and all are good; otherwise each is looked at on its own."""
    clocks = ticks.clocks
    number = None if clocks is None else plan.source_numbers.get(clocks.source)
    if clocks is None or number is None or not plan.declared[-1, number]:
        return None
    if not ((clocks.times > 0) & (clocks.times <= MAX_TIME_US)).all():
        return None
    struck = np.empty(len(clocks.places), gate.CLOCK)
    struck["place"], struck["source"], struck["time"] = clocks.places, number, clocks.times
    return struck


def _refused(
    where: SourcePartition, item: Input, reason: Reason, error: str, tick: Tick, name: str | None
) -> Output:
    symbol, name = tick.symbol, name and f"{tick.symbol}/{name}"  # its own within its symbol only
    return dead_letter(
        where, item, stage=Symbols.name, reason=reason, error=error, name=name, symbol=symbol or None
    )


def _fault(tick: Tick, verdict: Verdict, limit: int) -> tuple[Reason, str]:
    """What is wrong with a tick that was refused; of several faults the first of: price, size, time."""
    if verdict is Verdict.UNDECLARED:
        return Reason.UNDECLARED_SOURCE, f"source {tick.source!r} is not in the settings"
    if verdict is Verdict.LONG_SESSION:
        error = f"a session of {len(tick.session)} characters; at most {MAX_NAME_CHARS} name a tick"
        return Reason.TOO_LARGE, error
    if not 0.0 < tick.price <= MAX_PRICE:
        return Reason.BAD_PRICE, f"price {tick.price} is not above 0 and at most {MAX_PRICE:g}"
    if not 0.0 <= tick.size <= MAX_SIZE:
        return Reason.BAD_SIZE, f"size {tick.size} is not between 0 and {MAX_SIZE:g}"
    fault = time_fault(tick.event_time, limit)
    assert fault is not None
    return fault


def _bar(symbol: str, prefixes: Sequence[str], closed: tuple[Any, ...], plan: Plan, settings: int) -> Bar:
    """A row of the outbox as a record, under that version of the settings."""
    (kind, start, end, ordinal, opening, high, low, close, volume, vwap, count, bought, sold, *names) = closed
    first_stream, first_number, last_stream, last_number = names
    return Bar(
        symbol=symbol,
        kind=plan.bars.kinds[kind],
        start=start,
        end=end,
        ordinal=ordinal,
        open=opening,
        high=high,
        low=low,
        close=close,
        volume=volume,
        vwap=vwap,
        count=count,
        buy_volume=bought,
        sell_volume=sold,
        first_tick=prefixes[first_stream] + str(first_number),
        last_tick=prefixes[last_stream] + str(last_number),
        settings=settings,
    )


def _late(
    symbol: str,
    prefixes: Sequence[str],
    ticks: Ticks,
    passed: gate.Passed,
    first: int,
    late: tuple[Any, ...],
    plan: Plan,
) -> Output:
    """A late tick with the kinds that had closed."""
    index, mask, mark, by_clock = late
    event = passed.events[first + index]
    tick = ticks[int(passed.places[first + index])].value
    assert isinstance(tick, Tick)
    record = LateTick(
        symbol=symbol,
        name=prefixes[event["stream"]] + str(event["number"]),
        tick=tick,
        kinds=tuple(kind for bit, kind in enumerate(plan.bars.kinds) if mask >> bit & 1),
        mark=mark,
        reason="closed by the partition's clock" if by_clock else "closed by a later tick of the symbol",
    )
    return Output(LATE, symbol, record, tick.event_time)
