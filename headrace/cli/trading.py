"""`headrace halt`, `reduce` and `resume`: the trading state of portfolios."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace import commands, settings
from headrace.settings import SettingsError
from schemas.records import TradingState
from streams.runtime import registry

Portfolios = Annotated[
    list[str] | None,
    typer.Argument(help="Names of portfolios; none: all in the settings.", show_default=False),
]
Reason = Annotated[str, typer.Option("--reason", "-r", help="In words; stands in risk.alerts.")]


def halt(portfolios: Portfolios = None, reason: Reason = "") -> None:
    """Stop trading at once: resting orders are cancelled, every new order is denied.

    Examples:

        headrace halt

        headrace halt alpha --reason "fat finger"
    """
    _tell(portfolios, TradingState.HALTED, reason)


def reduce(portfolios: Portfolios = None, reason: Reason = "") -> None:
    """Only let orders through that make a position smaller.

    Example:

        headrace reduce alpha
    """
    _tell(portfolios, TradingState.REDUCING, reason)


def resume(portfolios: Portfolios = None, reason: Reason = "") -> None:
    """Trade again; the drawdown is measured from the present equity on.

    Example:

        headrace resume alpha --reason "checked with the desk"
    """
    _tell(portfolios, TradingState.ACTIVE, reason)


def _tell(names: list[str] | None, state: TradingState, reason: str) -> None:
    loaded = settings.load()
    known = [portfolio.name for portfolio in loaded.pipeline.portfolios]
    unknown = sorted(set(names or ()) - set(known))
    if unknown or not known:
        raise SettingsError(
            f"no portfolio {', '.join(unknown)} in the settings; there are: {', '.join(known) or 'none'}"
        )
    found = loaded.endpoints()
    codec = registry.codec(found.registry, loaded.namespace, attempts=3)
    for name in names or known:
        commands.send(found.kafka, loaded.namespace, codec, name, state, reason=reason)
        typer.echo(f"{name}: told {state}")
