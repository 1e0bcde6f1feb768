"""`headrace audit` over a small simulated run: every link is where it says, read from the topics directly."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import confluent_kafka as ck
import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from connectors.simulator import SimulatorSettings
from headrace import topics
from headrace.audit import UnknownOrder
from headrace.cli import app
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints
from schemas.partitioner import partition_of
from schemas.records import Bar, Execution, Record, Snapshot, Tick
from schemas.topics import TOPICS, physical
from tests.integration.kafka_log import Log
from tests.pipeline import KafkaRun

MARKET = SimulatorSettings(symbols=("A", "B", "C"), minutes=60, ticks_per_minute=20.0)
SETTINGS = PipelineSettings.model_validate(
    {
        "universes": [{"name": "north", "symbols": ["A", "B", "C"]}],
        "portfolios": [
            {
                "name": "alpha",
                "universe": "north",
                "limits": {"max_position": "1500"},
                "strategies": [
                    {
                        "name": "momentum",
                        "uses": "momentum",
                        "parameters": {"lookback": 5, "rebalance": 0.1},
                    },
                    {"name": "reversion", "uses": "reversion"},
                ],
            }
        ],
    }
)
PLACE = re.compile(r"([a-z.]+)\[([0-9]+)\]@([0-9]+)")


@pytest.fixture(scope="module")
def run(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaRun]:
    namespace, folder = f"t{uuid.uuid4().hex[:12]}", tmp_path_factory.mktemp("run")
    with KafkaRun(stack, namespace, SETTINGS, folder, with_sink=False, simulator=MARKET) as run:
        run.start(["simulator"])
        run.wait_for_ingest()
        run.settle()
        yield run
    topics.delete(stack.kafka, namespace)


@pytest.fixture(scope="module")
def lying(run: KafkaRun) -> dict[str, Record]:
    """Every record of the run's topics by topic[partition]@offset."""
    log = Log(run.stack, run.namespace, run.codec)
    found = {}
    for name, topic in TOPICS.items():
        if topic.role != "changelog":
            for partition in range(topic.partitions):
                for item in log.read(name, partition).records:
                    if isinstance(item.value, Record):
                        found[f"{name}[{partition}]@{item.offset}"] = item.value
    return found


def executions(lying: dict[str, Record]) -> list[Execution]:
    return [record for record in lying.values() if isinstance(record, Execution)]


def walked(link: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield link
    for cause in link["causes"]:
        yield from walked(cause)


def audited(run: KafkaRun, order_id: str, *more: str, status: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The links of the chain, by what they are."""
    told = CliRunner().invoke(app, ["audit", order_id, "--json", *more], env=run.environment())
    assert told.exit_code == status, told.output
    chain = json.loads(told.stdout)
    links: dict[str, list[dict[str, Any]]] = {}
    for top in (*chain["events"], chain["check"]):
        for link in walked(top):
            links.setdefault(link["what"], []).append(link)
    return links


def test_every_link_of_a_filled_order_is_where_it_says(run: KafkaRun, lying: dict[str, Record]) -> None:
    filled = Counter(event.order_id for event in executions(lying) if event.last_quantity)
    order_id, fills = filled.most_common(1)[0]
    links = audited(run, order_id, "--ticks")
    assert fills == len(links["fill"]) > 1
    assert all(link["missing"] is None for each in links.values() for link in each)
    for link in (link for each in links.values() for link in each):
        record = lying[link["place"]]
        assert json.loads(msgspec.json.encode(record)) == link["record"], link["what"]

    (check,), (signal,), (regime,) = links["check"], links["signal"], links["regime"]
    assert [lying[each["place"]].order_id for each in (check, *links["fill"])] == [order_id] * (1 + fills)  # type: ignore[attr-defined]
    decided = lying[check["place"]]
    assert isinstance(decided, Execution)
    assert signal["record"]["start"] == regime["record"]["start"] == decided.decided_on
    (snapshot,) = signal["causes"]
    assert (snapshot["causes"], regime["causes"][0]["what"]) == ([regime], "bar")
    met = ((link["causes"][0], link["causes"][0]["causes"][0]) for link in links["fill"])
    for looked_at, bar in ((snapshot, regime["causes"][0]), *met):
        seen, made = lying[looked_at["place"]], lying[bar["place"]]
        assert isinstance(seen, Snapshot)
        assert isinstance(made, Bar)
        assert made in [row.bar for row in seen.rows if row.symbol == decided.symbol]
        ticks = [lying[link["place"]] for link in bar["causes"]]
        own = [
            record
            for place, record in lying.items()
            if place.startswith("market.ticks[")
            and isinstance(record, Tick)
            and record.symbol == made.symbol
            and made.start <= record.event_time < made.end
        ]
        assert ticks == own
        assert len(own) == made.count


def test_it_is_told_to_people(run: KafkaRun, lying: dict[str, Record]) -> None:
    order_id = next(event.order_id for event in executions(lying) if event.last_quantity)
    told = CliRunner().invoke(app, ["audit", order_id], env=run.environment())
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert lines[0].startswith(f"{order_id}  ")
    for what in ("fill", "accepted", "submitted", "check", "signal", "snapshot", "regime", "bar", "tick"):
        (line, *_) = (line for line in lines if f"  {what}  " in line)
        found = PLACE.search(line)
        assert found is not None, line
        assert found[0] in lying


def test_an_order_that_is_not_there(run: KafkaRun) -> None:
    for text, why in (
        ("alpha", "portfolio/epoch/snapshot"),
        ("alpha/1/1/momentum/A/0", "Of the same portfolio"),
    ):
        told = CliRunner().invoke(app, ["audit", text], env=run.environment())
        assert isinstance(told.exception, UnknownOrder)
        assert why in str(told.exception)


def test_ticks_that_were_removed_are_told_as_missing(run: KafkaRun, lying: dict[str, Record]) -> None:
    """The last test of the module: it takes the ticks away."""
    denied = [event for event in executions(lying) if event.limit == "max_position"]
    name = physical(run.namespace, "market.ticks")
    partition = partition_of(denied[0].symbol, TOPICS["market.ticks"].partitions)
    admin = AdminClient({"bootstrap.servers": run.stack.kafka})
    end = run.end("market.ticks")[partition]
    for future in admin.delete_records([ck.TopicPartition(name, partition, end - 1)]).values():
        future.result(30)
    links = audited(run, denied[0].order_id, status=1)
    (ticks,) = links.pop("ticks")
    assert f"market.ticks[{partition}], which begins at offset {end - 1}" in ticks["missing"]
    assert all(link["missing"] is None for each in links.values() for link in each)
    assert links["check"][0]["told"].startswith("denied by max_position 1500")
