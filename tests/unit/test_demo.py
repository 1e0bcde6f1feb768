"""What the demo is made of, as far as it needs no broker."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from headrace import settings, toml
from headrace.charts import braille, sparkline
from headrace.demo import plan
from headrace.demo.screen import Rates, heat
from headrace.settings import Settings
from schemas.partitioner import partition_of
from schemas.records import Correlations
from schemas.topics import TOPICS

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x7f"), max_size=8)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.booleans() | NUMBERS | TEXT
TABLES = st.recursive(
    st.dictionaries(TEXT, SCALARS | st.lists(SCALARS, max_size=3), max_size=4),
    lambda inner: st.dictionaries(TEXT, inner | st.lists(inner, min_size=1, max_size=2), max_size=3),
    max_leaves=12,
)


@pytest.fixture(autouse=True)
def _no_settings_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@given(TABLES)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_toml_is_read_back_as_it_was(values: dict[str, object]) -> None:
    assert tomllib.loads(toml.dumps(values)) == values


@pytest.mark.parametrize("chosen", [plan.Choices(), plan.Choices(symbols=4, minutes=45, seed=3)])
def test_the_written_settings_are_the_demos(
    chosen: plan.Choices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan.make(Settings(), "demo-x", chosen)
    monkeypatch.setenv("HEADRACE_SETTINGS", str(plan.write(planned.settings, tmp_path)))
    assert settings.load() == planned.settings


def test_universes_and_portfolios_lie_on_different_partitions() -> None:
    pipeline = plan.make(Settings(), "demo-x", plan.Choices()).settings.pipeline
    for names, topic in ((pipeline.universes, "universe.bars"), (pipeline.portfolios, "portfolio.events")):
        count = TOPICS[topic].partitions
        assert {partition_of(part.name, count) for part in names} == set(range(count))
    assert all(len(part.strategies) == 2 for part in pipeline.portfolios)


def test_a_file_of_trades_brings_its_symbols(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("time,symbol,price,size\n1700000000,B,1,1\n1700000001,A,1,1\n1700000002,A,oops,1\n")
    planned = plan.make(Settings(), "demo-x", plan.Choices(trades=file, speed=60))
    broad, narrow = planned.settings.pipeline.universes
    assert (broad.symbols, narrow.symbols) == (("A", "B"), ("A",))
    assert [source.name for source in planned.settings.pipeline.market.sources] == ["files"]
    assert planned.feed[-4:] == ["files", str(file), "--speed", "60"]


def test_sparkline_and_braille() -> None:
    assert sparkline([0.0, 7.0], 10) == "▁█"
    assert sparkline(list(range(100)), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([], 10) == sparkline([float("nan")], 10) == ""
    assert braille([0.0, 1.0, 2.0, 3.0], 2, 1) == ["⣠⠞"]
    assert braille([], 2, 1) == ["⠀⠀"]
    assert [len(row) for row in braille([1.0, 1.0], 5, 2)] == [5, 5]


def test_the_heat_map_shows_the_packed_triangle() -> None:
    given = Correlations(
        universe="u", start=0, end=1, kind="time:1m", model="ewma", warm=True, observations=9, symbols=tuple("ABC"),
        stale=(False,) * 3, volatilities=(1.0,) * 3, correlations=(0.5, -1.0, 0.0), average_correlation=0.0, settings=1,
    )  # fmt: skip
    text = heat(given)
    assert text.plain == "▀▀▀▀▀▀\n▀▀▀▀▀▀\n"
    styles = [str(span.style) for span in text.spans]
    one, half, minus, zero = "rgb(255,0,0)", "rgb(158,20,20)", "rgb(0,0,255)", "rgb(60,40,40)"
    assert styles == [
        *(f"{one} on {half}", f"{half} on {one}", f"{minus} on {zero}"),
        *(f"{minus} on default", f"{zero} on default", f"{one} on default"),
    ]


def test_rates_are_over_the_last_seconds() -> None:
    rates = Rates()
    for second in range(20):
        rates.tell(float(second), {"a": 10 * min(second, 10)})
    assert rates.of("a") == 0.0
    rates.tell(20.0, {"a": 400})
    assert rates.of("a") == pytest.approx(100.0)
    assert rates.of("b") == 0.0
