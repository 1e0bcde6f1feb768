"""What the sink raises.

    SinkError
    ├── TopicsMissing    a topic that the sink reads is not on the broker
    ├── PositionLost     Kafka no longer has (or never had) the offset where the sink would go on
    ├── TopicDeleted     a topic is not the one that the run's rows came from
    ├── OutOfGroup       Kafka has put this process out of its group for good
    └── RunRemoved       the run was removed from the database while its sink wrote to it

An outage of Kafka, of the registry or of the database is none of them: the sink waits it out.
"""

from __future__ import annotations


class SinkError(Exception):
    """Base of the sink's errors; the message says what to do."""


class TopicsMissing(SinkError):
    """A topic that the sink reads is not on the broker."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"a topic is missing on the broker ({detail}): create them with `headrace topics create`"
        )


class PositionLost(SinkError):
    """Kafka does not have the offset where the sink would go on."""

    def __init__(self, run: str, detail: str) -> None:
        super().__init__(
            f"run {run!r} cannot go on where it stopped ({detail}): records were deleted before they"
            " were stored, or the topics were made anew; remove the run from the database to start again"
        )


class TopicDeleted(SinkError):
    """A topic was deleted and made again: its offsets are none of those that the database holds."""

    def __init__(self, run: str, topic: str) -> None:
        super().__init__(
            f"{topic} was deleted and made again since run {run!r} was last stored: nothing of the new one is taken."
            " Bring all topics back from a backup (`headrace restore`), take another namespace, or remove the run"
            f" from the database (`delete from sink_offsets where run = '{run}'`, and its rows) to store it anew"
        )


class OutOfGroup(SinkError):
    """Kafka has put this process out of its group for good: it would be given nothing any more."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"Kafka gives this process nothing any more ({detail}): start the sink again; it goes on where the"
            " database is. Where two processes have the same --instance, give each its own"
        )


class RunRemoved(SinkError):
    """The run was removed from the database while its sink wrote to it."""

    def __init__(self, run: str) -> None:
        super().__init__(
            f"run {run!r} was removed from the database while its sink ran: start the sink again"
        )
