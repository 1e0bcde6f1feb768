"""What a worker process holds: its agent, its port, and the partitions that it owns."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from confluent_kafka.admin import AdminClient

from schemas.codec import Codec
from schemas.topics import TOPICS, physical
from streams.agent import Agent
from streams.errors import Stalled, TopicDeleted
from streams.runtime.config import RuntimeConfig
from streams.runtime.identity import TopicIds, TopicWatch, known_ids
from streams.runtime.kafka import KafkaPort, outputs_client_id
from streams.runtime.ownership import Ownership
from streams.runtime.runs import Run
from streams.runtime.stalls import Stall, StallWatch

if TYPE_CHECKING:
    from streams.runtime.copies import Copies
    from streams.runtime.standby import Standby

log = logging.getLogger("headrace.worker")

EXIT_FAULT = 3
_COLLECT_EVERY = 50_000
TAKE_OVER_LIMIT_S = 40.0
"""Faust gives up on a seek after 90 s (``broker_request_timeout``), silently; one may have to wait for another."""


class WorkerState:
    """Shared by the Faust app and the transport of one process."""

    def __init__(self, config: RuntimeConfig, agent: Agent[Any, Any], codec: Codec) -> None:
        self.config = config
        self.agent = agent
        self.source = config.source_topic(agent.source)
        changelog = physical(config.namespace, f"{agent.name}.changelog")
        admin = AdminClient({"bootstrap.servers": config.bootstrap}, logger=log)
        self.ids = TopicIds(*known_ids(admin, [self.source, changelog]))
        TopicWatch(admin, dict(zip((self.source, changelog), self.ids, strict=True)), self._deleted)
        copies = _copies(config, agent.name, self.ids.changelog)
        self.port = KafkaPort(
            config.bootstrap,
            config.namespace,
            client_id=outputs_client_id(agent.name),
            buffer_kb=config.output_buffer_kb,
            copies=copies,
        )
        self._standby = None if copies is None else _standby(config, agent.name, changelog, copies)
        self.owned: dict[int, Ownership] = {}
        self.applied = 0
        """Runs since the start."""
        self.is_ready = False
        self._step_began_s: float | None = None
        self._rebalance_began_s: float | None = None
        self._codec = codec
        self._announced: list[int] | None = None

    def new_ownership(self, partition: int) -> Ownership:
        """An ownership that is not open yet."""
        until = None if self.config.until is None else self.config.until[partition]
        return Ownership(self.agent, partition, self._codec, self.port, until=until, ids=self.ids)

    def apply(self, runs: Iterable[tuple[int, Run]]) -> None:
        """Apply runs, each with its partition, if that is still ours; their outputs leave together.

        A fault ends the process: nothing more is committed.
        """
        try:
            with self.port.together():
                for partition, run in runs:
                    owner = self.owned.get(partition)
                    if owner is not None:
                        self._apply(owner, run)
        except Exception as error:
            self.fatal("outputs cannot be sent", error)

    def _apply(self, owner: Ownership, run: Run) -> None:
        self._step_began_s = time.monotonic()
        try:
            owner.apply(run)
            self.applied += 1
            self._step_began_s = None
        except Exception as error:
            self.fatal(f"{self.agent.name} failed on {owner.where} from offset {owner.next_offset}", error)

    def rebalances(self) -> None:
        """Called when partitions are about to be shared out anew: until then they rightly stand still."""
        self._rebalance_began_s = time.monotonic()

    def took_over(self, opened: Sequence[Ownership], seconds: float) -> None:
        """Tell how long it took to open partitions, and of what their states were restored."""
        partitions = sorted(owner.where.partition for owner in opened)
        found = [self.port.restored[self.agent.name, partition] for partition in partitions]
        if any(each.keys for each in found):
            log.warning(
                "%s took over %s in %.3f s: %s keys, %s of them from local copies, %s records of the changelog",
                self.agent.name,
                partitions,
                seconds,
                *(f"{sum(column):,}" for column in zip(*found, strict=True)),
            )

    def ready(self, partitions: list[int]) -> None:
        """Called whenever the worker has taken over what it was assigned."""
        self._rebalance_began_s = None
        if self._standby is not None:
            self._standby.follow(set(range(TOPICS[self.agent.source].partitions)) - set(partitions))
        if not self.is_ready:
            self.is_ready = True
            config = self.config
            StallWatch(config.bootstrap, self.source, config.stall_limit_s, self._standings, self._stalled)
            # What was loaded stays: a full collection would walk all of it, a tenth of a second now and then. Records
            # hold no cycles and are not tracked; what is left to collect are the loop's own few.
            gc.collect()
            gc.freeze()
            gc.set_threshold(_COLLECT_EVERY, 20, 20)
        if partitions != self._announced:
            self._announced = partitions
            log.warning("%s owns partitions %s of %s", self.agent.name, partitions, self.source)

    def _standings(self) -> dict[int, tuple[int, int, int | None]]:
        """Asked by another thread: what it is told of one partition may be a moment old."""
        began_s = self._rebalance_began_s
        longest_s = self.config.rebalance_timeout_ms / 1e3 + TAKE_OVER_LIMIT_S
        if began_s is not None and time.monotonic() - began_s < longest_s:
            return {}
        began_s = self._step_began_s
        if began_s is not None and time.monotonic() - began_s < getattr(self.agent, "patience_s", 0.0):
            return {}
        until = self.config.until
        return {
            partition: (
                owner.next_offset,
                owner.committed_offset,
                None if until is None else until[partition],
            )
            for partition, owner in list(self.owned.items())
        }

    def _stalled(self, stall: Stall) -> None:
        self.fatal(self.source, Stalled(str(stall)))

    def _deleted(self, error: TopicDeleted) -> None:
        self.fatal(self.source, error)

    def fatal(self, what: str, error: BaseException) -> NoReturn:
        """End at once and without a commit; whoever takes over starts from the last one."""
        log.critical("%s: %s: %s", what, type(error).__name__, error, exc_info=error)
        logging.shutdown()
        os._exit(EXIT_FAULT)


def _copies(config: RuntimeConfig, agent: str, changelog_id: str) -> Copies | None:
    if config.state_dir is None:
        return None
    from streams.runtime.copies import open_copies  # RocksDB is for those who keep copies

    return open_copies(Path(config.state_dir), config.namespace, agent, config.instance, changelog_id)


def _standby(config: RuntimeConfig, agent: str, changelog: str, copies: Copies) -> Standby | None:
    if not config.standbys:
        return None
    from streams.runtime.standby import Standby

    group = f"{config.namespace or 'live'}.headrace-{agent}-standby"
    return Standby(config.bootstrap, changelog, group, copies)
