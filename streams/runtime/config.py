"""What a worker needs to know; built by `headrace.settings` from environment and ``headrace.toml``."""

from __future__ import annotations

import msgspec

from schemas.topics import TOPICS, physical

INNER_FETCH_WAIT_MS = 100


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker and the registry are, and how a worker behaves. Nothing here changes a result."""

    bootstrap: str
    registry: str
    namespace: str = ""
    source_namespace: str | None = None
    """Of the source topics, where it is another one, as in a replay."""
    until: tuple[int, ...] | None = None
    """By partition of the agent's source: nothing from this offset on is applied. None: everything is."""
    instance: str | None = None
    """Static membership: a worker that comes back under the same name gets its partitions without a rebalance."""
    commit_interval_ms: int = 250
    """Least time between commits; see `streams.runtime.pace`."""
    fetch_max_wait_ms: int = 2
    """Of market.ticks: how long (ms) the broker gathers ticks before it answers; see `fetch_wait`."""
    fetch_min_bytes: int = 100_000
    """With ``fetch_max_wait_ms``: the broker answers at whichever is reached first.

    At 10,000 ticks a second a bar is there 3 ms later with 5 ms, for a tenth less CPU; 1 byte costs a third more CPU.
    """
    fetch_partition_bytes: int = 1_048_576
    """The most that is fetched of a partition at once, as it lies in Kafka (compressed).

    It bounds a worker's memory however far behind it is: of each partition there is one such stretch unpacked,
    whose runs are being applied, and at most one more as it was fetched.
    """
    output_buffer_kb: int = 65_536
    """Outputs to one topic that Kafka has not acknowledged yet, KiB; where there are more, the worker waits."""
    max_run_records: int = 20_000
    """A longer fetched stretch of ticks is cut into runs of this many records; see `run_records`."""
    state_dir: str | None = None
    """Where local copies of states are kept; None: nowhere. See `streams.runtime.copies`."""
    standbys: bool = True
    """Whether a worker also keeps copies of the partitions that others own."""
    session_timeout_ms: int = 10_000
    rebalance_timeout_ms: int = 30_000
    stall_limit_s: float = 15.0
    """A worker whose partition does not move for so long, though records wait, ends with an error."""
    start_deadline_s: float = 60.0
    """A worker that owns nothing by then, and was not told to own nothing, ends with an error."""

    def source_topic(self, source: str) -> str:
        """An agent's input on the broker."""
        is_read_there = self.source_namespace is not None and TOPICS[source].role == "source"
        return physical(self.source_namespace or "" if is_read_there else self.namespace, source)

    def fetch_wait(self, topic: str) -> tuple[int, int]:
        """How long (ms) the broker may wait before it answers a fetch, and for how much (bytes).

        Ticks trickle: paced, they cost a fetch each few milliseconds instead of one for every record. An inner topic
        is silent between bursts: the broker answers as soon as there is anything, and an idle worker hardly asks.
        """
        if TOPICS[topic].role == "source":
            return self.fetch_max_wait_ms, self.fetch_min_bytes
        return INNER_FETCH_WAIT_MS, 1

    def run_records(self, topic: str) -> int:
        """The most records of a topic in a run, so that applying one stays well below a second.

        A snapshot costs as much as some hundred ticks: it is a bar of every symbol, and every strategy decides on it.
        """
        return self.max_run_records if TOPICS[topic].role == "source" else max(1, self.max_run_records // 400)
