"""The table and the plot of `bench.latency`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_PERCENTILES = ("p50", "p99", "p999")
_COLORS = ("tab:blue", "0.35", "tab:orange", "tab:green")


def show(figures: dict[str, Any], console: Console) -> None:
    """The table, what was expected, who was lost where, and how busy the machine was."""
    console.print(figures["what"], style="bold", highlight=False)
    console.print(_table(figures["contenders"]))
    for each in figures["expected"]:
        met = "met" if each["met"] else "NOT met"
        line = (
            f"{each['rate']:,}/s to the {each['to']}: p99 {each['p99']:.1f} ms, at most {each['limit']:.1f}"
        )
        console.print(f"{line}: {met}", highlight=False)
    for name, own in figures["contenders"].items():
        lost = (
            f"lost at {own['lost']:,}/s"
            if own["lost"]
            else "not lost: the feed's own limit, or the last step"
        )
        console.print(f"{name}: keeps up at {own['kept']:,}/s, {lost}", highlight=False)
    for told in figures["missing"]:
        console.print(told, style="yellow", highlight=False)
    about = figures["machine"]
    busy = f"{about['cpus']} CPUs, load average before {about['load_average']:g}"
    console.print(f"{busy}; feed, broker and readers share them", style="dim")


def _table(contenders: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "ticks/s", "until", "hops", *_PERCENTILES, "max", "samples", "CPU"):
        table.add_column(heading, justify="left" if heading in ("", "until") else "right")
    for name, own in contenders.items():
        for rate, figures in own["rates"].items():
            for label, values in figures["ms"].items():
                cells = [f"{values[at]:.1f}" for at in (*_PERCENTILES, "max")]
                first = label == next(iter(figures["ms"]))
                table.add_row(
                    name if first else "",
                    f"{int(rate):,}" if first else "",
                    f"the {label}",
                    str(own["hops"][label]),
                    *cells,
                    f"{values['samples']:,}",
                    f"{sum(figures['cpu_percent'].values()):.0f} %" if first else "",
                )
    return table


def plot(samples: dict[str, dict[int, dict[str, list[float]]]], path: Path) -> None:
    """What share has arrived after how long: a panel for each rate, a line for each contender and result."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates = sorted({rate for own in samples.values() for rate in own})
    if not rates:
        return
    figure, panels = pyplot.subplots(
        1, len(rates), figsize=(5.5 * len(rates), 4), layout="constrained", squeeze=False
    )
    for axes, rate in zip(panels[0], rates, strict=True):
        for color, (name, own) in zip(_COLORS, samples.items(), strict=False):
            for label, style in (("bar", "-"), ("order", "--")):
                if values := own.get(rate, {}).get(label):
                    axes.ecdf(values, label=f"{name}, {label}", color=color, linestyle=style, linewidth=1.6)
        axes.set_xscale("log")
        axes.set(title=f"{rate:,} ticks/s", xlabel="milliseconds", ylabel="share that has arrived")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small", loc="lower right")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
