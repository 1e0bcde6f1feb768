"""The bench of take-overs: what it reads in a worker's log, and the table that it makes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bench import rig, takeover
from bench.takeover import CASES, Measure, Taken

LOG = """\
2026-11-26 03:04:05,250 WARNING 12 headrace.worker: symbols took over [0, 1] in 0.250 s: 10 keys, 0 of them from local copies, 40 records of the changelog
2026-11-26 03:04:05,251 WARNING 12 headrace.worker: symbols owns partitions [0, 1] of t.market.ticks
2026-11-26 03:05:05,500 WARNING 12 headrace.worker: symbols took over [2, 3] in 1.125 s: 5,000 keys, 4,990 of them from local copies, 1,210 records of the changelog
"""  # noqa: E501


def test_the_last_take_over_of_a_log_is_read() -> None:
    at_s = time.mktime((2026, 11, 26, 3, 5, 5, 0, 0, -1)) + 0.5
    assert takeover.last_taken(LOG) == Taken(at_s, 1.125, 5000, 4990, 1210)
    assert takeover.last_taken("symbols owns partitions [0]\n") is None


def figures() -> dict[str, Any]:
    measures = [
        Measure(case.name, 100, total_s, 1.0, 0.25, 100, 90, 10, 5.0, 200.0)
        for case in CASES
        for total_s in (9.0, 2.0, 3.0)
    ]
    return {"rows": [takeover._row(case, 100, measures) for case in CASES]}


def test_of_repetitions_the_one_in_the_middle_counts() -> None:
    rows = takeover.markdown(figures()).splitlines()[2:]
    assert len(rows) == len(CASES)
    expected = "| same | 100 | 1.00 s | 0.25 s | 1.75 s | 3.00 s | 100 | 90 | 10 | 5 % | 200 MiB |"
    assert rows[0].split(" | ")[1:] == expected.split(" | ")[1:]


def test_the_table_has_its_place_in_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = takeover.DOCS.read_text("utf-8")
    copy = tmp_path / "recovery.md"
    copy.write_text(text, "utf-8")
    monkeypatch.setattr(takeover, "DOCS", copy)
    takeover.write(figures())
    written = copy.read_text("utf-8")
    assert takeover.markdown(figures()) in written
    assert written.endswith(text.partition(takeover.BEGIN)[2].partition(rig.END)[2])
    assert written.startswith(text.partition(takeover.BEGIN)[0])
