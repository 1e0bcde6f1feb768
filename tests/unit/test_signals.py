"""Strategies: how one is found, what it sees, how its state is kept, and what the two that ship decide."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from decimal import Decimal, getcontext
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace
from schemas.records import Label, OrderType, Snapshot, StrategySpec
from schemas.states import StrategyState
from streams.errors import (
    BadDecision,
    ParametersInvalid,
    StateMismatch,
    StrategyInvalid,
    StrategyNotFound,
    UndeclaredInput,
)
from streams.signals import loading
from streams.signals.deciding import Decider, Views
from streams.signals.envelope import StateCodec
from streams.signals.momentum import Momentum, MomentumParameters
from streams.signals.reversion import Reversion, ReversionParameters
from streams.signals.strategy import Strategy, Target, View
from tests.snapshots import VARIANCE, snapshot

# --- the state's envelope


class Leg(msgspec.Struct):
    at: float = 0.0
    note: str | None = None


class Everything(msgspec.Struct):
    flag: bool = False
    count: int = 0
    level: float = 0.0
    word: str = ""
    raw: bytes = b""
    series: dict[str, list[float]] = {}
    legs: tuple[Leg, ...] = ()
    last: Leg | None = None


FINITE = st.floats(allow_nan=False)
LEGS = st.builds(Leg, at=FINITE, note=st.none() | st.text())


@settings(deadline=None)
@given(
    st.builds(
        Everything,
        flag=st.booleans(),
        count=st.integers(-(2**63), 2**63 - 1),
        level=FINITE,
        word=st.text(),
        raw=st.binary(),
        series=st.dictionaries(st.text(), st.lists(FINITE)),
        legs=st.lists(LEGS).map(tuple),
        last=st.none() | LEGS,
    )
)
def test_a_state_comes_back_as_it_was_and_its_schema_reads_it(state: Everything) -> None:
    codec = StateCodec("s", Everything)
    envelope = codec.new("s")
    codec.write(envelope, state)
    assert codec.read(envelope) == state
    assert fastavro.parse_schema(json.loads(envelope.schema))["name"] == "Everything"


@pytest.mark.parametrize(
    ("field", "value"),
    [("count", 3.5), ("count", 2**63), ("level", "1"), ("flag", 1), ("last", 3), ("word", None)],
)
def test_a_value_of_the_wrong_type_leaves_the_envelope_alone(field: str, value: Any) -> None:
    codec = StateCodec("s", Everything)
    envelope = codec.new("s")
    before = envelope.body
    state = Everything()
    setattr(state, field, value)
    with pytest.raises((TypeError, ValueError, OverflowError)):
        codec.write(envelope, state)
    assert envelope.body == before


def test_a_state_of_an_older_class_is_read_by_the_newer() -> None:
    old = msgspec.defstruct("Kept", [("a", int, 1), ("gone", str, "x")])
    new = msgspec.defstruct("Kept", [("a", int, 1), ("b", float, 2.5)])
    envelope = StateCodec("s", old).new("s")
    assert StateCodec("s", new).read(envelope) == new(1, 2.5)
    with pytest.raises(StateMismatch, match="epoch"):
        StateCodec("s", msgspec.defstruct("Kept", [("a", str, "")])).read(envelope)


@pytest.mark.parametrize("kind", [set[int], dict[int, str], int | str, Decimal, tuple[int, str], Any])
def test_a_field_that_cannot_be_stored_is_named(kind: Any) -> None:
    with pytest.raises(StrategyInvalid, match=r"Odd\.field cannot be stored"):
        StateCodec("s", msgspec.defstruct("Odd", [("field", kind, None)]))


# --- what a strategy sees and may answer


class NoState(msgspec.Struct):
    calls: int = 0


class NoParameters(msgspec.Struct, frozen=True):
    pass


class Scripted(Strategy[NoParameters, NoState]):
    """Answers with what the test gives it."""

    Parameters = NoParameters
    State = NoState
    inputs = frozenset({"bars"})

    def __init__(self, answer: Any) -> None:
        super().__init__(NoParameters())
        self.answer = answer

    def on_snapshot(self, state: NoState, view: View) -> tuple[NoState, Sequence[Target]]:
        state.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        answer = self.answer(state, view) if callable(self.answer) else (state, self.answer)
        return answer


def decide(
    strategy: Strategy[Any, Any],
    shown: Snapshot,
    envelope: StrategyState | None = None,
    held: dict[str, Decimal] | None = None,
    pending: dict[str, Decimal] | None = None,
) -> tuple[Target, ...]:
    decider = Decider("s", strategy)
    view = Views(shown, Decimal(10_000)).of(decider.inputs, held or {}, pending or {})
    return decider.step(envelope or decider.new_state(), view, warm=shown.warm)


def test_only_declared_inputs_can_be_read() -> None:
    for read in (lambda view: view.covariance, lambda view: view.rows["A"].regime):
        with pytest.raises(UndeclaredInput, match=r"is not among the strategy's inputs \(bars\)"):
            decide(Scripted(lambda state, view, read=read: (state, read(view))), snapshot(0))
    seen: list[float] = []
    decide(Scripted(lambda state, view: (state, seen.append(view.rows["A"].bar.high) or ())), snapshot(0))
    assert seen == [101.0]


def test_a_view_cannot_be_changed_and_counts_open_orders() -> None:
    view = Views(snapshot(0), Decimal(10_000)).of(
        frozenset({"covariance"}), {"A": Decimal(30)}, {"A": Decimal(-10)}
    )
    assert view.weight("A") == 0.2
    assert view.covariance.tolist() == [[VARIANCE, 0.0], [0.0, VARIANCE]]
    with pytest.raises(ValueError, match="read-only"):
        view.covariance[0, 0] = 1.0
    with pytest.raises(AttributeError):
        view.equity = 1.0
    with pytest.raises(TypeError):
        view.rows["A"] = view.rows["B"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([Target("Z", 0.1, "")], "not in the snapshot"),
        ([Target("A", math.nan, "")], "weight nan"),
        ([Target("A", 1e9, "")], "within"),
        ([Target("A", True, "", good_for=0)], "good_for"),
        ([Target("A", 0.1, "", OrderType.LIMIT)], "limit_price"),
        ([Target("A", 0.1, "", OrderType.LIMIT, -1.0)], "limit_price"),
        ([Target("A", 0.1, "", OrderType.MARKET, 1.0)], "LIMIT"),
        ([Target("A", 0.1, None)], "reason"),
        ([Target("A", 0.1, ""), Target("A", 0.2, "")], "more than one"),
        (["A"], "headrace.Target"),
        (lambda state, view: None, "must return"),
        (lambda state, view: (Leg(), ()), "not the strategy's State"),
    ],
)
def test_rubbish_is_refused_and_the_state_of_before_kept(answer: Any, message: str) -> None:
    strategy = Scripted(answer)
    envelope = Decider("s", strategy).new_state()
    before = msgspec.structs.asdict(envelope)
    with pytest.raises(BadDecision, match=message):
        decide(strategy, snapshot(0), envelope)
    assert msgspec.structs.asdict(envelope) == before


def test_a_strategy_does_not_set_the_precision_of_others() -> None:
    def careless(state: NoState, view: View) -> tuple[NoState, Sequence[Target]]:
        getcontext().prec = 3
        return state, ()

    before = getcontext().prec
    decide(Scripted(careless), snapshot(0))
    assert getcontext().prec == before


def test_numpy_floats_become_plain_ones() -> None:
    target = Target("A", np.float64(0.25), "", figures={"x": np.float64(2.0)})
    (decided,) = decide(Scripted([target]), snapshot(0))
    assert type(decided.weight) is float
    assert [type(value) for value in decided.figures.values()] == [float]


# --- loading


def test_the_public_names_are_all_there_and_cost_nothing_until_used() -> None:
    assert all(getattr(headrace, name) is not None for name in headrace.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = headrace.nothing
    program = """
