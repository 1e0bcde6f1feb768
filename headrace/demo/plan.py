"""What the demo runs: settings of its own, in a file that every process, and afterwards the user, reads."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from connectors.files import TradesFile
from connectors.simulator.settings import SimulatorSettings
from headrace import toml
from headrace.backtest import symbols_of
from headrace.fleet import headrace_argv
from headrace.pipeline import (
    FitsPart,
    LimitsPart,
    MarketPart,
    PipelineSettings,
    PortfolioPart,
    RegimesPart,
    SourcePart,
    StrategyPart,
    UniversePart,
)
from headrace.settings import Settings
from headrace.stack.processes import write_atomically

SETTINGS_FILE = "headrace.toml"
LOOKBACK_BARS, SLOW_BARS, WARM_UP_BARS = 20, 40, 15
"""Shorter memories than the defaults, so that the first order does not take hours of simulated time."""

FITS = FitsPart(every="30m", lag="1m", window=240, minimum=45, waits=True)
"""Of one universe, so that the other shows what there is without. The ticks come faster than time goes: so it waits."""
_STRATEGIES = (
    StrategyPart(name="momentum", uses="momentum", parameters={"lookback": LOOKBACK_BARS}),
    StrategyPart(name="reversion", uses="reversion", parameters={"gross": 0.8}),
)


class Choices(NamedTuple):
    """What the user may choose; None: as is usual for a simulation or a file."""

    symbols: int = 20
    minutes: int = 390
    ticks_per_minute: float = 45.0
    seed: int = 7
    rate: float | None = None
    speed: float | None = None
    trades: Path | None = None


SHORT_MINUTES, SHORT_TICKS_PER_MINUTE = 75, 40.0
USUAL_RATE = 4_000.0
"""Ticks a second, where nothing is said: a day in less than two minutes."""


class Plan(NamedTuple):
    """A demo to run: its settings, the command that sends the ticks, and what it is in words."""

    settings: Settings
    feed: list[str]
    title: str
    simulated: bool


def make(loaded: Settings, namespace: str, chosen: Choices) -> Plan:
    """Raises ConnectorError where the file cannot be read, `NothingToTrade` where it holds no trade."""
    paced = ["--rate", f"{chosen.rate:g}"] if chosen.rate else []
    if chosen.speed:
        paced += ["--speed", f"{chosen.speed:g}"]
    if chosen.trades is not None:
        file = TradesFile(chosen.trades, loaded.files)
        symbols = symbols_of(file)
        changes = {"namespace": namespace, "pipeline": _pipeline(file.source, symbols)}
        feed = headrace_argv("ingest", "files", str(chosen.trades.resolve()), *paced)
        title = f"{len(symbols)} symbols from {chosen.trades.name}"
        return Plan(loaded.model_copy(update=changes), feed, title, simulated=False)
    session = SimulatorSettings(
        seed=chosen.seed,
        symbols=tuple(f"SIM{i:02d}" for i in range(1, chosen.symbols + 1)),
        minutes=chosen.minutes,
        ticks_per_minute=chosen.ticks_per_minute,
    )
    changes = {
        "namespace": namespace,
        "simulator": session,
        "pipeline": _pipeline(session.source, session.symbols),
    }
    feed = headrace_argv("ingest", "simulator", *(paced or ("--rate", f"{USUAL_RATE:g}")))
    title = f"{chosen.symbols} simulated symbols, {chosen.minutes} minutes of a market day"
    return Plan(loaded.model_copy(update=changes), feed, title, simulated=True)


def write(settings: Settings, folder: Path) -> Path:
    """The settings that are not defaults as a file, for the owner's eyes: addresses may hold passwords."""
    path = folder / SETTINGS_FILE
    told = settings.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    write_atomically(path, "# Written by `headrace demo`.\n" + toml.dumps(told))
    return path


def _pipeline(source: str, symbols: tuple[str, ...]) -> PipelineSettings:
    """Two universes and two portfolios, each pair on partitions of its own; limits that deny a few orders."""
    shared = {
        "max_leverage": Decimal("1.5"),
        "max_daily_loss": Decimal("20000"),
        "max_drawdown": Decimal("0.1"),
    }
    share = Decimal(1_000_000) / len(symbols)
    broad = LimitsPart(max_order_notional=_hundreds(share * Decimal("2.1")), max_orders=12, **shared)
    narrow = LimitsPart(max_order_notional=_hundreds(share * Decimal("3.8")), max_orders=12, **shared)
    return PipelineSettings(
        market=MarketPart(sources=(SourcePart(name=source),), regimes=RegimesPart(slow_period=SLOW_BARS)),
        universes=(
            UniversePart(name="broad", symbols=symbols, warm_up=WARM_UP_BARS, fits=FITS),
            UniversePart(name="narrow", symbols=symbols[::2], warm_up=WARM_UP_BARS),
        ),
        portfolios=(
            PortfolioPart(name="north", universe="broad", limits=broad, strategies=_STRATEGIES),
            PortfolioPart(name="south", universe="narrow", limits=narrow, strategies=_STRATEGIES),
        ),
    )


def _hundreds(amount: Decimal) -> Decimal:
    return max(amount // 100, Decimal(1)) * 100
