"""A portfolio's risk after a snapshot, and the limits that it has passed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from schemas.records import AlertKind, Exposure, PortfolioSpec, RiskMetrics, Snapshot, TradingState
from streams.risk.parametric import parametric_risk

_PLACES = Decimal("0.000000001")
_LARGEST_FIGURE = 1e18
"""Beyond it a figure does not fit the contract's decimals (28 digits, 9 places)."""


class Breach(NamedTuple):
    """A limit that a portfolio as a whole has passed."""

    limit: str
    """Its name in LimitsSpec."""
    kind: AlertKind
    value: Decimal
    figure: Decimal | None
    """What was measured, in the limit's unit; None where it is beyond all bounds (no equity is left)."""
    message: str


def measure(
    spec: PortfolioSpec,
    snapshot: Snapshot,
    notionals: Mapping[str, float],
    equity: Decimal,
    peak: Decimal,
    day_equity: Decimal,
    state: TradingState,
    epoch: int,
    settings_version: int,
) -> RiskMetrics:
    """The metrics of a portfolio that holds ``notionals`` (signed, currency, by symbol) after ``snapshot``.

    ``peak`` is the highest equity so far and ``day_equity`` that of the UTC day's first snapshot. Each
    symbol of ``notionals`` gets an exposure. The metrics are ``warm`` only where the covariance is and
    covers every symbol held: one without a row has an exposure but no part in VaR. Without positive equity,
    leverage and the weights of what is held are infinite.

    Raises:
        ValueError: the portfolio's confidence is not in (0.5, 1).
    """
    risk = parametric_risk(
        [notionals.get(row.symbol, 0.0) for row in snapshot.rows], snapshot.covariance, spec.confidence
    )
    components = {row.symbol: part for row, part in zip(snapshot.rows, risk.components, strict=True)}
    gross = math.fsum(map(abs, notionals.values()))
    return RiskMetrics(
        portfolio=spec.name,
        epoch=epoch,
        start=snapshot.start,
        end=snapshot.end,
        equity=float(equity),
        gross=gross,
        net=math.fsum(notionals.values()),
        leverage=_over_equity(gross, equity),
        volatility=risk.volatility,
        confidence=spec.confidence,
        value_at_risk=risk.value_at_risk,
        conditional_value_at_risk=risk.conditional_value_at_risk,
        drawdown=float(max(1 - equity / peak, Decimal(0))) if peak > 0 else 0.0,
        daily_loss=float(day_equity - equity),
        warm=snapshot.warm and all(symbol in components for symbol, held in notionals.items() if held),
        state=state,
        exposures=tuple(
            Exposure(
                symbol=symbol,
                notional=notionals[symbol],
                weight=_over_equity(notionals[symbol], equity),
                component_var=components.get(symbol, 0.0),
            )
            for symbol in sorted(notionals)
        ),
        settings=settings_version,
    )


def breaches(spec: PortfolioSpec, metrics: RiskMetrics) -> tuple[Breach, ...]:
    """The limits on drawdown, daily loss and leverage that ``metrics`` has passed, not just reached."""
    limits = spec.limits
    found = []
    for limit, value, measured, kind in (
        ("max_drawdown", limits.max_drawdown, metrics.drawdown, AlertKind.DRAWDOWN),
        ("max_daily_loss", limits.max_daily_loss, metrics.daily_loss, AlertKind.LIMIT),
        ("max_leverage", limits.max_leverage, metrics.leverage, AlertKind.LIMIT),
    ):
        if value is None:
            continue
        figure = _figure(measured)
        if figure is None or figure > value:
            shown = "beyond all bounds" if figure is None else f"{figure.normalize():f}"
            name = limit.removeprefix("max_").replace("_", " ")
            message = f"{limit} {value.normalize():f}: {name} is {shown}"
            found.append(Breach(limit, kind, value, figure, message))
    return tuple(found)


def _over_equity(amount: float, equity: Decimal) -> float:
    if equity > 0:
        return amount / float(equity)
    return math.copysign(math.inf, amount) if amount else 0.0


def _figure(measured: float) -> Decimal | None:
    if measured >= _LARGEST_FIGURE:
        return None
    return Decimal(repr(measured)).quantize(_PLACES)
