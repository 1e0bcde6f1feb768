"""The local stack for real: three services started, broken, mended and stopped again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from headrace.stack import (
    Endpoints,
    ExternalServices,
    StackSettings,
    StartFailed,
    down,
    endpoints,
    status,
    up,
)
from headrace.stack.processes import find
from headrace.stack.settings import Memory, Ports

SCHEMA = {"schema": '{"type": "record", "name": "Kept", "fields": [{"name": "x", "type": "long"}]}'}
FAR_AHEAD_MS = 4_102_444_800_000


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackSettings]:
    settings = StackSettings(data_dir=tmp_path_factory.mktemp("stack"), memory=Memory(kafka_heap_mb=256))
    up(settings)
    yield settings
    down(settings)


def family(settings: StackSettings) -> list[psutil.Process]:
    members = []
    for name in ("kafka", "registry", "postgres"):
        child = find(settings.data_dir, name)
        process = child and child.process()
        assert process is not None, name
        members += [process, *process.children(recursive=True)]
    return members


def pids(settings: StackSettings) -> dict[str, int | None]:
    return {service.service: service.pid for service in status(settings)}


def schema_id(found: Endpoints) -> int:
    answer = httpx.post(f"{found.registry}/subjects/kept-value/versions", json=SCHEMA, trust_env=False)
    return int(answer.raise_for_status().json()["id"])


def read_one(found: Endpoints) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": found.kafka, "group.id": "test", "enable.auto.commit": False})
    consumer.assign([TopicPartition("kept", 0, 0)])
    message = consumer.poll(20.0)
    consumer.close()
    assert message is not None
    assert message.error() is None
    return message.value()


def test_all_three_answer_and_a_second_up_returns_at_once(settings: StackSettings) -> None:
    services = status(settings)
    assert [service.state for service in services] == ["running"] * 3
    assert all(service.memory_mb and service.log and service.log.exists() for service in services)
    before = pids(settings)
    began_s = time.monotonic()
    found = up(settings)
    assert time.monotonic() - began_s < 1.0
    assert endpoints(settings) == found
    assert pids(settings) == before


def test_the_database_is_timescale_at_utc_and_asks_for_the_password(settings: StackSettings) -> None:
    found = up(settings)
    with psycopg.connect(found.database) as connection:
        row = connection.execute(
            "SELECT current_setting('timezone'), current_setting('timescaledb.telemetry_level'),"
            " (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb')"
        ).fetchone()
    assert row == ("UTC", "off", "2.19.3")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(found.database.replace(":" + found.database.split(":")[2].split("@")[0], ":wrong"))


def test_what_was_kept_is_there_after_down_and_up(settings: StackSettings) -> None:
    found = up(settings)
    admin = AdminClient({"bootstrap.servers": found.kafka})
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(20.0)
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": found.kafka, "message.max.bytes": 3 * 2**20})
    # 2 MB, stamped decades ahead: the dead letters must be able to hold such a thing.
    value = os.urandom(2_000_000)
    producer.produce(
        "kept",
        value,
        timestamp=FAR_AHEAD_MS,
        on_delivery=lambda error, _: failures.append(error) if error else None,
    )
    assert producer.flush(20.0) == 0
    assert failures == []
    first_id = schema_id(found)
    with psycopg.connect(found.database) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS x")

    processes = family(settings)
    assert set(down(settings)) == {"kafka", "registry", "postgres"}
    assert not [process for process in processes if process.is_running()]
    assert endpoints(settings) is None
    assert down(settings) == []

    again = up(settings)
    assert schema_id(again) == first_id
    assert read_one(again) == value
    with psycopg.connect(again.database) as connection:
        assert connection.execute("SELECT x FROM kept").fetchone() == (42,)


@pytest.mark.parametrize(
    ("name", "restarted"), [("kafka", {"kafka"}), ("postgres", {"postgres", "registry"})]
)
def test_up_mends_what_was_killed_at_its_old_address(
    settings: StackSettings, name: str, restarted: set[str]
) -> None:
    found = up(settings)
    before = pids(settings)
    victim = before[name]
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    # As this test started the service, it is also the one that has to take note of its end.
    os.waitpid(victim, 0)
    assert endpoints(settings) is None

    assert up(settings) == found

    after = pids(settings)
    assert {key for key in after if after[key] != before[key]} == restarted
    assert schema_id(found) > 0


def test_services_that_run_are_used_and_the_registry_then_keeps_a_file(
    settings: StackSettings, tmp_path: Path
) -> None:
    running = up(settings)
    other = settings.model_copy(update={"data_dir": tmp_path})
    external = ExternalServices(kafka=running.kafka, database=running.database)
    try:
        found = up(other, external)
        assert (found.kafka, found.database) == (running.kafka, running.database)
        assert found.registry != running.registry
        first_id = schema_id(found)
        assert down(other) == ["registry"]
        assert schema_id(up(other, external)) == first_id
    finally:
        down(other)
    assert [service.state for service in status(settings)] == ["running"] * 3


def test_a_failed_start_stops_what_it_had_started(settings: StackSettings, tmp_path: Path) -> None:
    running = up(settings)
    broken = tmp_path / "kafka" / "data"
    broken.mkdir(parents=True)
    (broken / "meta.properties").write_text("version=1\ncluster.id=another\nnode.id=7\n")
    other = settings.model_copy(update={"data_dir": tmp_path, "ports": Ports()})
    external = ExternalServices(registry=running.registry)
    with pytest.raises(StartFailed, match="kafka ended") as caught:
        up(other, external)
    assert "Stored node id 7" in str(caught.value)
    assert endpoints(other) is None
    assert [service.state for service in status(other, external)] == ["stopped", "running", "stopped"]
