"""Settings: defaults, file, environment, in this order of precedence; errors that name the setting."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from headrace.pipeline import PipelineSettings
from headrace.settings import Settings, SettingsError, StackDown, load
from headrace.stack import Endpoints
from schemas.codec import decode_body, encode_body
from schemas.records import NEVER, ClockKind
from schemas.topics import TOPICS
from streams.topology import needed

TOML = """
namespace = "file"

[kafka]
bootstrap = "broker:9092"

[worker]
commit_interval_ms = 100
max_run_records = 5000

[sink]
batch_rows = 77

[pipeline]
version = 3

[pipeline.market]
bars = ["1s", "1m"]
lateness_ms = 250
sources = [{name = "mine", clock = "TICKS"}]
regimes = {bars = ["1m"], period = 10}

[[pipeline.universes]]
name = "banks"
symbols = ["C", "BAC", "C"]

[[pipeline.portfolios]]
name = "alpha"
universe = "banks"
cash = "250000.50"
limits = {max_leverage = 2, max_orders = 10, order_window_s = 30}
strategies = [{name = "mom", uses = "momentum", parameters = {window = 20, fast = true}}]
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def toml() -> Path:
    path = Path("headrace.toml")
    path.write_text(TOML)
    return path


def test_defaults_need_nothing() -> None:
    settings = load()
    assert (settings.namespace, settings.kafka.bootstrap, settings.registry.url) == ("", None, None)
    assert settings.worker.commit_interval_ms == 250
    assert settings.pipeline.record().kinds == ("time:1s", "time:1m", "time:5m")


def test_the_file_comes_before_the_defaults(toml: Path) -> None:
    settings = load()
    assert (settings.namespace, settings.kafka.bootstrap) == ("file", "broker:9092")
    assert (settings.worker.commit_interval_ms, settings.worker.fetch_max_wait_ms) == (100, 2)
    assert settings.sink.batch_rows == 77


def test_the_environment_comes_before_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_NAMESPACE", "shell")
    monkeypatch.setenv("HEADRACE_WORKER__COMMIT_INTERVAL_MS", "50")
    monkeypatch.setenv("HEADRACE_DATABASE__URL", "postgresql://here/db")
    settings = load()
    assert settings.namespace == "shell"
    assert (settings.worker.commit_interval_ms, settings.worker.max_run_records) == (50, 5000)
    assert (settings.kafka.bootstrap, settings.database.url) == ("broker:9092", "postgresql://here/db")


def test_what_is_given_in_code_comes_first(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_NAMESPACE", "shell")
    assert load(namespace="code").namespace == "code"


def test_the_file_may_lie_elsewhere(toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = toml.rename(tmp_path / "mine.toml")
    assert load().namespace == ""
    monkeypatch.setenv("HEADRACE_SETTINGS", str(moved))
    assert load().namespace == "file"
    monkeypatch.setenv("HEADRACE_SETTINGS", "nowhere.toml")
    with pytest.raises(SettingsError, match=r"nowhere\.toml, which is not there"):
        load()


def test_variables_of_the_tests_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_TRADES", "trades.csv.gz")
    monkeypatch.setenv("HEADRACE_TEST_ENDPOINTS", "endpoints.json")
    assert load() == Settings()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("namespace = 'white space'", "namespace"),
        ("[worker]\ncommit_interval_ms = 0", "worker.commit_interval_ms"),
        ("[worker]\ncommit_intervall_ms = 250", "worker.commit_intervall_ms"),
        ("[kafak]\nbootstrap = 'x'", "kafak"),
        ("[pipeline.market]\nbars = ['1y']", "pipeline.market.bars.0"),
        ("[pipeline.market]\nmax_ahead_s = 0", "pipeline.market.max_ahead_s"),
        ("[[pipeline.universes]]\nname = 'a/b'\nsymbols = ['A']", "pipeline.universes.0.name"),
        ("[[pipeline.universes]]\nname = 'u'\nsymbols = []", "pipeline.universes.0.symbols"),
        ("[[pipeline.portfolios]]\nname = 'p'\nuniverse = 'u'\ncash = -1", "pipeline.portfolios.0.cash"),
        (
            "[[pipeline.portfolios]]\nname = 'p'\nuniverse = 'u'\nstrategies = []",
            "pipeline.portfolios.0.strategies",
        ),
        ("[[pipeline.portfolios]]\nname = 'p'\nuniverse = 'u'\nlot = '1e-10'", "pipeline.portfolios.0.lot"),
        ("namespace = ", "headrace.toml"),
    ],
)
def test_an_error_names_the_setting(text: str, named: str) -> None:
    Path("headrace.toml").write_text(text)
    with pytest.raises(SettingsError) as told:
        load()
    assert named in str(told.value)
    assert "headrace.toml" in str(told.value)


def test_an_error_in_the_environment_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_WORKER__SESSION_TIMEOUT_MS", "soon")
    with pytest.raises(SettingsError, match=r"worker\.session_timeout_ms"):
        load()


UNIVERSE: dict[str, Any] = {"name": "u", "symbols": ["A", "B"]}
STRATEGY: dict[str, Any] = {"name": "m", "uses": "momentum"}
PORTFOLIO: dict[str, Any] = {"name": "p", "universe": "u", "strategies": [STRATEGY]}


