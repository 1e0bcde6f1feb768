"""The first figures: throughput beside a stock Faust agent, and latency at a steady rate."""

from __future__ import annotations

from typing import Any

from bench import latency, throughput
from bench.contenders import BRIDGE, HEADRACE
from bench.throughput import Plan
from bench.throughput.contenders import DECODED, STOCK
from bench.throughput.scenarios import Scenario
from headrace.stack import Endpoints


def ignored(_: str) -> None:
    """Nobody watches a test."""


def test_throughput_beside_stock_faust(stack: Endpoints, figures: dict[str, Any]) -> None:
    """Headrace's bars are those of the contenders, or these give no figures."""
    plan = Plan([Scenario.SIM20], ticks=4_000_000, repetitions=3, only=[STOCK, DECODED])
    found = throughput.run(stack, plan, ignored)["scenarios"][Scenario.SIM20]
    for name, medians in found["medians"].items():
        told = f"{medians['per_second']:,.0f} ticks/s, {medians['cpu_us']:.2f} CPU µs a tick"
        figures[f"1s bars, {name}"] = told
    figures["1s bars, load average before each run"] = [each["load_average"] for each in found["repetitions"]]
    assert found["wrong"] == {}
    assert found["bars_compared"][STOCK] > 0
    assert found["headrace_is"][STOCK]["times_as_fast"] > 3
    assert found["headrace_is"][STOCK]["share_of_cpu"] < 1 / 3


def test_latency_of_a_closing_bar(stack: Endpoints, figures: dict[str, Any]) -> None:
    rate = 1_000
    found = latency.run(stack, rates=(rate,), sweep=(), seconds=60, names=(HEADRACE, BRIDGE), advance=ignored)
    for name, own in found["contenders"].items():
        for label, percentiles in own["rates"][str(rate)]["ms"].items():
            figures[f"{name}, closing bar to the {label}, ms"] = percentiles
    figures["latency, load average"] = found["machine"]
    measured = found["contenders"][HEADRACE]["rates"][str(rate)]
    assert measured["reached"] > 0.95 * rate
    assert measured["without_result"] == 0, "every bar led to an order"
    bar, order = measured["ms"]["bar"], measured["ms"]["order"]
    assert 0 < bar["p50"] < order["p50"] < 1_000
