"""Every setting in one typed object: environment (``HEADRACE_…``), then ``headrace.toml``, then defaults."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from connectors.files.settings import FilesSettings
from connectors.simulator.settings import SimulatorSettings
from headrace import stack
from headrace.pipeline import PipelineSettings
from headrace.stack import Endpoints, ExternalServices, StackSettings
from sinks.timescale.settings import SinkSettings
from streams.errors import HeadraceError
from streams.runtime.config import RuntimeConfig

FILE = "headrace.toml"


class SettingsError(HeadraceError):
    """Raised where a setting is missing, unknown or out of range; names it and what is allowed."""


class StackDown(HeadraceError):
    """Raised where a command needs the services and neither the local stack nor other addresses are there."""


class KafkaPart(BaseModel):
    """A broker that already runs; left out: the local stack's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    bootstrap: str | None = None


class ServicePart(BaseModel):
    """A service that already runs; left out: the local stack's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str | None = None


class WorkerPart(BaseModel):
    """How workers behave; nothing here changes a result."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    commit_interval_ms: int = Field(250, ge=10)
    fetch_max_wait_ms: int = Field(2, ge=0)
    fetch_min_bytes: int = Field(100_000, ge=1)
    fetch_partition_bytes: int = Field(1_048_576, ge=1_024)
    output_buffer_kb: int = Field(65_536, ge=4_096)
    max_run_records: int = Field(20_000, ge=1)
    copies: bool = True
    state_dir: Path | None = Field(None, description="left out: state, below stack.data_dir")
    standbys: bool = True
    session_timeout_ms: int = Field(10_000, ge=1_000)
    stall_limit_s: float = Field(15.0, ge=1)
    start_deadline_s: float = Field(60.0, gt=0)


class Settings(BaseSettings):
    """All settings. ``HEADRACE_KAFKA__BOOTSTRAP`` is ``bootstrap`` under ``[kafka]``, and so on."""

    model_config = SettingsConfigDict(
        env_prefix="HEADRACE_", env_nested_delimiter="__", extra="forbid", frozen=True, toml_file=None
    )

    namespace: str = Field("", pattern=r"^[A-Za-z0-9_-]{0,40}$", description="empty: live")
    kafka: KafkaPart = KafkaPart()
    registry: ServicePart = ServicePart()
    database: ServicePart = ServicePart()
    stack: StackSettings = StackSettings()
    worker: WorkerPart = WorkerPart()
    sink: SinkSettings = SinkSettings()
    files: FilesSettings = FilesSettings()
    simulator: SimulatorSettings = SimulatorSettings()
    pipeline: PipelineSettings = PipelineSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is set in code first, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=_file())

    def external(self) -> ExternalServices:
        """The services that already run and are used instead of local ones."""
        return ExternalServices(
            kafka=self.kafka.bootstrap, registry=self.registry.url, database=self.database.url
        )

    def endpoints(self) -> Endpoints:
        """Where the services answer. Raises `StackDown` where they are not all known."""
        known = self.external()
        if known.kafka and known.registry and known.database:
            return Endpoints(kafka=known.kafka, registry=known.registry, database=known.database)
        found = stack.endpoints(self.stack)
        if found is not None:
            return Endpoints(
                kafka=known.kafka or found.kafka,
                registry=known.registry or found.registry,
                database=known.database or found.database,
            )
        raise StackDown(
            "the local stack is not up: run `headrace up`, or set kafka.bootstrap, registry.url and database.url"
        )

    @property
    def state_dir(self) -> Path:
        """Where workers keep local copies of their states."""
        return (self.worker.state_dir or self.stack.data_dir / "state").expanduser().absolute()

    def runtime(self, endpoints: Endpoints, *, instance: str | None = None) -> RuntimeConfig:
        """What a worker is told."""
        return RuntimeConfig(
            bootstrap=endpoints.kafka,
            registry=endpoints.registry,
            namespace=self.namespace,
            instance=instance,
            state_dir=str(self.state_dir) if self.worker.copies else None,
            **self.worker.model_dump(exclude={"copies", "state_dir"}),
        )


def _file() -> Path:
    """``HEADRACE_SETTINGS`` names the file; otherwise it is looked for in the working folder."""
    return Path(os.environ.get("HEADRACE_SETTINGS") or FILE)


def load(**over: Any) -> Settings:
    """Read the settings; ``over`` comes before environment and file. Raises `SettingsError`."""
    named = os.environ.get("HEADRACE_SETTINGS")
    if named and not Path(named).is_file():
        raise SettingsError(f"HEADRACE_SETTINGS names {named}, which is not there")
    try:
        return Settings(**over)
    except ValidationError as error:
        where = f" (environment, {_file()})" if _file().is_file() else ""
        raise SettingsError(f"settings{where} cannot be used:\n{_problems(error)}") from error
    except (ValueError, OSError) as error:  # TOML that does not parse
        raise SettingsError(f"{_file()}: {error}") from error


def load_pipeline(file: Path) -> PipelineSettings:
    """What changes results, as one file has it; nothing else counts. Raises `SettingsError`."""
    try:
        told = tomllib.loads(file.read_text("utf-8"))
        return PipelineSettings.model_validate(told.get("pipeline", {}))
    except ValidationError as error:
        raise SettingsError(f"{file}: [pipeline] cannot be used:\n{_problems(error)}") from error
    except (ValueError, OSError) as error:
        raise SettingsError(f"{file}: {error}") from error


def changed(pipeline: PipelineSettings, told: list[str]) -> PipelineSettings:
    """``pipeline`` with ``path=value`` said over it, one version higher. Raises `SettingsError`.

    A value is written as in TOML, or as a bare word; an element of a list of parts goes by its name.
    """
    values = pipeline.model_dump(mode="json")
    values["version"] += 1
    for each in told:
        path, is_said, value = each.partition("=")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"] if is_said else None
        except tomllib.TOMLDecodeError:
            parsed = value
        if not is_said:
            raise SettingsError(f'--set {each}: write PATH=VALUE, for example market.bars=\'["1s", "1m"]\'')
        _put(values, path.split("."), parsed, each)
    try:
        return PipelineSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"--set {', '.join(told)}:\n{_problems(error)}") from error


def _put(values: Any, path: list[str], value: Any, said: str) -> None:
    name, *rest = path
    if isinstance(values, list):
        values = {each["name"]: each for each in values if isinstance(each, dict) and "name" in each}
        if not rest:
            raise SettingsError(f"--set {said}: a whole part is changed in a file; say which of its values")
    if not isinstance(values, dict) or (rest and name not in values):
        there = ", ".join(values) if isinstance(values, dict) and values else "nothing"
        raise SettingsError(f"--set {said}: there is no {name!r} here, but {there}")
    if rest:
        _put(values[name], rest, value, said)
    else:
        values[name] = value


def _problems(error: ValidationError) -> str:
    """A line for each setting that is wrong."""
    return "\n".join(
        f"  {'.'.join(map(str, e['loc'])) or 'settings'}: "
        f"{'there is no such setting' if e['type'] == 'extra_forbidden' else e['msg']}"
        for e in error.errors()
    )