@pytest.mark.parametrize(
    ("over", "told"),
    [
        ({"universes": [UNIVERSE, UNIVERSE]}, "universe u is declared twice"),
        ({"universes": [UNIVERSE], "portfolios": [PORTFOLIO, PORTFOLIO]}, "portfolio p is declared twice"),
        ({"universes": [{**UNIVERSE, "bar": "1h"}]}, "universe u: bar 1h is not in market.bars"),
        ({"market": {"regimes": {"bars": ["1h"]}}}, "market.regimes: bar 1h is not in market.bars"),
        ({"market": {"sources": [{"name": "s"}, {"name": "s"}]}}, "source s is declared twice"),
        ({"market": {"bars": ["1m", "1s", "1m"]}}, "market.bars: bar 1m is declared twice"),
        ({"market": {"regimes": {"bars": ["1m", "1m"]}}}, "market.regimes: bar 1m is declared twice"),
        ({"portfolios": [PORTFOLIO]}, "universe u is not declared; there are: none"),
        (
            {"universes": [UNIVERSE], "portfolios": [{**PORTFOLIO, "symbols": ["A", "Z"]}]},
            "portfolio p: not in its universe: Z",
        ),
        (
            {"universes": [UNIVERSE], "portfolios": [{**PORTFOLIO, "strategies": [STRATEGY, STRATEGY]}]},
            "portfolio p: strategy m is declared twice",
        ),
    ],
)
def test_what_does_not_hang_together_is_told(over: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load(pipeline=over)


def test_the_record_that_the_agents_read(toml: Path) -> None:
    record = load().pipeline.record()
    assert (record.version, record.effective_from) == (3, NEVER)
    assert record.tick_partitions == TOPICS["market.ticks"].partitions
    assert (record.lateness_us, record.max_ahead_us) == (250_000, 60_000_000)
    assert [(source.name, source.clock) for source in record.sources] == [("mine", ClockKind.TICKS)]
    assert (record.kinds, record.regimes.kinds) == (("time:1s", "time:1m"), ("time:1m",))
    assert (record.regimes.period, record.regimes.band_period) == (10, 20)
    (universe,) = record.universes
    assert (universe.name, universe.symbols, universe.kind) == ("banks", ("BAC", "C"), "time:1m")
    (portfolio,) = record.portfolios
    assert portfolio.symbols == ("BAC", "C"), "all of the universe where none are named"
    assert (portfolio.cash, portfolio.lot, portfolio.currency) == (Decimal("250000.50"), Decimal(1), "USD")
    assert (portfolio.limits.max_leverage, portfolio.limits.max_orders) == (Decimal(2), 10)
    assert (portfolio.limits.order_window_us, portfolio.limits.max_daily_loss) == (30_000_000, None)
    (strategy,) = portfolio.strategies
    assert strategy.parameters == '{"fast": true, "window": 20}', (
        "sorted: the same settings are the same bytes"
    )


def test_the_record_survives_its_topic(toml: Path) -> None:
    record = load().pipeline.record()
    assert decode_body("market.ticks", encode_body("market.ticks", record)) == record
    assert encode_body(
        "market.ticks", PipelineSettings(**load().pipeline.model_dump()).record()
    ) == encode_body("market.ticks", record)


def test_services_come_from_the_stack_or_from_the_settings(tmp_path: Path) -> None:
    nowhere = {"data_dir": tmp_path / "no-stack"}
    with pytest.raises(StackDown, match="headrace up"):
        load(stack=nowhere).endpoints()
    with pytest.raises(StackDown):
        load(stack=nowhere, kafka={"bootstrap": "k:1"}, registry={"url": "http://r"}).endpoints()
    known = load(
        stack=nowhere,
        kafka={"bootstrap": "k:1"},
        registry={"url": "http://r"},
        database={"url": "postgresql://d/x"},
    )
    assert known.endpoints() == Endpoints(kafka="k:1", registry="http://r", database="postgresql://d/x")


def test_a_worker_is_told_all_it_needs(toml: Path) -> None:
    endpoints = Endpoints(kafka="k:1", registry="http://r", database="postgresql://d/x")
    config = load().runtime(endpoints, instance="symbols-0")
    assert (config.bootstrap, config.registry, config.namespace) == ("k:1", "http://r", "file")
    assert (config.instance, config.commit_interval_ms, config.max_run_records) == ("symbols-0", 100, 5000)


def test_copies_of_states_are_in_the_data_folder_where_nothing_else_is_said(
    toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints = Endpoints(kafka="k:1", registry="http://r", database="postgresql://d/x")
    monkeypatch.setenv("HEADRACE_STACK__DATA_DIR", str(tmp_path))
    assert load().runtime(endpoints).state_dir == str(tmp_path / "state")
    assert load().runtime(endpoints).standbys
    monkeypatch.setenv("HEADRACE_WORKER__STATE_DIR", "~/elsewhere")
    monkeypatch.setenv("HEADRACE_WORKER__STANDBYS", "false")
    assert load().runtime(endpoints).state_dir == str(Path.home() / "elsewhere")
    assert not load().runtime(endpoints).standbys
    monkeypatch.setenv("HEADRACE_WORKER__COPIES", "false")
    assert load().runtime(endpoints).state_dir is None


def test_quotes_are_declared_by_their_sources_and_absent_otherwise() -> None:
    plain = PipelineSettings().record()
    assert (plain.quote_sources, plain.quote_partitions) == ((), 0)
    sources = [{"name": "q", "clock": "ticks"}, {"name": "r"}]
    record = PipelineSettings.model_validate({"market": {"quotes": {"sources": sources}}}).record()
    assert [(source.name, source.clock) for source in record.quote_sources] == [
        ("q", ClockKind.TICKS),
        ("r", ClockKind.RECORDS),
    ]
    assert record.quote_partitions == TOPICS["market.quotes"].partitions
    assert "quotes" not in {agent.name for agent in needed(plain)}
    assert needed(record)[1].name == "quotes"
    for bad in ([], [{"name": "q"}, {"name": "q"}]):
        with pytest.raises(ValidationError):
            PipelineSettings.model_validate({"market": {"quotes": {"sources": bad}}})
