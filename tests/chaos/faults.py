"""What can happen to a pipeline. Each fault is a function that lets it happen, mends what nobody else would, and tells.

Processes of the pipeline are started again by their fleet; the services by `headrace.stack.up`, as by any supervisor.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from headrace import stack
from headrace.stack import StackSettings
from headrace.stack.processes import find
from headrace.stack.settings import ServiceName
from schemas.topics import physical
from streams.runtime.kafka import outputs_client_id
from tests.pipeline import SESSION_TIMEOUT_MS, KafkaRun


@dataclass
class Field:
    """What faults strike: a run, the stack under it, and the generator that every choice is drawn from."""

    run: KafkaRun
    stack: StackSettings
    rng: random.Random

    def agent(self) -> str:
        return self.rng.choice(self.run.agents)

    def processes(self, agent: str) -> list[str]:
        return [f"{agent}-{number}" for number in range(self.run.processes)]

    def kill(self, names: Iterable[str]) -> str:
        """SIGKILL, all at once."""
        names = list(names)
        for name in names:
            self.run.fleet.signal(name, signal.SIGKILL)
        return f"kill -9 {', '.join(names)}"

    def pause(self, least_s: float, most_s: float) -> None:
        time.sleep(self.rng.uniform(least_s, most_s))

    def kill_service(self, *services: ServiceName) -> str:
        """SIGKILL to services and all of their processes; after a while they are started again, on the same ports."""
        return self._end(services, signal.SIGKILL)

    def restart_service(self, *services: ServiceName) -> str:
        """As `kill_service`, but they are asked to stop, and do it in good order."""
        return self._end(services, signal.SIGTERM)

    def service(self, name: ServiceName) -> psutil.Process:
        child = find(self.stack.data_dir, name)
        process = None if child is None else child.process()
        assert process is not None, f"{name} is not up"
        return process

    def limit(self, client_id: str, bytes_per_s: int | None) -> None:
        """What the broker takes a second of producers that call themselves so; None: all they have."""
        java, *rest = self.service("kafka").cmdline()
        quota = "producer_byte_rate"
        subprocess.run(  # no client library speaks of quotas
            [
                *(java, "-XX:TieredStopAtLevel=1", "-cp", rest[rest.index("-cp") + 1]),
                *("kafka.admin.ConfigCommand", "--bootstrap-server", self.run.stack.kafka, "--alter"),
                *("--entity-type", "clients", "--entity-name", client_id),
                *(
                    ("--delete-config", quota)
                    if bytes_per_s is None
                    else ("--add-config", f"{quota}={bytes_per_s}")
                ),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )

    def _end(self, services: tuple[ServiceName, ...], number: signal.Signals) -> str:
        for service in services:
            process = self.service(service)
            family = [process, *process.children(recursive=True)]
            for member in family if number == signal.SIGKILL else family[:1]:
                member.send_signal(number)
            psutil.wait_procs(family, timeout=30)
        self.pause(0.5, 4.0)
        again = stack.up(self.stack)
        assert again == self.run.stack, "the services came back elsewhere"
        return f"{number.name} to {', '.join(services)}"


def one_process(field: Field) -> str:
    """One of two processes of an agent: the other takes its partitions over."""
    return field.kill([field.rng.choice(field.processes(field.agent()))])


def all_processes(field: Field) -> str:
    """Both processes of an agent at once."""
    return field.kill(field.processes(field.agent()))


def sink(field: Field) -> str:
    return field.kill(["sink"])


def connector(field: Field) -> str:
    """It goes on from what was acknowledged, and sends the rest again."""
    return field.kill(["ingest"])


def broker(field: Field) -> str:
    return field.kill_service("kafka")


def broker_restart(field: Field) -> str:
    """It forgets every producer whose last record has an event time of long ago: a kill would not make it forget."""
    return field.restart_service("kafka")


def registry(field: Field) -> str:
    return field.kill_service("registry")


def database(field: Field) -> str:
    return field.kill_service("postgres")


def zombie(field: Field) -> str:
    """Stopped until others have its partitions, then woken: what it still thinks it owns is no longer its own."""
    name = field.rng.choice(field.processes(field.agent()))
    field.run.fleet.signal(name, signal.SIGSTOP)
    field.pause(SESSION_TIMEOUT_MS / 1e3 + 2, SESSION_TIMEOUT_MS / 1e3 + 5)
    field.run.fleet.signal(name, signal.SIGCONT)
    return f"SIGSTOP, SIGCONT {name}"


def storm(field: Field) -> str:
    """Processes join and leave: a rebalance each time."""
    agent = field.agent()
    times = field.rng.randint(2, 3)
    for _ in range(times):
        name = f"{agent}-storm"
        field.run.join(agent, name)
        field.pause(1.0, 4.0)
        if field.rng.random() < 0.5:
            field.run.fleet.stop(name)
        else:
            field.run.fleet.kill(name)
    return f"{times} times {agent} joined and left"


def refusal(field: Field) -> str:
    """The broker takes no record of a topic for a while: outputs fail, and nothing may be committed without them."""
    topic = physical(field.run.namespace, field.rng.choice(REFUSABLE))
    admin = AdminClient({"bootstrap.servers": field.run.stack.kafka})

    def limit(operation: AlterConfigOpType) -> None:
        entry = ConfigEntry("max.message.bytes", "1", incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)

    limit(AlterConfigOpType.SET)
    field.pause(1.0, 3.0)
    limit(AlterConfigOpType.DELETE)
    return f"{topic} took no records"


def muted_outputs(field: Field) -> str:
    """Outputs of an agent stand still while its transactions pass, and with its queue full of them it is killed.

    What is committed then must not be ahead of what has got through.
    """
    agent = field.agent()
    client_id = outputs_client_id(agent)
    field.limit(client_id, MUTING_BYTES_S)
    field.pause(2.0, 4.0)
    field.limit(client_id, None)  # for the next ones: who has gone beyond stays muted for minutes
    return f"outputs muted, then {field.kill(field.processes(agent))}"


def full_disk(field: Field) -> str:
    """No file of a worker may grow for a while, as on a full disk: it goes on without local copies, and says so."""
    name = field.rng.choice(field.processes(field.agent()))
    pid = field.run.fleet.pid(name)
    with suppress(psutil.NoSuchProcess):  # it has just ended, of another fault
        process = psutil.Process(pid)
        before = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (FULL_AT_BYTES, before[1]))
        field.pause(2.0, 4.0)
        process.rlimit(psutil.RLIMIT_FSIZE, before)
    return f"full disk {name}"


FULL_AT_BYTES = 4_096
MUTING_BYTES_S = 10
REFUSABLE = ("market.bars", "universe.bars", "market.correlations", "trade.executions")
FAULTS: dict[str, Callable[[Field], str]] = {
    "one process": one_process,
    "all processes": all_processes,
    "sink": sink,
    "connector": connector,
    "broker": broker,
    "broker restart": broker_restart,
    "registry": registry,
    "database": database,
    "zombie": zombie,
    "storm": storm,
    "refusal": refusal,
    "muted outputs": muted_outputs,
    "full disk": full_disk,
}
