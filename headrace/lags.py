"""How far each process is behind: from offsets, as any lag monitor sees it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import confluent_kafka as ck
import psycopg
import sqlalchemy.exc
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.topics import TOPICS, physical
from sinks.timescale import SINK_TOPICS, queries
from sinks.timescale.tables import run_of
from streams.agent import Agent

SINK = "sink"
AWAY = (ck.KafkaException, psycopg.Error, sqlalchemy.exc.SQLAlchemyError)
"""What is raised where a lag cannot be told at the moment: a service is away, or the sink has made no tables yet."""
TIMEOUT_S = 10.0
_EVERY_S = 1.0

logger = logging.getLogger(__name__)


class Lags:
    """Asks for the lags of the agents and the sink every second, in a thread of its own, until `close`.

    ``behind`` holds records by agent's name, and by `SINK`; None before the first answer. ``drained`` is set once a
    round of questions that began after `feed_is_done` found nothing behind: upstream is asked first, and an agent's
    offset is written after its outputs, so nothing can still be on its way.
    """

    def __init__(
        self, bootstrap: str, database_url: str, namespace: str, agents: Iterable[Agent[Any, Any]]
    ) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap}, logger=logger)
        self._database_url = database_url
        self._namespace = namespace
        self._agents = [(agent.name, agent.source) for agent in agents]
        self.behind: dict[str, int | None] = {**{name: None for name, _ in self._agents}, SINK: None}
        self.drained = threading.Event()
        self._feed_done = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lags", daemon=True)
        self._thread.start()

    def feed_is_done(self) -> None:
        """Nothing more will be written to the source topics."""
        self._feed_done.set()

    def close(self) -> None:
        """Stop asking."""
        self._closed.set()
        self._thread.join(2 * TIMEOUT_S)

    def _watch(self) -> None:
        while not self._closed.wait(_EVERY_S):
            final = self._feed_done.is_set()
            try:
                behind: dict[str, int | None] = {name: self._agent(*agent) for name, *agent in self._groups()}
                behind[SINK] = self._sink()
            except AWAY as error:
                logger.debug("no lags: %s", error)
                continue
            self.behind = behind
            if final and not any(behind.values()):
                self.drained.set()

    def _groups(self) -> Iterable[tuple[str, str, str]]:
        for name, source in self._agents:
            yield name, f"{self._namespace or 'live'}.headrace-{name}", source

    def _agent(self, group: str, source: str) -> int:
        upto = ends(self._admin, self._namespace, [source])
        wanted = [ck.TopicPartition(*place) for place in upto]
        request = ck.ConsumerGroupTopicPartitions(group, wanted)
        answer = self._admin.list_consumer_group_offsets([request], request_timeout=TIMEOUT_S)[group].result()
        held = {(place.topic, place.partition): max(place.offset, 0) for place in answer.topic_partitions}
        return _behind(upto, held)

    def _sink(self) -> int:
        return sink_lag(self._admin, self._database_url, self._namespace)


def ends(admin: AdminClient, namespace: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """The next offset of every partition of ``topics`` (logical names), by (name on the broker, partition)."""
    asked = {
        ck.TopicPartition(physical(namespace, topic), number): OffsetSpec.latest()
        for topic in topics
        for number in range(TOPICS[topic].partitions)
    }
    answers = admin.list_offsets(asked, request_timeout=TIMEOUT_S)
    return {(place.topic, place.partition): told.result().offset for place, told in answers.items()}


def sink_lag(admin: AdminClient, database_url: str, namespace: str) -> int:
    """How many records of the result topics are not in the database yet."""
    upto = ends(admin, namespace, SINK_TOPICS)
    with queries.connect(database_url) as connection:
        held = queries.next_offsets(connection, run_of(namespace))
    return _behind(upto, {(physical(namespace, topic), number): at for (topic, number), at in held.items()})


def _behind(ends: Mapping[tuple[str, int], int], held: Mapping[tuple[str, int], int]) -> int:
    return sum(max(end - held.get(place, 0), 0) for place, end in ends.items())
