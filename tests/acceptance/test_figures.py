"""The first figures: throughput beside a stock Faust agent, and latency at a steady rate."""

from __future__ import annotations

from typing import Any

from bench import latency, throughput
from headrace.stack import Endpoints


def ignored(_: str) -> None:
    """Nobody watches a test."""


def test_throughput_beside_stock_faust(stack: Endpoints, figures: dict[str, Any]) -> None:
    found = throughput.run(stack, ticks=300_000, stock_ticks=20_000, repetitions=3, advance=ignored)
    for name, medians in found["medians"].items():
        figures[f"1s bars, {name}"] = (
            f"{medians['per_second']:,.0f} records/s, {medians['cpu_us']:.1f} CPU µs a record"
        )
    figures["1s bars, load average before each run"] = [each["load_average"] for each in found["repetitions"]]
    assert found["ratio"]["per_second"] > 3
    assert found["ratio"]["cpu_us"] < 1 / 3


def test_latency_of_a_closing_bar(stack: Endpoints, figures: dict[str, Any]) -> None:
    """`latency.run` raises where a bar led to no order."""
    found = latency.run(stack, rate=1_000, seconds=60, advance=ignored)
    for name, percentiles in found["percentiles"].items():
        figures[f"closing bar to {name}, ms"] = {at: round(value, 1) for at, value in percentiles.items()}
    figures["latency, load average"] = found["machine"]
    assert found["setting"]["ticks_per_second_reached"] > 950
    snapshot, order = found["percentiles"]["snapshot"], found["percentiles"]["order"]
    assert 0 < snapshot["p50"] < order["p50"] < 1_000
