# mypy: ignore-errors
"""nautilus_trader's BacktestEngine over trades: 1-minute bars of its own making, and its own EMACross on each symbol.

Run by the peers' Python: `python backtest_nautilus.py TRADES.npz` prints one JSON object. Timed is `engine.run` alone:
the trades are nautilus objects in the engine's list before it begins.
"""

from __future__ import annotations

import json
import sys
import time
from decimal import Decimal
from typing import Any

import numpy as np
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.common.actor import Actor
from nautilus_trader.config import DataEngineConfig, LoggingConfig, RiskEngineConfig
from nautilus_trader.examples.strategies.ema_cross import EMACross, EMACrossConfig
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.data import Bar, BarType, TradeTick
from nautilus_trader.model.enums import AccountType, AggressorSide, OmsType
from nautilus_trader.model.identifiers import InstrumentId, Symbol, TradeId, Venue
from nautilus_trader.model.instruments import Equity
from nautilus_trader.model.objects import Money, Price, Quantity

VENUE = Venue("XNAS")
MINUTE_NS = 60_000_000_000
DIGITS = 4
"""Of prices behind the point."""


class Record(Actor):
    """Keeps the bars."""

    def __init__(self, kinds: list[BarType]) -> None:
        super().__init__()
        self._kinds = kinds
        self.bars: list[Bar] = []

    def on_start(self) -> None:
        for kind in self._kinds:
            self.subscribe_bars(kind)

    def on_bar(self, bar: Bar) -> None:
        self.bars.append(bar)


def main(path: str) -> dict[str, Any]:
    """Load, run, and tell."""
    found = np.load(path)
    symbols = found["symbols"].tolist()
    engine = BacktestEngine(
        BacktestEngineConfig(
            logging=LoggingConfig(bypass_logging=True),
            risk_engine=RiskEngineConfig(bypass=True),
            # [start, end), and no bar where there is no trade: as Headrace's
            data_engine=DataEngineConfig(
                time_bars_interval_type="right-open",
                time_bars_build_with_no_updates=False,
            ),
        )
    )
    engine.add_venue(
        VENUE,
        OmsType.NETTING,
        AccountType.MARGIN,
        [Money(1_000_000, USD)],
        base_currency=USD,
        trade_execution=True,
    )
    ids = [InstrumentId(Symbol(symbol), VENUE) for symbol in symbols]
    kinds = [BarType.from_str(f"{each}-1-MINUTE-LAST-INTERNAL") for each in ids]
    for instrument, kind in zip(ids, kinds, strict=True):
        engine.add_instrument(
            Equity(
                instrument_id=instrument,
                raw_symbol=instrument.symbol,
                currency=USD,
                price_precision=DIGITS,
                price_increment=Price(10**-DIGITS, DIGITS),
                lot_size=Quantity.from_int(1),
                ts_event=0,
                ts_init=0,
            )
        )
        engine.add_strategy(
            EMACross(
                EMACrossConfig(
                    instrument_id=instrument,
                    bar_type=kind,
                    trade_size=Decimal(100),
                    order_id_tag=str(instrument.symbol),
                    subscribe_trade_ticks=False,  # it would only log them
                    request_bars=False,
                )
            )
        )
    record = Record(kinds)
    engine.add_actor(record)
    columns = zip(
        found["symbol"].tolist(),
        found["price"].tolist(),
        found["size"].tolist(),
        found["time_us"].tolist(),
        strict=True,
    )
    engine.add_data(
        [
            TradeTick(
                ids[symbol],
                Price(price, DIGITS),
                Quantity(size, 0),
                AggressorSide.NO_AGGRESSOR,
                TradeId(str(number)),
                time_us * 1000,
                time_us * 1000,
            )
            for number, (symbol, price, size, time_us) in enumerate(columns)
        ]
    )
    began_s, cpu_s = time.perf_counter(), time.process_time()
    engine.run(end=int(found["time_us"][-1]) * 1000 + MINUTE_NS)
    took_s, used_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    bars = [
        (
            str(bar.bar_type.instrument_id.symbol),
            bar.ts_init // MINUTE_NS - 1,  # its start; ts_event is not, behind minutes without a trade
            float(bar.close),
            float(bar.volume),
        )
        for bar in record.bars
    ]
    orders = engine.cache.orders_total_count()
    engine.dispose()
    return {"seconds": took_s, "cpu_seconds": used_s, "bars": bars, "orders": orders}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
