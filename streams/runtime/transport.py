"""A Faust transport whose messages hold runs and whose commit moves state and position together.

Faust keeps group membership, assignment, agents and streams. Replaced is what costs time for every record or is
wrong for runs (each with its place in faust-streaming 0.15.3 and aiokafka 0.14):

* fetching: a run per fetched stretch instead of an object per record (`batches`; aiokafka consumer/fetcher.py)
* draining: no task pair per message (`Consumer._drain_messages`; transport/consumer.py)
* acknowledging: Faust's ledger of acked offsets is kept empty; the position lives in `Ownership`
* seeking: to the position that was committed with the state, not to the group's offset (`Consumer.perform_seek`)
* assigning: the partitions that the topic was declared with, not those that the client has heard of (`assignor_of`)
* committing: one transaction per partition (`Consumer.force_commit`), behind bursts of outputs (`pace`); the group's
  offsets follow for lag monitors
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from schemas.topics import TOPICS
from streams.errors import DeliveryFailed
from streams.runtime import batches
from streams.runtime.ownership import Cut, Outcome, Ownership
from streams.runtime.pace import SETTLE_S, Pace
from streams.runtime.runs import Run
from streams.runtime.worker_state import TAKE_OVER_LIMIT_S, WorkerState

log = logging.getLogger("headrace.transport")

ACK_POLL_S = 0.001
DELIVERY_POLL_S = 0.005
IDLE_POLL_S = 0.05
GROUP_OFFSETS_EVERY_S = 1.0
GROUP_OFFSETS_LIMIT_S = 5.0
STOP_LIMIT_S = 10.0
"""How long a worker that was told to stop waits for acknowledgements before it leaves without a last commit."""


def assignor_of(topic: str, partitions: int) -> type[RoundRobinPartitionAssignor]:
    """aiokafka's round robin over the partitions that ``topic`` was declared with.

    It would ask what the client knows of the topic, and where that is nothing, as right after a restart of the broker,
    give nobody anything: a group that is content, and works on nothing.
    """

    class Declared(RoundRobinPartitionAssignor):  # type: ignore[misc]
        @classmethod
        def assign(cls, cluster: Any, members: Any) -> Any:
            known = ClusterMetadata()
            known.partitions_for_topic = {topic: set(range(partitions))}.get
            return super().assign(known, members)

    return Declared


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """aiokafka's consumer with a short fetch wait and runs for records."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        worker = cast(Consumer, self.consumer).worker
        config, source = worker.config, worker.agent.source
        batches.install(config.run_records(source), by_kernel=TOPICS[source].role == "source")
        consumer = super()._create_worker_consumer(transport)
        assignor = assignor_of(worker.source, TOPICS[source].partitions)
        consumer._partition_assignment_strategy = [assignor]
        # The driver hard-codes a wait of 1500 ms.
        consumer._fetch_max_wait_ms, consumer._fetch_min_bytes = config.fetch_wait(source)
        consumer._max_partition_fetch_bytes = config.fetch_partition_bytes
        return consumer

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """The group's offsets serve lag monitors only: a failure is no reason to stop."""
        assigned = self.assignment()
        wanted = {
            driver.ensure_aiokafka_TP(tp): driver.OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in assigned
        }
        try:
            if wanted:
                await self._ensure_consumer().commit(wanted)
        except KafkaError as error:
            log.debug("group offsets not written: %r", error)
            return False
        return True

    async def seek_all(self, positions: Mapping[TP, int]) -> None:
        """Seek on the thread that fetches: from another one, a fetch under way could overwrite the position."""
        await self.call_thread(self._seek_all, positions)

    async def _seek_all(self, positions: Mapping[TP, int]) -> None:
        for tp, offset in positions.items():
            self.seek(driver.ensure_aiokafka_TP(tp), offset)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust judges by acked offsets, which are not kept here."""


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Owns partitions through `Ownership` and commits them in transactions."""

    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker: WorkerState = self.app.worker_state
        self._owning = asyncio.Lock()
        self._committing = asyncio.Lock()
        self._seeks = 0
        self._sought_generation: int | None = None
        self._stop_by: float | None = None
        self._most_records = self.worker.config.run_records(self.worker.agent.source)
        self._pace = Pace(self.worker.config.commit_interval_ms / 1e3)
        self._group_offsets: dict[TP, int] = {}
        self._group_offsets_at = 0.0
        self._delivery_poll: asyncio.Task[None] | None = None

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def on_start(self) -> None:
        await super().on_start()
        self._delivery_poll = asyncio.create_task(self._poll_deliveries())

    async def _poll_deliveries(self) -> None:
        """Deliveries are counted on the loop's thread, so that an epoch needs no lock."""
        while True:
            try:
                is_idle = self.worker.port.poll()
            except DeliveryFailed as error:
                self.worker.fatal("an output was refused", error)
            await asyncio.sleep(IDLE_POLL_S if is_idle else DELIVERY_POLL_S)

    async def on_stop(self) -> None:
        await super().on_stop()
        if self._delivery_poll is not None:
            self._delivery_poll.cancel()

    # ---- fetching and draining

    def _to_message(self, tp: TP, record: list[tuple[int, Run]]) -> ConsumerMessage:
        """Runs with their partitions as one message, which for Faust is one of the first one's partition."""
        _, first = record[0]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            first.next_offset - 1,
            first.last_timestamp_ms / 1e3,
            0,
            None,
            None,
            record,
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _drain_messages(self, fetcher: Any) -> None:
        app, callback = self.app, self.callback
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                seeks = self._seeks
                records, active = await self._wait_next_records(1.0)
                generation = app.consumer_generation_id
                if not records or self.should_stop:
                    await asyncio.sleep(0)
                    continue
                if not self.flow_active or not self._is_sought(seeks, generation):
                    await self.perform_seek()
                    continue
                wanted = {
                    tp: runs
                    for tp, runs in records.items()
                    if active is None or tp in active or tp in self._buffered_partitions
                }
                for tp, runs in together(by_event_time(wanted), self._most_records):
                    if not self.flow_active or app.consumer_generation_id != generation:
                        break  # the seek at the end of the rebalance fetches the rest again
                    await callback(self._to_message(tp, runs))
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            if not app.should_stop:
                raise
        except self.consumer_stopped_errors:
            if not app.should_stop:
                raise

    def _is_sought(self, seeks: int, generation: int) -> bool:
        """Whether what was fetched since ``seeks`` goes on from our positions.

        After a rebalance Faust lets records flow before it seeks (tables/recovery.py), and aiokafka fetches from the
        group's offset: handed over, such runs would meet a partition that is being opened, and leave a hole.
        """
        return self._seeks == seeks and self._sought_generation == generation and not self._owning.locked()

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps between offsets need no ledger: a run knows what it covers."""

    # ---- owning

    async def perform_seek(self) -> None:
        """Open what is newly assigned and seek every partition to its own position.

        Called by the fetcher and at the end of a rebalance, at times by both: one at a time, or a process would
        fence itself. Faust cancels it where the next rebalance begins; a thread that opens cannot be cancelled, so
        what was begun ends before the next begins.
        """
        await asyncio.shield(asyncio.ensure_future(self._take_over()))

    async def _take_over(self) -> None:
        async with self._owning:
            worker, generation = self.worker, self.app.consumer_generation_id
            wanted = {tp for tp in self.assignment() if tp.topic == worker.source}
            await self._give_up_all_but(wanted)
            opening = [
                worker.new_ownership(tp.partition) for tp in wanted if tp.partition not in worker.owned
            ]
            began_s = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(TAKE_OVER_LIMIT_S):
                    await asyncio.gather(*[asyncio.to_thread(owner.open) for owner in opening])
            except Exception as error:
                worker.fatal("cannot take over a partition", error)
            if generation != self.app.consumer_generation_id:
                for owner in opening:  # rebalanced meanwhile: the seek of that rebalance opens again
                    worker.port.release(worker.agent.name, owner.where.partition)
                return
            worker.took_over(opening, asyncio.get_running_loop().time() - began_s)
            for owner in opening:
                worker.owned[owner.where.partition] = owner
            try:
                await self._thread.seek_all({tp: worker.owned[tp.partition].next_offset for tp in wanted})
            except IllegalStateError:
                return  # as above: one of them is not ours any more
            self._seeks += 1
            self._sought_generation = generation
            worker.ready(sorted(tp.partition for tp in wanted))

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stops the flow, then commits: runs are applied synchronously, so nothing is half done."""
        self.worker.rebalances()
        await super().on_partitions_revoked(revoked)
        await self.force_commit()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """What is not ours any more is given up before anything else can be applied to it."""
        await self._give_up_all_but(assigned)
        if not assigned:
            self.worker.ready([])  # there are more workers than partitions; Faust seeks nothing then
        await super().on_partitions_assigned(assigned, generation_id)

    async def _give_up_all_but(self, kept: set[TP]) -> None:
        """Not while a commit is under way: it would lose its producer, or find that of the next ownership."""
        async with self._committing:
            for partition in [p for p in self.worker.owned if TP(self.worker.source, p) not in kept]:
                self.worker.owned.pop(partition).close()
                self.worker.port.release(self.worker.agent.name, partition)

    # ---- committing

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Called by a timer, and at the end; see `streams.runtime.pace`."""
        if start_new_transaction and not self.should_stop and not await self._is_time():
            return False
        committed: bool = await super().commit(topics, start_new_transaction)
        return committed

    async def _is_time(self) -> bool:
        """Wait for the moment at which a commit that is due may begin; False where none is due."""
        worker, now_s = self.worker, asyncio.get_running_loop().time
        if not self._pace.is_due(now_s(), worker.port.sent, worker.applied):
            return False
        while not self.should_stop:
            await asyncio.sleep(SETTLE_S)
            port = worker.port
            if self._pace.may_begin(now_s(), port.sent, worker.applied, port.is_pending):
                break
        return True

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Cut every partition, wait for the outputs up to the cut, commit it in its transaction.

        One partition after another: transactions at once keep broker and client busy together, and the outputs that
        are made meanwhile wait for both.
        """
        loop = asyncio.get_running_loop()
        async with self._committing:
            self._acked.clear()
            self._acked_index.clear()
            self._n_acked = 0
            began_s, cutting_s, committed = loop.time(), 0.0, False
            for owner in list(self.worker.owned.values()):
                try:
                    cutting_s -= loop.time()
                    cut = owner.cut()
                    cutting_s += loop.time()
                    if cut is None:
                        continue
                    if not await self._acknowledged(owner, cut):
                        return False
                    outcome = await asyncio.to_thread(owner.commit, cut)
                except Exception as error:
                    self.worker.fatal("commit failed", error)
                self._settle(owner, cut, outcome)
                committed = True
            self._pace.committed(began_s, cutting_s)
            await self._write_group_offsets()
            return committed

    async def _acknowledged(self, owner: Ownership, cut: Cut) -> bool:
        """Wait for the outputs up to the cut. False where the worker has to stop without them.

        The broker may be away for as long as it likes; who starts next does again what was not committed.
        """
        while not Ownership.acknowledged(cut):
            if self._is_out_of_time():
                log.warning("%s: outputs not acknowledged; stopped without a last commit", owner.where)
                return False
            self.worker.port.poll()
            await asyncio.sleep(ACK_POLL_S)
        return True

    def _is_out_of_time(self) -> bool:
        if not self.app.should_stop:
            return False
        now = asyncio.get_running_loop().time()
        if self._stop_by is None:
            self._stop_by = now + STOP_LIMIT_S
        return now > self._stop_by

    def _settle(self, owner: Ownership, cut: Cut, outcome: Outcome) -> None:
        owner.settle(cut, outcome)
        if outcome is Outcome.COMMITTED:
            self._group_offsets[TP(self.worker.source, owner.where.partition)] = cut.next_offset
        else:
            log.warning("transaction of %s aborted; its changes go with the next", owner.where)

    async def _write_group_offsets(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._group_offsets and (now - self._group_offsets_at > GROUP_OFFSETS_EVERY_S or self.should_stop):
            offsets, self._group_offsets = self._group_offsets, {}
            self._group_offsets_at = now
            with suppress(TimeoutError):  # state is committed already; its next commit must not wait for this
                await asyncio.wait_for(self._commit(offsets), GROUP_OFFSETS_LIMIT_S)

    async def verify_all_partitions_active(self) -> None:
        """Faust's livelock detector reads its own ledger, which is kept empty here."""


def by_event_time(records: Mapping[TP, Iterable[Run]]) -> Iterator[tuple[TP, Run]]:
    """Runs of all partitions, the one with the lowest event time first; a partition's own order is kept.

    Keeps the bars that wait at the universes' barrier few. Never waits for a partition that has nothing.
    """
    heap: list[tuple[int, int, TP, Run, Iterator[Run]]] = []

    def push(order: int, tp: TP, rest: Iterator[Run]) -> None:
        run = next(rest, None)
        if run is not None:
            heapq.heappush(heap, (run.first_timestamp_ms, order, tp, run, rest))

    for order, (tp, runs) in enumerate(records.items()):
        push(order, tp, iter(runs))
    while heap:
        _, order, tp, run, rest = heapq.heappop(heap)
        yield tp, run
        push(order, tp, rest)


def together(runs: Iterable[tuple[TP, Run]], most_records: int) -> Iterator[tuple[TP, list[tuple[int, Run]]]]:
    """Runs with their partitions in messages of at most ``most_records``, as a run has; the order is kept.

    A message's way through Faust costs as much as applying a short run, and short runs come from all partitions at
    once. Each message is named by the partition of its first run.
    """
    first: TP | None = None
    message: list[tuple[int, Run]] = []
    count = 0
    for tp, run in runs:
        if first is not None and count + len(run) > most_records:
            yield first, message
            first, message, count = None, [], 0
        first = first or tp
        message.append((tp.partition, run))
        count += len(run)
    if first is not None:
        yield first, message


class Transport(driver.Transport):  # type: ignore[misc]
    """What `headrace` as a broker URL's scheme stands for."""

    Consumer = Consumer
