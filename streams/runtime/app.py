"""One agent as a Faust app and consumer group of its own, run in a process of its own."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
from typing import Any

import faust
import faust.topics
from faust.tables.manager import TableManager
from faust.types.tables import CollectionT

from schemas.codec import Codec
from schemas.topics import TOPICS, physical
from streams.agent import Agent
from streams.errors import StartTimeout
from streams.runtime.config import RuntimeConfig
from streams.runtime.runs import Run
from streams.runtime.transport import Transport
from streams.runtime.worker_state import WorkerState

QUIET = ("aiokafka", "faust", "mode", "kafka")
"""Loggers that build records below WARNING for every message, to drop them in the handler."""


class RunTopic(faust.topics.Topic):  # type: ignore[misc]
    """A topic whose messages hold runs: nothing is decoded before the agent has the whole of one."""

    def _compile_decode(self) -> None:
        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return self._create_event(None, message.value, headers=None, message=message)

        self.decode = decode


class StateTables(TableManager):  # type: ignore[misc]
    """Faust's tables as declarations: name, partitions and changelog. Commit and recovery are `Ownership`'s.

    Faust would recover a record at a time, hang on a transactional changelog's tail, and lets a zombie's late write
    win; so no changelog is handed to its recovery.
    """

    def add(self, table: CollectionT) -> CollectionT:
        self[table.name] = table
        return table

    async def _update_channels(self) -> None:
        self._tables_finalized.set()
        self._tables_registered.set()


class AgentApp(faust.App):  # type: ignore[misc]
    """The Faust app of one agent."""

    def __init__(self, config: RuntimeConfig, agent: Agent[Any, Any], codec: Codec) -> None:
        self.worker_state = WorkerState(config, agent, codec)
        source = TOPICS[agent.source]
        super().__init__(
            f"{config.namespace or 'live'}.headrace-{agent.name}",
            broker=f"headrace://{config.bootstrap}",
            store="memory://",
            Topic=RunTopic,
            TableManager=StateTables,
            topic_partitions=source.partitions,
            topic_disable_leader=True,
            topic_allow_declare=False,
            key_serializer="raw",
            value_serializer="raw",
            web_enabled=False,
            table_standby_replicas=0,
            stream_recovery_delay=0.0,
            stream_wait_empty=True,
            consumer_auto_offset_reset="earliest",
            consumer_group_instance_id=config.instance,
            broker_commit_interval=config.commit_interval_ms / 1e3,
            broker_session_timeout=config.session_timeout_ms / 1e3,
            broker_heartbeat_interval=max(config.session_timeout_ms / 5e3, 0.2),
            broker_rebalance_timeout=config.rebalance_timeout_ms / 1e3,
        )
        self.Table(
            f"{agent.name}-state",
            partitions=source.partitions,
            changelog_topic=self._changelog(config, agent),
        )
        self.agent(self.topic(self.worker_state.source, key_type=bytes, value_type=bytes), name=agent.name)(
            self._run
        )
        self.task(self._start_deadline)

    def _changelog(self, config: RuntimeConfig, agent: Agent[Any, Any]) -> Any:
        return self.topic(
            physical(config.namespace, f"{agent.name}.changelog"), key_type=bytes, value_type=bytes
        )

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Nothing is kept on disk; Faust would make a folder where the process happens to stand."""

    async def _run(self, stream: Any) -> None:
        apply = self.worker_state.apply
        async for event in stream.events():
            runs: list[tuple[int, Run]] = event.value
            apply(runs)

    async def _start_deadline(self) -> None:
        """A worker that hangs at start (Faust's recovery may, faust-streaming#432) ends instead of looking alive."""
        state = self.worker_state
        await asyncio.sleep(state.config.start_deadline_s)
        if not state.is_ready:
            limit = f"{state.config.start_deadline_s:.0f} s"
            state.fatal("start", StartTimeout(f"no partition of {state.source} was assigned within {limit}"))


def run_worker(config: RuntimeConfig, agent: Agent[Any, Any], codec: Codec) -> None:
    """Run one agent until SIGTERM or SIGINT; does not return."""
    import uvloop

    faulthandler.enable()  # a crash in one of the C libraries would otherwise end the process without a word
    uvloop.install()
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns of every commit that waits for its turn.
    logging.getLogger("mode.timers").setLevel(logging.ERROR)
    if TOPICS[agent.source].role == "source":
        from streams.runtime import walk

        walk.prepare()  # compiled in the middle of the work, it would cost the worker its membership
    app = AgentApp(config, agent, codec)
    worker = faust.Worker(app, loglevel="WARN", override_logging=False, quiet=True)
    worker.spinner = None  # it moves a cursor, in log files too
    worker.execute_from_commandline()