import sys, headrace
assert not {"numpy", "msgspec", "streams"} & set(sys.modules)
headrace.Strategy
assert not {"faust", "confluent_kafka", "aiokafka", "sqlalchemy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


GOOD = """
    import msgspec
    from headrace import Strategy, Target

    class Dip(Strategy):
        class Parameters(msgspec.Struct, frozen=True):
            fall: float = 0.002
            bars: int = 5

        class State(msgspec.Struct):
            highs: dict[str, float] = {}

        inputs = frozenset({"bars"})

        def on_snapshot(self, state, view):
            targets = []
            for symbol, row in view.rows.items():
                high = max(state.highs.get(symbol, 0.0), row.close)
                state.highs[symbol] = high
                if row.close < high * (1 - self.parameters.fall):
                    targets.append(Target(symbol, weight=0.1, reason="dip"))
            return state, targets

    class Odd:
        pass
"""


def in_file(folder: Path, text: str, name: str = "Dip", parameters: str = "{}") -> StrategySpec:
    path = folder / "mine.py"
    path.write_text(textwrap.dedent(text), "utf-8")
    return StrategySpec(name="dip", uses=f"{path}:{name}", parameters=parameters)


def test_a_class_in_a_file_of_ones_own_is_loaded_and_decides(tmp_path: Path) -> None:
    strategy = loading.load(in_file(tmp_path, GOOD, parameters='{"fall": 0.01}'))
    envelope = Decider("dip", strategy).new_state()
    assert decide(strategy, snapshot(0), envelope) == ()
    (target,) = decide(strategy, snapshot(1, {"A": 98.9, "B": 49.6}), envelope)
    assert (target.symbol, target.weight) == ("A", 0.1)


@pytest.mark.parametrize(
    ("change", "name", "error", "message"),
    [
        (("", ""), "Missing", StrategyNotFound, "no class 'Missing'; its strategies: Dip"),
        (("", ""), "Odd", StrategyInvalid, "not a class derived from headrace.Strategy"),
        (("def on_snapshot", "def on_snap"), "Dip", StrategyInvalid, "lacks on_snapshot"),
        ((", frozen=True", ""), "Dip", StrategyInvalid, "must be frozen"),
        (('{"bars"}', '{"ticks"}'), "Dip", StrategyInvalid, "inputs.*ticks"),
        (("dict[str, float] = {}", "set[str] = set()"), "Dip", StrategyInvalid, "highs cannot be stored"),
        (("dict[str, float] = {}", "dict[str, float]"), "Dip", StrategyInvalid, "cannot be made"),
        (("class State(msgspec.Struct)", "class State"), "Dip", StrategyInvalid, "class State derived"),
        (("import msgspec", "import msgspeck"), "Dip", StrategyInvalid, "msgspeck"),
    ],
)
def test_a_class_that_cannot_be_used_is_told_why(
    tmp_path: Path, change: tuple[str, str], name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loading.load(in_file(tmp_path, GOOD.replace(*change), name))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ('{"fal": 1}', "no parameter 'fal'; it has: bars, fall"),
        ('{"bars": "many"}', r"parameter 'bars' .* is 'many': Expected `int`, got `str`"),
        ('{"bars": 1.5}', "Expected `int`, got `float`"),
        ("[1]", "not a JSON object"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path: Path, parameters: str, message: str) -> None:
    with pytest.raises(ParametersInvalid, match=message):
        loading.load(in_file(tmp_path, GOOD, parameters=parameters))


def test_a_parameter_out_of_range_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_from_entry_point", lambda name: Momentum)
    with pytest.raises(ParametersInvalid, match=r"'lookback'.*>= 1"):
        loading.load(StrategySpec(name="m", uses="momentum", parameters='{"lookback": 0}'))


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StrategyNotFound, match="no strategy is called 'nothing'"):
        loading.load(StrategySpec(name="x", uses="nothing", parameters="{}"))
    with pytest.raises(StrategyNotFound, match="there is no file"):
        loading.load(StrategySpec(name="x", uses=f"{tmp_path}/none.py:A", parameters="{}"))


# --- momentum


def momentum(closes: Sequence[float], held: str = "0", **over: Any) -> tuple[Target, ...]:
    """What momentum over two bars wants at the last of A's ``closes``, B standing still."""
    strategy = Momentum(MomentumParameters(lookback=2, **over))
    envelope = Decider("s", strategy).new_state()
    targets: tuple[Target, ...] = ()
    for minute, close in enumerate(closes):
        targets = decide(strategy, snapshot(minute, {"A": close, "B": 50.0}), envelope, {"A": Decimal(held)})
    return targets


def test_momentum_follows_the_sign_at_the_target_volatility() -> None:
    volatility = math.sqrt(VARIANCE * 98_280)
    (target,) = momentum([100.0, 99.0, 101.0])
    assert target.symbol == "A"
    assert target.weight == pytest.approx(0.15 / volatility / 2, rel=1e-12)
    assert target.figures == {"return": pytest.approx(0.01), "volatility": pytest.approx(volatility)}
    (target,) = momentum([100.0, 99.0, 98.0])
    assert target.weight == pytest.approx(-0.15 / volatility / 2, rel=1e-12)


def test_momentum_waits_for_its_lookback_caps_and_lets_small_changes_be() -> None:
    assert momentum([100.0, 101.0]) == ()
    (capped,) = momentum([100.0, 100.0, 100.5], max_weight=0.1)
    assert capped.weight == 0.05
    wanted = 0.05 * 10_000 / 100.5
    assert momentum([100.0, 100.0, 100.5], held=str(round(wanted * 0.6)), max_weight=0.1) == ()
    assert momentum([100.0, 100.0, 100.5], held=str(round(-wanted * 0.1)), max_weight=0.1) != ()


def test_momentum_is_not_warm_before_the_covariance_is() -> None:
    strategy = Momentum(MomentumParameters(lookback=1))
    envelope = Decider("s", strategy).new_state()
    decide(strategy, snapshot(0), envelope)
    assert decide(strategy, snapshot(1, {"A": 101.0, "B": 50.0}, warm=False), envelope) == ()
    assert decide(strategy, snapshot(2, {"A": 102.0, "B": 50.0}), envelope) != ()


# --- reversion


def reversion(close: float, held: str = "0", label: Label = Label.RANGING, **over: Any) -> tuple[Target, ...]:
    strategy = Reversion(ReversionParameters(**over))
    return decide(strategy, snapshot(0, {"A": close}, label=label), held={"A": Decimal(held)})


@pytest.mark.parametrize(
    ("close", "held", "weight"),
    [
        (97.0, "0", 0.5),
        (97.0, "-5", 0.5),
        (103.0, "0", -0.5),
        (103.0, "5", -0.5),
        (100.5, "5", 0.0),
        (99.5, "-5", 0.0),
        (99.5, "5", None),
        (97.0, "5", None),
        (100.0, "0", None),
    ],
)
def test_reversion_fades_the_bands_and_leaves_at_the_middle(
    close: float, held: str, weight: float | None
) -> None:
    targets = reversion(close, held)
    assert [target.weight for target in targets] == ([] if weight is None else [weight])
    for target in targets:
        assert (target.order_type, target.limit_price) == (OrderType.LIMIT, close)


@pytest.mark.parametrize("label", [Label.TRENDING, Label.CRISIS])
def test_reversion_stands_aside_when_prices_run_away(label: Label) -> None:
    assert reversion(97.0, label=label) == ()
    (leave,) = reversion(97.0, held="5", label=label)
    assert (leave.weight, leave.order_type) == (0.0, OrderType.MARKET)


def test_reversion_leaves_what_does_not_come_back() -> None:
    strategy = Reversion(ReversionParameters(max_hold=2))
    envelope = Decider("s", strategy).new_state()
    held = {"A": Decimal(5)}
    decided = [decide(strategy, snapshot(m, {"A": 99.0}), envelope, held) for m in range(3)]
    assert decided[:2] == [(), ()]
    assert decided[2][0].reason == "held for too long"
