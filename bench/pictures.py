"""A day through the topology with fitted models, inline, as a picture: regimes over prices, and correlations."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from connectors.simulator import SimulatorSettings
from headrace import backtest, settings
from headrace.pipeline import FitsPart, PipelineSettings
from schemas.records import Correlations, HmmRegime, Label
from streams.agent import Output

PICTURE = Path(__file__).parent.parent / "docs" / "regimes.png"
_COLOURS = {
    Label.TRENDING: "#3b82c4",
    Label.RANGING: "#5aa469",
    Label.CHOPPY: "#d9a441",
    Label.CRISIS: "#c0504d",
}
_SHOWN = 3
"""Symbols, and pairs."""


def draw(trades: Path | None) -> Path:
    """Run the day, of a file or simulated, and write `PICTURE`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    prices, regimes, correlations, title = _run(trades)
    symbols = sorted(regimes, key=lambda symbol: -len({label for _, label in regimes[symbol]}))[:_SHOWN]
    figure, axes = plt.subplots(len(symbols) + 1, 1, figsize=(11, 9), sharex=True, layout="constrained")
    for axis, symbol in zip(axes, symbols, strict=False):
        times, closes = zip(*prices[symbol], strict=True)
        axis.plot(times, closes, color="#444444", linewidth=0.9)
        labels = dict(regimes[symbol])
        for label, colour in _COLOURS.items():
            held = [(t, close) for t, close in prices[symbol] if labels.get(t) is label]
            if held:
                axis.scatter(*zip(*held, strict=True), s=9, color=colour, label=label.value, zorder=3)
        axis.set_ylabel(symbol)
    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="", label=label.value)
        for label, colour in _COLOURS.items()
    ]
    axes[0].legend(handles=handles, loc="upper left", ncols=4, frameon=False, fontsize=8)
    last = correlations[-1]
    rows, columns = np.triu_indices(len(last.symbols), k=1)
    for k in range(min(_SHOWN, len(rows))):
        pair = f"{last.symbols[rows[k]]} – {last.symbols[columns[k]]}"
        path = [
            (_time(each.end), each.correlations[k]) for each in correlations if each.symbols == last.symbols
        ]
        axes[-1].plot(*zip(*path, strict=True), linewidth=1.0, label=pair)
    fitted = [each for each in correlations if each.fit_age_us is not None]
    begins = {each.fit: _time(each.start) for each in reversed(fitted)}
    for moment in begins.values():
        axes[-1].axvline(moment, color="#bbbbbb", linewidth=0.6, zorder=0)
    axes[-1].set_ylabel("correlation")
    axes[-1].legend(loc="upper left", ncols=_SHOWN, frameon=False, fontsize=8)
    axes[-1].set_xlabel("UTC; grey lines: a fit begins")
    axes[0].set_title(
        f"Hidden Markov regimes over closes, and {last.model} correlations: {title}", fontsize=10
    )
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)
    return PICTURE


def _run(
    trades: Path | None,
) -> tuple[
    dict[str, list[tuple[datetime, float]]],
    dict[str, list[tuple[datetime, Label]]],
    list[Correlations],
    str,
]:
    loaded = settings.load()
    pipeline = PipelineSettings.model_validate({"market": {"bars": ["1m"]}})
    if trades is None:
        simulator = SimulatorSettings(symbols=tuple(f"SIM{i:02}" for i in range(1, 7)))
        feed = backtest.simulated_feed(simulator, pipeline.market)
    else:
        feed = backtest.file_feed(trades, loaded.files, pipeline.market)
    pipeline, _ = backtest.pipeline_for(pipeline, feed.source, feed.symbols, feed.quotes)
    fits = FitsPart(every="30m", lag="1m", minimum=45, window=400)
    universes = tuple(each.model_copy(update={"fits": fits}) for each in pipeline.universes)
    pipeline = pipeline.model_copy(update={"universes": universes})
    prices: dict[str, list[tuple[datetime, float]]] = {}
    regimes: dict[str, list[tuple[datetime, Label]]] = {}
    correlations: list[Correlations] = []

    def take(output: Output) -> None:
        record = output.value
        if isinstance(record, HmmRegime):
            regimes.setdefault(record.symbol, []).append((_time(record.end), record.label))
        elif isinstance(record, Correlations):
            correlations.append(record)
        elif output.topic == "market.bars":
            prices.setdefault(output.key, []).append((_time(record.end), record.close))  # type: ignore[attr-defined]

    backtest.run(feed.parts(), pipeline.record(), [take])
    return prices, regimes, correlations, feed.title if trades is None else trades.name


def _time(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)
