"""When a worker commits: not before a burst of outputs, but behind it.

A commit keeps broker, client and processor busy for some ten milliseconds, and outputs that are made meanwhile come
later by as much. Outputs come in bursts, at the ends of windows. So a commit that is due waits for the next burst to be
in Kafka, for an interval at most: then there is the longest time until the burst after it.
"""

from __future__ import annotations

from typing import Final

CUTTING_SHARE: Final = 0.1
"""Of the event loop's time: the most that goes into cuts, which grow with the keys that changed."""
SETTLE_S: Final = 0.02
"""Without an output for so long, a burst has ended; those who read it have begun their work on it, too."""
IDLE_S: Final = 0.1
"""Without a run for so long, none is expected soon; who is quiet between two bursts is not idle."""


class Pace:
    """Tells when the next commit may begin. Times are of any clock that does not go back, in seconds."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._not_before_s = 0.0
        self._by_s = 0.0
        self._sent_first = self._sent = self._applied = 0
        self._still_since_s = 0.0

    def committed(self, began_s: float, cutting_s: float) -> None:
        """Take note of a commit that began then, and of how long its cuts kept the event loop."""
        self._not_before_s = began_s + cutting_s / CUTTING_SHARE

    def is_due(self, now_s: float, sent: int, applied: int) -> bool:
        """Asked once per interval. ``sent`` and ``applied`` count outputs and runs since the start."""
        if now_s < self._not_before_s:
            return False
        self._by_s = now_s + self._interval_s
        self._sent_first, self._sent, self._applied = sent, sent, applied
        self._still_since_s = now_s
        return True

    def may_begin(self, now_s: float, sent: int, applied: int, pending: bool) -> bool:
        """Asked every `SETTLE_S` once a commit is due. ``pending``: an output is not acknowledged yet.

        True behind a burst; where nothing is applied, since then there is nothing to disturb; and after an interval.
        """
        is_still = sent == self._sent and not pending
        behind_burst = is_still and sent != self._sent_first
        if not is_still or applied != self._applied:
            self._still_since_s = now_s
        self._sent, self._applied = sent, applied
        return behind_burst or now_s - self._still_since_s >= IDLE_S or now_s >= self._by_s
