"""The rule classifier against the truth of the labelled simulation, and docs/regimes.md against both."""

from __future__ import annotations

from collections import Counter

import pytest

from bench import confusion as bench
from bench.confusion import LABELS, Confusion
from schemas.records import Label


@pytest.fixture(scope="module")
def found() -> Confusion:
    """The verdicts on the sessions of the document."""
    total: Confusion = Counter()
    for seed in bench.SEEDS:
        total += bench.confusion(seed)
    return total


@pytest.mark.parametrize("label", LABELS)
def test_every_regime_occurs_and_is_found_more_often_than_by_chance(found: Confusion, label: Label) -> None:
    was = sum(found[label, verdict] for verdict in LABELS)
    said = sum(found[truth, label] for truth in LABELS)
    assert was > 200
    assert said > 200
    assert bench.recall(found, label) > 1.5 * said / found.total()
    assert bench.precision(found, label) > 1.5 * was / found.total()


def test_most_verdicts_are_right(found: Confusion) -> None:
    assert bench.accuracy(found) > 0.55


def test_the_document_holds_this_table(found: Confusion) -> None:
    """Where it does not: headrace bench confusion."""
    assert bench.table_in(bench.DOCS.read_text("utf-8")) == bench.markdown(found)
