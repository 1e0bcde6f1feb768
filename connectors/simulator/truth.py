"""The truth beside the ticks, so that estimates can be scored against it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.simulator import regimes
from connectors.simulator.market import Simulation


def export_truth(simulation: Simulation, folder: Path) -> None:
    """Write what is true of ``simulation`` into ``folder``.

    - ``minutes.parquet``: symbol, minute (its start, UTC), regime, volatility (σ of the minute's log return)
      and drift (its mean), a row for each symbol and minute.
    - ``correlation.csv``: the matrix of the shocks, symbols in the first row and column.
    - ``parameters.json``: the settings, and what was drawn for each symbol from the seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = list(simulation.settings.symbols)
    minutes = list(simulation.minutes())
    labels = pa.array([behaviour.label.value for behaviour in regimes.BEHAVIOURS])
    table = pa.table(
        {
            "symbol": names * len(minutes),
            "minute": pa.array(
                np.repeat([minute.start_us for minute in minutes], len(names)), pa.timestamp("us", "UTC")
            ),
            "regime": labels.take(pa.array(np.concatenate([minute.regime for minute in minutes]))),
            "volatility": np.concatenate([minute.volatility for minute in minutes]),
            "drift": np.concatenate([minute.drift for minute in minutes]),
        }
    )
    pq.write_table(table, folder / "minutes.parquet")
    with (folder / "correlation.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["symbol", *names])
        writer.writerows(
            [name, *map(repr, row)] for name, row in zip(names, simulation.correlation.tolist(), strict=True)
        )
    parameters = {
        "session": simulation.session,
        "settings": simulation.settings.model_dump(mode="json"),
        "regimes": [behaviour._asdict() for behaviour in regimes.BEHAVIOURS],
        "transition_per_minute": regimes.transition(simulation.settings.dwell).tolist(),
        "symbols": [
            {
                "symbol": name,
                "opening": opening,
                "volatility_per_minute": volatility,
                "ticks_per_minute": rate,
            }
            for name, opening, volatility, rate in zip(
                names,
                simulation.opening.tolist(),
                simulation.volatility.tolist(),
                simulation.rate.tolist(),
                strict=True,
            )
        ],
    }
    (folder / "parameters.json").write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")
