"""What a worker process holds: its agent, its port, and the partitions that it owns."""

from __future__ import annotations

import gc
import logging
import os
from typing import Any, NoReturn

from schemas.codec import Codec
from schemas.topics import physical
from streams.agent import Agent
from streams.runtime.config import RuntimeConfig
from streams.runtime.kafka import KafkaPort
from streams.runtime.ownership import Ownership
from streams.runtime.runs import Run

log = logging.getLogger("headrace.worker")

EXIT_FAULT = 3


class WorkerState:
    """Shared by the Faust app and the transport of one process."""

    def __init__(self, config: RuntimeConfig, agent: Agent[Any, Any], codec: Codec) -> None:
        self.config = config
        self.agent = agent
        self.source = physical(config.namespace, agent.source)
        self.port = KafkaPort(config.bootstrap, config.namespace, buffer_kb=config.output_buffer_kb)
        self.owned: dict[int, Ownership] = {}
        self.is_ready = False
        self._codec = codec
        self._announced: list[int] | None = None

    def new_ownership(self, partition: int) -> Ownership:
        """An ownership that is not open yet."""
        return Ownership(self.agent, partition, self._codec, self.port)

    def apply(self, partition: int, run: Run) -> None:
        """Apply a run if its partition is still ours. A fault ends the process: nothing more is committed."""
        owner = self.owned.get(partition)
        if owner is None:
            return
        try:
            owner.apply(run)
        except Exception as error:
            self.fatal(f"{self.agent.name} failed on {owner.where} from offset {owner.next_offset}", error)

    def ready(self, partitions: list[int]) -> None:
        """Called whenever the worker has taken over what it was assigned."""
        if not self.is_ready:
            self.is_ready = True
            # What was loaded stays: a full collection would walk all of it, a tenth of a second now and then.
            gc.collect()
            gc.freeze()
        if partitions != self._announced:
            self._announced = partitions
            log.warning("%s owns partitions %s of %s", self.agent.name, partitions, self.source)

    def fatal(self, what: str, error: BaseException) -> NoReturn:
        """End at once and without a commit; whoever takes over starts from the last one."""
        log.critical("%s: %s: %s", what, type(error).__name__, error, exc_info=error)
        logging.shutdown()
        os._exit(EXIT_FAULT)
