"""Models fitted while ticks flow: over Kafka as inline, through kills of the fitter too; a replay uses those fits."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.simulator import Simulation, SimulatorSettings
from headrace import compare, topics
from headrace.compare import Results
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints
from schemas.codec import decode_body
from schemas.records import Correlations, Fit, HmmRegime, Record
from sinks.timescale.settings import sqlalchemy_url
from sinks.timescale.tables import run_of
from streams.barrier.fits import HMM, LAST
from tests import database, replays
from tests.conftest import REPO
from tests.pipeline import KafkaRun, inline

SIMULATED = SimulatorSettings(minutes=150, ticks_per_minute=15.0, seed=17)
NORTH, SOUTH = SIMULATED.symbols[:6], SIMULATED.symbols[6:11]
FITS = {"every": "30m", "lag": "2m", "minimum": 30, "window": 90, "regimes": 3}
STRATEGIES = [{"name": "momentum", "uses": "momentum"}, {"name": "reversion", "uses": "reversion"}]


def pipeline() -> PipelineSettings:
    """The north waits for its fits. The south does not, as live: which snapshot is the first of a fit is chance."""
    return PipelineSettings.model_validate(
        {
            "market": {"sources": [{"name": "simulator"}], "bars": ["1m"]},
            "universes": [
                {"name": "north", "symbols": NORTH, "fits": {**FITS, "model": "cdcc", "waits": True}},
                {"name": "south", "symbols": SOUTH, "fits": {**FITS, "volatility": "gjr"}},
            ],
            "portfolios": [
                {"name": "alpha", "universe": "north", "strategies": STRATEGIES},
                {"name": "value", "universe": "south", "strategies": STRATEGIES},
            ],
        }
    )


@pytest.fixture(scope="module")
def oracle() -> Results:
    return inline(pipeline(), Simulation(SIMULATED).messages())


@pytest.fixture(scope="module")
def live(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaRun]:
    """The session, disturbed: fitters and universes are killed while fits are made."""
    run = KafkaRun(
        stack,
        f"t{time.time_ns():x}"[:13],
        pipeline(),
        tmp_path_factory.mktemp("live"),
        processes=2,
        simulator=SIMULATED,
    )
    with run:
        run.is_patient = True
        assert "fitter" in run.agents
        run.start(["simulator", "--rate", "1200"])
        for share, victims in (
            (0.3, ("fitter-0", "fitter-1")),
            (0.5, ("universes-0",)),
            (0.7, ("fitter-0", "universes-1")),
        ):
            while sum(run.end("market.ticks")) < share * 150 * 15 * 20:
                run.fleet.check()
                time.sleep(0.05)
            for victim in victims:
                run.fleet.signal(victim, signal.SIGKILL)
        run.wait_for_ingest()
        run.settle()
        assert run.fleet_restarts() >= 4
    yield run
    topics.delete(stack.kafka, run.namespace)


def of(results: Results, topic: str, key: str) -> list[Record]:
    return [decode_body(topic, body) for body, _ in results.sequences[topic, key].values()]


def fits(run: KafkaRun) -> list[Fit]:
    found = {}
    for _, value, _ in compare.records(run.stack.kafka, run.namespace, "universe.bars"):
        record = None if value is None else run.codec.decode("universe.bars", value)
        if isinstance(record, Fit):
            before = found.setdefault((record.universe, record.model, record.version), record)
            assert before == record, "a fit that was made again is another"
    return list(found.values())


def test_what_waits_for_its_fits_equals_the_inline_run(live: KafkaRun, oracle: Results) -> None:
    theirs = {"south", "value"}
    found = [each for each in compare.differences(oracle, live.results()) if each.key not in theirs]
    assert not found, "\n".join(f"{each.topic} {each.key}: {each.what}" for each in found[:5])


def test_fits_are_good_and_every_snapshot_names_its_own(live: KafkaRun) -> None:
    for universe in ("north", "south"):
        made = [fit for fit in fits(live) if fit.universe == universe]
        assert sum(fit.model == LAST and fit.converged for fit in made) >= 3
        assert sum(fit.model == HMM and fit.converged for fit in made) >= 3
        told = list(of(live.results(), "market.correlations", universe))
        assert all(isinstance(each, Correlations) for each in told)
        versions = [each.fit or 0 for each in told if isinstance(each, Correlations)]
        assert versions == sorted(versions)
        if universe == "south":  # what it gets in time is chance, on a slow machine nothing
            continue
        assert len(set(versions)) >= 4
        last = told[-1]
        assert isinstance(last, Correlations)
        assert last.model == "CDCC"
        assert last.eigenvalues
        assert last.fit_converged
        assert not last.unfitted
        regimes = of(live.results(), "market.regimes.hmm", universe)
        assert {each.symbol for each in regimes if isinstance(each, HmmRegime)} == set(NORTH)


def test_a_late_fit_holds_from_the_snapshot_after_it_and_a_replay_uses_it_there(live: KafkaRun) -> None:
    name = f"{live.namespace}-again"
    replays.headrace(live, "replay", "--into", name, "--no-sink", run_records=211)
    replays.assert_equal(live, name)
    assert not any(
        isinstance(record, Fit) and record.holds_from < record.due
        for record in (
            live.codec.decode("universe.bars", value)
            for _, value, _ in compare.records(live.stack.kafka, name, "universe.bars")
            if value is not None
        )
    )
    topics.delete(live.stack.kafka, name)


def test_the_database_has_what_the_topics_have(live: KafkaRun) -> None:
    assert database.mismatches(live.stack.database, live.namespace, live.results()) == []


def dashboard() -> dict[str, Any]:
    return json.loads((REPO / "dashboards" / "headrace.json").read_text())


PANELS = [
    (f"{panel['title']} {target['refId']}", target["rawSql"])
    for panel in dashboard()["panels"]
    for target in panel["targets"]
]
CHOICES = [(choice["name"], choice["query"]) for choice in dashboard()["templating"]["list"]]


@pytest.mark.parametrize(("name", "query"), PANELS + CHOICES, ids=[name for name, _ in PANELS + CHOICES])
def test_what_grafana_asks_has_an_answer(live: KafkaRun, name: str, query: str) -> None:
    chosen = {"$run": run_of(live.namespace), "$symbol": NORTH[0], "$kind": "time:1m", "$universe": "north"}
    for variable, value in chosen.items():
        query = query.replace(variable, value)
    query = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 > '2000-01-01'", query)
    assert "$" not in query
    with sa.create_engine(sqlalchemy_url(live.stack.database)).connect() as connection:
        rows = connection.execute(sa.text(query.replace("::", r"\:\:"))).all()
    assert rows
    assert all(value is not None for row in rows for value in row) or name.startswith("Fits")


def test_the_audit_of_an_order_names_the_fit(live: KafkaRun) -> None:
    order = next(
        each.order_id
        for each in reversed(of(live.results(), "trade.executions", "alpha"))
        if each.last_quantity
    )
    told = json.loads(replays.headrace(live, "audit", order, "--json"))
    assert "fit" in json.dumps(told["check"])
    assert replays.asked(live, "audit", order).output.count("CDCC, to ") == 1
