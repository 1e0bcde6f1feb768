"""The dataflow on one page: the agents in the order in which data flows, and the stages that each chains.

    market.ticks ───▶ symbols ─┬▶ universe.bars ──▶ universes ──▶ portfolio.events ──▶ portfolios ──▶ results
    market.quotes ──▶ quotes ──┘      │  ▲
                                      ▼  │ fits
                                     fitter

| agent      | input topic      | key       | its chain of stages                                |
|------------|------------------|-----------|----------------------------------------------------|
| symbols    | market.ticks     | symbol    | bars ▶ regimes                                     |
| quotes     | market.quotes    | symbol    | quoting                                            |
| fitter     | universe.bars    | universe  | barrier ▶ fits of hmm and correlations             |
| universes  | universe.bars    | universe  | barrier ▶ hmm ▶ correlations                       |
| portfolios | portfolio.events | portfolio | venue ▶ positions ▶ risk ▶ signals ▶ pretrade      |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from schemas.records import Settings
from streams.agent import Agent
from streams.portfolios import Portfolios
from streams.quotes import Quotes
from streams.universes import Universes


def _symbols(encoded: bool) -> Agent[Any, Any]:
    from streams.symbols import Symbols  # the others need not wait for its kernels and their compiler

    return Symbols(encoded=encoded)


def _fitter(_: bool) -> Agent[Any, Any]:
    from streams.fitter import Fitter  # nor for arch, scipy and hmmlearn

    return Fitter()


_AGENTS: Final[dict[str, Callable[[bool], Agent[Any, Any]]]] = {
    "symbols": _symbols,
    "quotes": lambda _: Quotes(),
    "fitter": _fitter,
    "universes": lambda _: Universes(),
    "portfolios": lambda _: Portfolios(),
}
"""Upstream first; the fitter before `universes`, whose snapshots may wait for its fits."""


def agents() -> tuple[Agent[Any, Any], ...]:
    """A new instance of every agent, upstream first."""
    return tuple(make(False) for make in _AGENTS.values())


def needed(settings: Settings) -> tuple[Agent[Any, Any], ...]:
    """A new instance of every agent that has work under ``settings``.

    All of them, but `quotes` only where there are any, and the fitter only where a universe names models to fit.
    """
    without = set()
    if not settings.quote_sources:
        without.add(Quotes.name)
    if all(universe.fits is None for universe in settings.universes):
        without.add("fitter")
    return tuple(make(False) for name, make in _AGENTS.items() if name not in without)


def agent(name: str, *, encoded: bool = False) -> Agent[Any, Any]:
    """A new instance of one agent. Raises `KeyError` for a name that is none's.

    ``encoded``, for a worker: records that the agent can encode at less cost than the worker, it puts out so.
    """
    return _AGENTS[name](encoded)
