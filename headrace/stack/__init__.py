"""The local stack: Kafka, a schema registry and PostgreSQL with TimescaleDB as child processes, no Docker.

What starts and stops services is loaded when it is first used: every process knows the addresses of its services, and
hardly any keeps services.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.stack.errors import (
    BackupFailed,
    DiskFull,
    DownloadFailed,
    MavenMissing,
    NotDebian,
    NotRestored,
    PortTaken,
    StackError,
    StartFailed,
    Unreachable,
)
from headrace.stack.settings import Endpoints, ExternalServices, StackSettings

if TYPE_CHECKING:
    from headrace.stack.backups import backup, check, restore
    from headrace.stack.local import ServiceStatus, down, endpoints, status, up, without_password

__all__ = [
    "BackupFailed",
    "DiskFull",
    "DownloadFailed",
    "Endpoints",
    "ExternalServices",
    "MavenMissing",
    "NotDebian",
    "NotRestored",
    "PortTaken",
    "ServiceStatus",
    "StackError",
    "StackSettings",
    "StartFailed",
    "Unreachable",
    "backup",
    "check",
    "down",
    "endpoints",
    "restore",
    "status",
    "up",
    "without_password",
]


_BACKUPS = ("backup", "check", "restore")


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = "backups" if name in _BACKUPS else "local"
        return getattr(import_module(f"headrace.stack.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
