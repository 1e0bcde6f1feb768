"""The local stack: Kafka, a schema registry and PostgreSQL with TimescaleDB as child processes, no Docker."""

from headrace.stack.errors import (
    DiskFull,
    DownloadFailed,
    MavenMissing,
    NotDebian,
    PortTaken,
    StackError,
    StartFailed,
    Unreachable,
)
from headrace.stack.local import ServiceStatus, down, endpoints, status, up, without_password
from headrace.stack.settings import Endpoints, ExternalServices, StackSettings

__all__ = [
    "DiskFull",
    "DownloadFailed",
    "Endpoints",
    "ExternalServices",
    "MavenMissing",
    "NotDebian",
    "PortTaken",
    "ServiceStatus",
    "StackError",
    "StackSettings",
    "StartFailed",
    "Unreachable",
    "down",
    "endpoints",
    "status",
    "up",
    "without_password",
]
