"""What every measurement stands on: services, a namespace of its own, child processes, and where results go."""

from __future__ import annotations

import json
import os
import platform
import shutil
import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

from headrace import settings, stack, topics
from headrace.fleet import Fleet
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints
from schemas.codec import Codec
from schemas.topics import MAX_TIMESTAMP_MS, TOPICS, physical
from streams.errors import HeadraceError
from streams.runtime import registry

REPO = Path(__file__).parent.parent
RESULTS = REPO / "bench" / "results"
"""Figures as JSON, plots, and the logs of what failed; not kept in the repository."""

END = "<!-- end -->"
"""Behind every table that a measurement puts into a document."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SAMPLE_EVERY_S = 0.05
_TOPICS_TIMEOUT_S = 30.0


class BenchError(HeadraceError):
    """Raised where a measurement cannot be made, or came out as something that must not be quoted."""


@contextmanager
def services() -> Iterator[Endpoints]:
    """The services that the settings name or the local stack; a stack that was down is stopped again."""
    loaded = settings.load()
    was_up = stack.endpoints(loaded.stack) is not None
    try:
        yield stack.up(loaded.stack, loaded.external())
    finally:
        if not was_up:
            stack.down(loaded.stack)


class Rig:
    """One namespace for one measurement: its topics, its settings, its children. A context manager that removes all.

    The children's logs are in ``folder``; they stay there where it ends with an error.
    """

    def __init__(self, found: Endpoints, pipeline: PipelineSettings) -> None:
        self.kafka = found.kafka
        self.admin = AdminClient({"bootstrap.servers": found.kafka, "log_level": 4})
        self.namespace = f"bench-{uuid.uuid4().hex[:10]}"
        self._found = found
        self._pipeline = pipeline
        self.folder = RESULTS / "logs" / self.namespace
        self.codec: Codec = registry.codec(found.registry, self.namespace)
        self.fleet = Fleet(self.folder, self._environment())

    def __enter__(self) -> Rig:
        topics.create(self.kafka, self.namespace, self._pipeline.record(), self.codec)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.fleet.stop()
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._delete(self._ours())

    def renew(self, agent: str) -> None:
        """Throw the results and the state of an agent away, so that it begins again at the start of its source."""
        names = [
            name for name, topic in TOPICS.items() if agent in topic.written_by and topic.role != "internal"
        ]
        self._delete([physical(self.namespace, name) for name in names])
        topics.create(self.kafka, self.namespace, self._pipeline.record(), self.codec)

    def empty(self, topic: str, partitions: int) -> None:
        """Make a topic (its name on the broker) that is none of Headrace's; one that is there is made anew."""
        self._delete([topic])
        config = {"retention.ms": "-1", "message.timestamp.after.max.ms": MAX_TIMESTAMP_MS}
        made = self.admin.create_topics([NewTopic(topic, partitions, replication_factor=1, config=config)])
        made[topic].result(_TOPICS_TIMEOUT_S)

    def delete(self, part: str) -> None:
        """Delete every topic of this namespace whose name has ``part`` in it."""
        self._delete([name for name in self._ours() if part in name])

    def _ours(self) -> list[str]:
        return [name for name in self.admin.list_topics(timeout=10).topics if self.namespace in name]

    def _delete(self, names: Sequence[str]) -> None:
        """Delete those of ``names`` that are there, and wait until they are gone."""
        known = self.admin.list_topics(timeout=10).topics
        there = [name for name in names if name in known]
        if there:
            for future in self.admin.delete_topics(there, operation_timeout=_TOPICS_TIMEOUT_S).values():
                future.result(_TOPICS_TIMEOUT_S)
        deadline_s = time.monotonic() + _TOPICS_TIMEOUT_S
        while set(there) & set(self.admin.list_topics(timeout=10).topics):
            if time.monotonic() > deadline_s:
                raise BenchError(
                    f"topics are not gone {_TOPICS_TIMEOUT_S:g} s after they were deleted: {there}"
                )
            time.sleep(0.1)

    def _environment(self) -> dict[str, str]:
        """What the children are told; how workers behave (section worker) is what the user's own settings say."""
        return {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(REPO), os.environ.get("PYTHONPATH")))),
            "HEADRACE_NAMESPACE": self.namespace,
            "HEADRACE_KAFKA__BOOTSTRAP": self.kafka,
            "HEADRACE_REGISTRY__URL": self._found.registry,
            "HEADRACE_DATABASE__URL": self._found.database,
            "HEADRACE_PIPELINE": self._pipeline.model_dump_json(),
            "HEADRACE_WORKER__STATE_DIR": str(self.folder / "state"),
        }

    def wait_until(
        self, done: Callable[[], bool], what: str, *, timeout_s: float, every_s: float = 0.2
    ) -> None:
        """Raises `BenchError` where it takes too long, `headrace.fleet.GaveUp` where a child keeps ending."""
        deadline_s = time.monotonic() + timeout_s
        while not done():
            self.fleet.check()
            if time.monotonic() > deadline_s:
                raise BenchError(f"{what}: not within {timeout_s:g} s; logs in {self.folder}")
            time.sleep(every_s)


class CpuMeter:
    """CPU time of a process, sampled while it runs, so that any stretch of it can be asked for afterwards."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._times: list[float] = []
        self._used: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="cpu-meter", daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.is_set():
            try:
                fields = self._stat.read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                return
            self._times.append(time.time())
            self._used.append((int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND)
            self._stop.wait(_SAMPLE_EVERY_S)

    def close(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def seconds(self, begin_s: float, end_s: float) -> float:
        """CPU seconds, user and system, between two moments of the wall clock, to the nearest samples."""
        last = len(self._times) - 1
        at = [min(bisect_left(self._times, moment), last) for moment in (begin_s, end_s)]
        return self._used[at[1]] - self._used[at[0]]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpus": os.cpu_count(),
        "model": models[0] if models else platform.processor(),
        "python": platform.python_version(),
        "load_average": load(),
    }


def load() -> float:
    """The load average of the last minute: how busy the machine is with this and all else."""
    return round(os.getloadavg()[0], 2)


def put(document: Path, begin: str, table: str) -> None:
    """Put a table into a document, between the mark ``begin`` and the next `END`."""
    head, _, rest = document.read_text("utf-8").partition(begin)
    tail = rest.partition(END)[2]
    document.write_text(f"{head}{begin}\n\n{table}\n\n{END}{tail}", encoding="utf-8")


def save(name: str, figures: Mapping[str, Any]) -> Path:
    """Write figures as JSON into `RESULTS`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return path
