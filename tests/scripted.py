"""A strategy whose wishes are written down beforehand, and the portfolios agent with it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from schemas.codec import Unreadable, decode_body, encode_body
from schemas.records import (
    Execution,
    OrderType,
    Record,
    StrategySpec,
)
from schemas.states import PortfoliosPartition, PortfolioState
from streams.agent import Output, SourcePartition
from streams.portfolios import Portfolios
from streams.signals.strategy import Strategy, Target, View
from tests import examples
from tests.examples import DAY0, MINUTE
from tests.snapshots import item, of

WHERE = SourcePartition("portfolio.events", 1)
CHANGELOG = "portfolios.changelog"


class Plan(msgspec.Struct, frozen=True):
    """By the minute, what to want: (symbol, weight, limit price or None, rests for)."""

    targets: dict[str, list[tuple[str, float, float | None, int]]] = {}
    fails_at: int = -1


class Count(msgspec.Struct):
    snapshots: int = 0


class Scripted(Strategy[Plan, Count]):
    Parameters = Plan
    State = Count
    inputs = frozenset({"bars"})

    def on_snapshot(self, state: Count, view: View) -> tuple[Count, Sequence[Target]]:
        minute = (view.start - DAY0) // MINUTE
        state.snapshots += 1
        if minute == self.parameters.fails_at:
            raise ZeroDivisionError("on purpose")
        return state, [
            Target(symbol, weight, "plan", OrderType.LIMIT if limit else OrderType.MARKET, limit, rests)
            for symbol, weight, limit, rests in self.parameters.targets.get(str(minute), ())
            if symbol in view.rows
        ]


def load(spec: StrategySpec) -> Strategy[Plan, Count]:
    return Scripted(msgspec.json.decode(spec.parameters, type=Plan))


def plan(
    name: str, targets: dict[int, list[tuple[str, float, float | None, int]]], fails_at: int = -1
) -> StrategySpec:
    by_minute = {str(minute): wanted for minute, wanted in targets.items()}
    parameters = msgspec.json.encode(Plan(by_minute, fails_at)).decode()
    return StrategySpec(name=name, uses=name, parameters=parameters)


class Book:
    """The agent with its states, and all that it has sent."""

    def __init__(self, *strategies: StrategySpec, **over: Any) -> None:
        self.settings = examples.settings(
            portfolios=(examples.portfolio(cash=Decimal(100_000), strategies=strategies, **over),)
        )
        self.agent = Portfolios(load)
        self.partition = PortfoliosPartition()
        self.keys: dict[str, PortfolioState] = {}
        self.outputs: list[Output] = []
        self.offset = 0
        self.take(self.settings)

    def take(self, *values: Record | Unreadable | None) -> list[Output]:
        """Fold ``values`` in as one run; what that sent."""
        inputs = [item(self.offset + i, value) for i, value in enumerate(values)]
        self.offset += len(values)
        outputs, touched = self.agent.step(WHERE, self.partition, self.keys, inputs)
        assert touched <= set(self.keys)
        self.outputs += outputs
        return outputs

    def restart(self) -> None:
        """Go on from what the changelog holds."""
        stored = {name: encode_body(CHANGELOG, state) for name, state in self.keys.items()}
        self.keys = {name: decode_body(CHANGELOG, body) for name, body in stored.items()}
        self.agent = Portfolios(load)

    @property
    def state(self) -> PortfolioState:
        return self.keys["alpha"]

    def lives(self) -> dict[str, list[str]]:
        """The states that each order has gone through."""
        lives: dict[str, list[str]] = {}
        for execution in of(self.outputs, Execution):
            life = lives.setdefault(execution.order_id, [])
            assert execution.sequence == len(life)
            life.append(execution.state)
        return lives


def bodies(outputs: Sequence[Output]) -> list[tuple[str, str, bytes, int]]:
    return [(o.topic, o.key, encode_body(o.topic, o.value), o.event_time) for o in outputs]
