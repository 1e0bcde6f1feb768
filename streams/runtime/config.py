"""What a worker needs to know; built by `headrace.settings` from environment and ``headrace.toml``."""

from __future__ import annotations

import msgspec


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker and the registry are, and how a worker behaves. Nothing here changes a result."""

    bootstrap: str
    registry: str
    namespace: str = ""
    instance: str | None = None
    """Static membership: a worker that comes back under the same name gets its partitions without a rebalance."""
    commit_interval_ms: int = 250
    """Time between the cuts that become transactions: what is computed again after a kill, at most."""
    fetch_max_wait_ms: int = 5
    fetch_min_bytes: int = 100_000
    """With ``fetch_max_wait_ms``: the broker answers at whichever is reached first."""
    max_run_records: int = 5_000
    """A longer fetched stretch of ticks is cut into runs of this many records; see `run_records`."""
    session_timeout_ms: int = 10_000
    rebalance_timeout_ms: int = 30_000
    start_deadline_s: float = 60.0
    """A worker that owns nothing by then, and was not told to own nothing, ends with an error."""

    def run_records(self, topic: str) -> int:
        """The most records of a topic in a run, so that applying one stays well below a second.

        A snapshot costs as much as a hundred ticks: it is a bar of every symbol, and every strategy decides on it.
        """
        return self.max_run_records if topic == "market.ticks" else max(1, self.max_run_records // 100)
