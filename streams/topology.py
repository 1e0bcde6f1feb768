"""The dataflow on one page: the agents in the order in which data flows, and the stages that each chains.

    market.ticks ──▶ symbols ──▶ universe.bars ──▶ universes ──▶ portfolio.events ──▶ portfolios ──▶ results

| agent      | input topic      | key       | its chain of stages                                |
|------------|------------------|-----------|----------------------------------------------------|
| symbols    | market.ticks     | symbol    | bars ▶ regimes                                     |
| universes  | universe.bars    | universe  | barrier ▶ correlations                             |
| portfolios | portfolio.events | portfolio | venue ▶ positions ▶ risk ▶ signals ▶ pretrade      |
"""

from __future__ import annotations

from typing import Any

from streams.agent import Agent
from streams.portfolios import Portfolios
from streams.symbols import Symbols
from streams.universes import Universes


def agents() -> tuple[Agent[Any, Any], ...]:
    """A new instance of every agent, upstream first."""
    return Symbols(), Universes(), Portfolios()


def agent(name: str) -> Agent[Any, Any]:
    """A new instance of one agent. Raises `KeyError` for a name that is none's."""
    return {each.name: each for each in agents()}[name]
