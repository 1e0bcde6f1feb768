"""Settings of the local stack, and the addresses that come out of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

ServiceName = Literal["kafka", "registry", "postgres"]

Port = Annotated[int, Field(ge=1, le=65535)]
Megabytes = Annotated[int, Field(ge=64)]
Folder = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


def _xdg(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default) / "headrace"


class Ports(BaseModel):
    """The ports to prefer; a busy one is replaced by a free one unless `fixed_ports` is set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kafka: Port = 9092
    registry: Port = 8081
    postgres: Port = 5432


class Memory(BaseModel):
    """How much memory each service may plan with, in MiB."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kafka_heap_mb: Megabytes = 512
    registry_heap_mb: Megabytes = 256
    postgres_shared_buffers_mb: Megabytes = 128


class StackSettings(BaseModel):
    """Where the local stack keeps its data and downloads, and what its services may use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_dir: Folder = Field(default_factory=lambda: _xdg("XDG_DATA_HOME", ".local/share"))
    cache_dir: Folder = Field(default_factory=lambda: _xdg("XDG_CACHE_HOME", ".cache"))
    ports: Ports = Ports()
    fixed_ports: bool = False
    memory: Memory = Memory()
    start_timeout_s: Annotated[float, Field(gt=0)] = 90.0


class ExternalServices(BaseModel):
    """Services that already run and are used instead of local ones; None means the local stack's.

    `kafka` is a bootstrap list, `registry` the URL of a Confluent-compatible API, `database` a
    `postgresql://` URL.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kafka: str | None = None
    registry: str | None = None
    database: str | None = None


class Endpoints(BaseModel):
    """Where the services answer: bootstrap servers, the registry's Confluent API, the database URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kafka: str
    registry: str
    database: str
