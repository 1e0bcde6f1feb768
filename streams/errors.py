"""What can go wrong in the dataflow, apart from bad input (which is data: it goes to the dead letters).

HeadraceError
└── StreamError
    ├── SettingsMissing        an input partition does not begin with its settings
    ├── UnknownKind            the settings name a bar kind that does not exist
    ├── StrategyError          a strategy is not what it must be
    │   ├── StrategyNotFound   no such entry point, file or class
    │   ├── StrategyInvalid    the class breaks the interface
    │   ├── ParametersInvalid  a parameter is unknown or ill-typed
    │   ├── StateMismatch      the state in the changelog does not fit the class any more
    │   ├── UndeclaredInput    on_snapshot read what the class does not declare (input is dead-lettered)
    │   └── BadDecision        on_snapshot returned what cannot be used (input is dead-lettered)
    ├── CopyUnfit              a local copy of a state cannot be used (it is thrown away, and the changelog read)
    └── RuntimeFault           our own failure: the process ends without a commit, and is started again
        ├── DeliveryFailed     Kafka did not take an output
        ├── Fenced             another process owns the partition now
        ├── InputLost          records that were not processed yet are no longer in the topic
        ├── TopicDeleted       a topic was deleted, and perhaps made again
        ├── StateUnreadable    the changelog holds what this build cannot read
        ├── StartTimeout       the worker was given no partition before its deadline
        └── Stalled            a partition does not move though records wait for it
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Base of every error of Headrace's own."""


class StreamError(HeadraceError):
    """Base of the dataflow's errors."""


class SettingsMissing(StreamError):
    """Raised by an agent that meets a record before the partition's settings."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(
            f"{topic}, partition {partition} has records before its settings: the topics were not made by "
            f"`headrace topics create`, which writes the settings first. Create them under a new namespace."
        )


class UnknownKind(StreamError):
    """Raised for a bar kind that cannot be parsed; ``expected`` says what would be right."""

    def __init__(self, kind: str, expected: str) -> None:
        super().__init__(f"unknown bar kind {kind!r}: write {expected}")


class StrategyError(StreamError):
    """Base of what is wrong with a strategy: its file, class, parameters, or what it does."""


class StrategyNotFound(StrategyError):
    """Raised at start where nothing can be loaded under the name in the settings."""


class StrategyInvalid(StrategyError):
    """Raised at start where the class does not satisfy `streams.signals.strategy.Strategy`."""


class ParametersInvalid(StrategyError):
    """Raised at start where the settings give a strategy a parameter that it does not take."""


class StateMismatch(StrategyError):
    """Raised where a strategy's stored state cannot be read by its class of today; ends the process."""

    def __init__(self, strategy: str, error: str) -> None:
        super().__init__(
            f"the stored state of strategy {strategy!r} does not fit its class any more: {error}. Give the fields "
            f"that are new a default, or raise the portfolio's epoch to start it anew."
        )


class UndeclaredInput(StrategyError):
    """Raised to a strategy that reads an input which its class does not declare."""


class BadDecision(StrategyError):
    """Raised for a return value of ``on_snapshot`` that cannot be used."""


class CopyUnfit(StreamError):
    """Raised where a local copy does not fit the changelog, or cannot be read: it is a cache, and goes."""


class RuntimeFault(StreamError):
    """Base of our own failures."""


class DeliveryFailed(RuntimeFault):
    """Raised at a commit whose outputs Kafka did not take."""


class Fenced(RuntimeFault):
    """Raised by a commit where another process has opened the partition meanwhile."""


class InputLost(RuntimeFault):
    """Raised where a run begins past the position: records between were deleted before they were processed."""

    def __init__(self, topic: str, partition: int, position: int, begin: int) -> None:
        super().__init__(
            f"{topic}, partition {partition}: offsets {position} to {begin - 1} were not processed and are gone. "
            f"Was the topic's retention changed, or the topic made again? Start again under a new namespace."
        )


class TopicDeleted(RuntimeFault):
    """Raised where a topic that was worked on is gone, or another has its name."""

    def __init__(self, topic: str, was: str, now: str | None) -> None:
        happened = "is gone" if now is None else f"was deleted and made again: it is {now} and was {was}"
        super().__init__(
            f"{topic} {happened}. Positions, states and results belong to the old one, so nothing of another is taken. "
            f"Bring all topics back from a backup (`headrace restore`), or start again under a new namespace."
        )


class StateUnreadable(RuntimeFault):
    """Raised at take-over where a state in the changelog cannot be read by this build."""

    def __init__(self, changelog: str, partition: int, key: bytes, error: str) -> None:
        super().__init__(
            f"{changelog}, partition {partition}, key {key!r} cannot be read: {error}. It was written by an "
            f"incompatible version: go back to that version, or start again under a new namespace."
        )


class StartTimeout(RuntimeFault):
    """Raised where a worker owns no partition by its start deadline."""


class Stalled(RuntimeFault):
    """Raised where a partition has not moved for a while though there are records to do."""
