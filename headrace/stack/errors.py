"""The errors of the local stack, each with a message that says what to do.

StackError
├── MavenMissing     no `mvn` on the PATH
├── NotDebian        TimescaleDB comes as Debian packages, and this is another system
├── DownloadFailed   a package registry could not be reached, or refused
├── DiskFull         too little space, before or during the work
├── PortTaken        a fixed port is in use
├── StartFailed      a service ended, or was not ready in time
├── Unreachable      a service named in the settings does not answer
├── BackupFailed     no backup was made
└── NotRestored      a backup is not whole, or cannot be put where it should go
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

COMPOSE_HINT = "`docker compose -f docker-compose.kafka.yml up` runs the same stack in containers"


class StackError(Exception):
    """Something the local stack cannot do; the message is meant for the person at the terminal."""


class MavenMissing(StackError):
    """Maven, which fetches Kafka and the registry, is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "Maven is needed to fetch Kafka and the schema registry, and `mvn` is not on the PATH.\n"
            "Install it (Debian: apt-get install maven), or name running services in the settings "
            f"(kafka.bootstrap, registry.url); {COMPOSE_HINT}."
        )


class NotDebian(StackError):
    """The private-prefix route to TimescaleDB needs Debian's package tools and keys."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"PostgreSQL with TimescaleDB is taken from Debian packages, and this is {found}.\n"
            "Name a running database in the settings (database.url) and the rest of the stack works here; "
            f"{COMPOSE_HINT}."
        )


class DownloadFailed(StackError):
    """A download did not finish.

    Args:
        what: what was being fetched, e.g. "Kafka 4.1.0".
        source: the kind of registry it comes from, e.g. "a Maven repository".
        reason: the tool's own words.
        advice: what the user can change.
    """

    def __init__(self, what: str, source: str, reason: str, advice: str) -> None:
        super().__init__(f"{what} could not be fetched from {source}:\n{reason}\n{advice}")


class DiskFull(StackError):
    """There is not enough room under `folder`."""

    def __init__(self, folder: Path, need_mb: int | None = None, free_mb: int | None = None) -> None:
        figures = "" if need_mb is None else f": {need_mb} MB are needed, {free_mb} MB are free"
        super().__init__(
            f"the disk that holds {folder} is full{figures}.\n"
            "Make room, or set stack.data_dir and stack.cache_dir to folders on another disk."
        )


class PortTaken(StackError):
    """A port that must be used (`stack.fixed_ports`) belongs to another process."""

    def __init__(self, service: str, port: int) -> None:
        super().__init__(
            f"port {port}, wanted for {service}, is in use by another process.\n"
            f"Stop that process, set stack.ports.{service} to another port, or set stack.fixed_ports = false "
            "to let headrace choose a free one."
        )


class StartFailed(StackError):
    """A service ended, or did not become ready in time.

    Args:
        service: its name.
        reason: what was seen, e.g. "ended with exit status 1".
        log: its log file; the last lines are part of the message.
        advice: what the user can change, where that is known.
    """

    def __init__(
        self, service: str, reason: str, log: Path, last_lines: Sequence[str], advice: str = ""
    ) -> None:
        shown = "".join(f"    {line}\n" for line in last_lines)
        words = f". The end of {log}:\n{shown}" if shown else f", and its log {log} is empty.\n"
        super().__init__(
            f"{service} {reason}{words}"
            + (advice or "`headrace down` stops what is left; `headrace up` tries again.")
        )


class Unreachable(StackError):
    """A service that the settings name as running does not answer."""

    def __init__(self, service: str, setting: str, address: str, reason: str) -> None:
        super().__init__(
            f"{service} at {address}, named by the setting {setting}, does not answer: {reason}.\n"
            f"Start it, correct {setting}, or leave it unset to use the local stack."
        )


class BackupFailed(StackError):
    """No backup was made; the stack is as it was."""


class NotRestored(StackError):
    """A backup is not whole, or cannot be put where it should go; nothing was changed."""
