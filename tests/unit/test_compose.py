"""docker-compose.kafka.yml is the local stack in containers: same versions, ports and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from headrace.stack import StackSettings, kafka, postgres, registry, versions
from headrace.stack.kafka import BROKER

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.kafka.yml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]


def test_the_file_obeys_the_compose_specification() -> None:
    compose = compose_spec.PyCompose.from_yaml(TEXT)
    compose.validate()
    assert set(compose.service_names()) == set(SERVICES)


def test_the_specification_is_checked_strictly() -> None:
    for mistake in (("depends_on", "depend_on"), ("source: connect-worker", "source: nowhere")):
        with pytest.raises(ValueError, match=mistake[1].split()[-1]):
            compose_spec.PyCompose.from_yaml(TEXT.replace(*mistake)).validate()


def test_versions_are_those_of_the_local_stack() -> None:
    images = {name: service["image"] for name, service in SERVICES.items()}
    assert images["kafka"] == images["connect"] == f"apache/kafka:{versions.KAFKA}"
    assert images["registry"] == f"apicurio/apicurio-registry:{versions.APICURIO}"
    assert images["postgres"] == f"timescale/timescaledb:{versions.TIMESCALEDB}-pg{versions.POSTGRES}"
    for name, image in images.items():
        tag = image.partition(":")[2]
        assert tag[:1].isdigit(), f"{name} is not pinned: {image}"


@pytest.mark.parametrize("name", ["kafka", "registry", "postgres"])
def test_ports_are_the_preferred_ones_and_open_to_this_machine_only(name: str) -> None:
    port = getattr(StackSettings().ports, name)
    assert SERVICES[name]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_every_port_is_open_to_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len(ports) == len({port.split(":")[1] for port in ports})


def test_the_broker_has_the_local_brokers_settings() -> None:
    environment = {key: str(value) for key, value in SERVICES["kafka"]["environment"].items()}
    expected = {"KAFKA_" + key.upper().replace(".", "_"): value for key, value in BROKER.items()}
    # Containers reach the broker through a listener of their own.
    protocols = environment.pop("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP")
    assert protocols == expected.pop("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP") + ",CONTAINERS:PLAINTEXT"
    assert expected.items() <= environment.items()
    placed = {
        "CLUSTER_ID",
        "KAFKA_HEAP_OPTS",
        "KAFKA_LISTENERS",
        "KAFKA_ADVERTISED_LISTENERS",
        "KAFKA_CONTROLLER_QUORUM_VOTERS",
        "KAFKA_LOG_DIRS",
    }
    assert set(environment) - set(expected) == placed
    heap_mb = StackSettings().memory.kafka_heap_mb
    assert environment["KAFKA_HEAP_OPTS"] == f"-Xmx{heap_mb}m -Xms{heap_mb}m"
    port = StackSettings().ports.kafka
    assert f"PLAINTEXT://{kafka.address(port)}" in environment["KAFKA_ADVERTISED_LISTENERS"].split(",")


def test_the_database_has_the_local_databases_settings() -> None:
    program, *flags = SERVICES["postgres"]["command"]
    options = dict(flag.removeprefix("-c").split("=", 1) for flag in flags)
    buffers_mb = StackSettings().memory.postgres_shared_buffers_mb
    assert program == "postgres"
    assert options == postgres.SERVER | {"shared_buffers": f"{buffers_mb}MB"}
    environment = SERVICES["postgres"]["environment"]
    assert environment["POSTGRES_USER"] == postgres.USER
    assert environment["POSTGRES_DB"] == postgres.RESULTS


def test_the_registry_has_the_local_registrys_settings() -> None:
    environment = {key: str(value) for key, value in SERVICES["registry"]["environment"].items()}
    settings = StackSettings()
    port = settings.ports.registry
    local = registry.prepare(
        Path("home"), settings, port, f"postgresql://{postgres.USER}:pw@postgres:5432/{postgres.REGISTRY}"
    )
    flags = " ".join(flag for flag in local.argv if flag.startswith("-X"))
    assert environment.pop("JAVA_OPTS_APPEND") == flags
    here = {"QUARKUS_HTTP_HOST", "QUARKUS_MANAGEMENT_HOST", "QUARKUS_MANAGEMENT_PORT"}
    secret = {"APICURIO_DATASOURCE_PASSWORD"}
    for names in (environment, dict(local.env)):
        assert secret <= set(names)
    assert {key: value for key, value in environment.items() if key not in here | secret} == {
        key: value for key, value in local.env.items() if key not in here | secret
    }


def test_every_lasting_service_has_a_health_check_and_every_store_a_volume() -> None:
    volumes = yaml.safe_load(TEXT)["volumes"]
    for name, service in SERVICES.items():
        if name != "connect-plugins":
            assert service["healthcheck"]["test"], name
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert set(volumes) <= mounted
    for source in mounted - set(volumes):
        assert (ROOT / source).exists(), source
