"""How often the rule classifier's verdict is the regime that the simulator was in: the table of docs/regimes.md.

Sessions of the simulator, with its default settings, go through the `symbols` agent with its default settings,
inline. Each verdict on a 1-minute bar that is past the warm-up meets the regime of that minute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.rig import END, put
from connectors.simulator import Simulation, SimulatorSettings
from connectors.simulator.regimes import BEHAVIOURS
from headrace.pipeline import PipelineSettings
from schemas.records import Label, Regime
from streams.agent import Output
from streams.runtime.inline import Inline
from streams.symbols import Symbols

SEEDS = (7, 8)
DOCS = Path(__file__).parent.parent / "docs" / "regimes.md"
BEGIN = "<!-- headrace bench confusion -->"
LABELS = tuple(behaviour.label for behaviour in BEHAVIOURS)

Confusion = Counter[tuple[Label, Label]]
"""Verdicts by (truth, verdict)."""


def confusion(seed: int, told: Callable[[str], None] = lambda _: None) -> Confusion:
    """The verdicts on one session."""
    told(f"seed {seed}")
    simulation = Simulation(SimulatorSettings(seed=seed))
    symbols = simulation.settings.symbols
    truth = {
        (symbol, minute.start_us): LABELS[regime]
        for minute in simulation.minutes()
        for symbol, regime in zip(symbols, minute.regime.tolist(), strict=True)
    }
    found: Confusion = Counter()

    def collect(output: Output) -> None:
        verdict = output.value
        if isinstance(verdict, Regime) and verdict.warm:
            found[truth[verdict.symbol, verdict.start], verdict.label] += 1

    spec = PipelineSettings().record()
    spec = msgspec.structs.replace(spec, kinds=spec.regimes.kinds)  # the bars without verdicts change none
    runner = Inline((Symbols(),), spec, collect)
    for message in simulation.messages():
        timestamp_ms = message.time_us // 1000
        if message.record is None:
            runner.clock(message.source, timestamp_ms)
        else:
            runner.tick(str(message.key), message.record, timestamp_ms)
    runner.flush()
    return found


def accuracy(found: Confusion) -> float:
    """Share of the verdicts that are right."""
    return sum(found[label, label] for label in LABELS) / found.total()


def recall(found: Confusion, label: Label) -> float:
    """Share of the minutes in a regime that are called so."""
    return found[label, label] / sum(found[label, verdict] for verdict in LABELS)


def precision(found: Confusion, label: Label) -> float:
    """Share of the verdicts of a kind that are right."""
    return found[label, label] / sum(found[truth, label] for truth in LABELS)


def markdown(found: Confusion) -> str:
    """The default settings, and the table: a row for each regime as it was, a column for each verdict."""
    spec = PipelineSettings().market.regimes
    given = ", ".join(f"`{name}` {value:g}" for name, value in spec.model_dump(exclude={"bars"}).items())
    lines = [
        f"By default: {given}.",
        "",
        f"| it was | {' | '.join(f'said {label}' for label in LABELS)} | minutes | found |",
        f"|---|{'---:|' * (len(LABELS) + 2)}",
    ]
    for truth in LABELS:
        row = [found[truth, verdict] for verdict in LABELS]
        cells = [
            f"**{count}**" if verdict is truth else str(count)
            for verdict, count in zip(LABELS, row, strict=True)
        ]
        lines.append(f"| {truth} | {' | '.join(cells)} | {sum(row)} | {recall(found, truth):.0%} |")
    said = [sum(found[truth, verdict] for truth in LABELS) for verdict in LABELS]
    right = [f"{precision(found, verdict):.0%}" for verdict in LABELS]
    lines.append(f"| said | {' | '.join(map(str, said))} | {found.total()} | |")
    lines.append(f"| right | {' | '.join(right)} | | {accuracy(found):.0%} |")
    return "\n".join(lines)


def table_in(text: str) -> str:
    """The table that stands between the marks of ``text``."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def write(found: Confusion) -> None:
    """Put the table in its place in docs/regimes.md."""
    put(DOCS, BEGIN, markdown(found))
