"""The local stack as a whole: up, down, and how its services are."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from headrace.stack import debian, kafka, postgres, registry
from headrace.stack.downloads import Downloads
from headrace.stack.errors import PortTaken, Unreachable
from headrace.stack.processes import (
    Child,
    Launch,
    find,
    free_port,
    is_free,
    locked,
    log_file,
    start,
    stop,
    write_atomically,
)
from headrace.stack.settings import Endpoints, ExternalServices, ServiceName, StackSettings

_GRACE_S = 20.0
_START_ATTEMPTS = 3
_PROBES: dict[ServiceName, Callable[[str], None]] = {
    "kafka": kafka.probe,
    "registry": registry.probe,
    "postgres": postgres.probe,
}
_SETTINGS: dict[ServiceName, str] = {
    "kafka": "kafka.bootstrap",
    "registry": "registry.url",
    "postgres": "database.url",
}


@dataclass(frozen=True)
class ServiceStatus:
    """One service as `headrace status` shows it.

    `state` is "running", "stopped", "ended" (by itself) or "not answering". `pid`, `memory_mb` (MiB) and
    `log` are those of a local service.
    """

    service: ServiceName
    state: str
    address: str = ""
    pid: int | None = None
    memory_mb: float | None = None
    log: Path | None = None


def up(
    settings: StackSettings, external: ExternalServices | None = None, console: Console | None = None
) -> Endpoints:
    """Start what is not running yet and return where everything answers, leaving it in endpoints.json.

    What is missing is downloaded first, with progress on `console` (standard error by default). A call that
    fails or is interrupted stops what it has started.

    Raises:
        StackError: one of headrace.stack.errors; the message says what to do.
    """
    external = external or ExternalServices()
    for service, address in _external_addresses(external).items():
        _require(service, address)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    with locked(_lock_file(settings)):
        return _up(settings, external, console)


def _up(settings: StackSettings, external: ExternalServices, console: Console | None) -> Endpoints:
    ports = _Start(settings, external, console or Console(stderr=True)).run()
    found = Endpoints(
        kafka=external.kafka or kafka.address(ports["kafka"]),
        registry=external.registry or registry.address(ports["registry"]),
        database=external.database or postgres.address(settings, ports["postgres"]),
    )
    write_atomically(_endpoints_file(settings), found.model_dump_json(indent=2) + "\n")
    return found


def down(settings: StackSettings) -> list[ServiceName]:
    """Stop the local services cleanly, keeping their data; returns the names of those that were running."""
    if not settings.data_dir.is_dir():
        return []
    with locked(_lock_file(settings)):
        return list(_down(settings))


def _down(settings: StackSettings) -> dict[ServiceName, int]:
    """The ports of those that were running."""
    _endpoints_file(settings).unlink(missing_ok=True)
    children = [child for name in _PROBES if (child := find(settings.data_dir, name))]
    running = {child.service: child.port for child in children if child.process()}
    # The registry goes first: it holds connections to the database.
    registries = [child for child in children if child.service == "registry"]
    for group in (registries, [child for child in children if child not in registries]):
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda child: stop(child, settings.data_dir, _GRACE_S), group))
    return running


def is_running(settings: StackSettings) -> bool:
    """Whether any local service runs."""
    return any((child := find(settings.data_dir, name)) and child.process() for name in _PROBES)


@contextmanager
def suspended(settings: StackSettings) -> Iterator[None]:
    """The services stopped cleanly for as long as the block takes, and nobody else able to start them.

    Where any ran, all are started again at their old addresses, however the block ends. Raises as `up` does.
    """
    with locked(_lock_file(settings)):
        ports = _down(settings)
        try:
            yield
        finally:
            if ports:
                again = settings.ports.model_copy(update={str(name): port for name, port in ports.items()})
                _up(settings.model_copy(update={"ports": again}), ExternalServices(), None)


def endpoints(settings: StackSettings) -> Endpoints | None:
    """Where the services of a stack that is up answer; None when it is down or a local service has ended."""
    try:
        found = Endpoints.model_validate_json(_endpoints_file(settings).read_bytes())
    except FileNotFoundError:
        return None
    children = [child for name in _PROBES if (child := find(settings.data_dir, name))]
    return found if all(child.process() for child in children) else None


def status(settings: StackSettings, external: ExternalServices | None = None) -> list[ServiceStatus]:
    """Ask every service, local or external, how it is."""
    addresses = _external_addresses(external or ExternalServices())
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda name: _status(settings, name, addresses.get(name)), _PROBES))


def _status(settings: StackSettings, name: ServiceName, external: str | None) -> ServiceStatus:
    if external is not None:
        return ServiceStatus(name, _answer(name, external), external)
    log = log_file(settings.data_dir, name)
    child = find(settings.data_dir, name)
    if child is None:
        return ServiceStatus(name, "stopped")
    if child.process() is None:
        return ServiceStatus(name, "ended", log=log)
    address = _local_address(settings, child)
    return ServiceStatus(name, _answer(name, address), address, child.pid, child.memory_mb(), log)


def _answer(name: ServiceName, address: str) -> str:
    try:
        _PROBES[name](address)
    except Exception:
        return "not answering"
    return "running"


def _local_address(settings: StackSettings, child: Child) -> str:
    if child.service == "kafka":
        return kafka.address(child.port)
    if child.service == "registry":
        return registry.address(child.port)
    return postgres.address(settings, child.port)


def _external_addresses(external: ExternalServices) -> dict[ServiceName, str]:
    named: dict[ServiceName, str | None] = {
        "kafka": external.kafka,
        "registry": external.registry,
        "postgres": external.database,
    }
    return {name: address for name, address in named.items() if address is not None}


def _require(name: ServiceName, address: str) -> None:
    try:
        _PROBES[name](address)
    except Exception as error:
        raise Unreachable(name, _SETTINGS[name], without_password(address), str(error)) from error


def without_password(address: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"://([^:/@]*):[^@]*@", r"://\1:***@", address)


def _lock_file(settings: StackSettings) -> Path:
    return settings.data_dir / "lock"


def _endpoints_file(settings: StackSettings) -> Path:
    return settings.data_dir / "endpoints.json"


class _Start:
    """One call of `up`: every service in a thread, the registry's waiting for the database."""

    def __init__(self, settings: StackSettings, external: ExternalServices, console: Console) -> None:
        self._settings = settings
        self._external = external
        self._cancelled = threading.Event()
        self._downloads = Downloads(settings.cache_dir, console, self._cancelled)
        self._started: list[Child] = []
        children = [child for name in _PROBES if (child := find(settings.data_dir, name))]
        self._last_ports = {child.service: child.port for child in children}

    def run(self) -> dict[ServiceName, int]:
        """The ports of the local services."""
        with ThreadPoolExecutor() as pool:
            futures: dict[ServiceName, Future[int]] = {}
            if self._external.database is None:
                futures["postgres"] = pool.submit(self._postgres)
            if self._external.kafka is None:
                futures["kafka"] = pool.submit(self._kafka)
            if self._external.registry is None:
                futures["registry"] = pool.submit(self._registry, futures.get("postgres"))
            try:
                done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                self._cancelled.set()
                wait(futures.values())
                for child in reversed(self._started):
                    stop(child, self._settings.data_dir, _GRACE_S)
                raise
            finally:
                self._downloads.close()
        return {name: future.result() for name, future in futures.items()}

    def _kafka(self) -> int:
        if child := self._running("kafka"):
            return child.port
        home = self._downloads.fetch(kafka.RECIPE)
        return self._launch("kafka", lambda port: kafka.prepare(home, self._settings, port))

    def _postgres(self) -> int:
        if child := self._running("postgres"):
            return child.port
        home = self._downloads.fetch(debian.RECIPE)
        port = self._launch("postgres", lambda port: postgres.prepare(home, self._settings, port))
        postgres.create_databases(self._settings, port)
        return port

    def _registry(self, database: Future[int] | None) -> int:
        home = self._downloads.fetch(registry.RECIPE)
        url = None
        if database is not None:
            url = postgres.address(self._settings, database.result(), postgres.REGISTRY)
        if child := self._running("registry"):
            if not any(started.service == "postgres" for started in self._started):
                return child.port
            # It keeps the connections to the database that went away, and answers with errors.
            stop(child, self._settings.data_dir, _GRACE_S)
        return self._launch("registry", lambda port: registry.prepare(home, self._settings, port, url))

    def _running(self, name: ServiceName) -> Child | None:
        child = find(self._settings.data_dir, name)
        return child if child and child.process() else None

    def _launch(self, name: ServiceName, prepare: Callable[[int], Launch]) -> int:
        for attempt in range(1, _START_ATTEMPTS + 1):
            launch = prepare(self._port(name))
            try:
                child = start(
                    launch, self._settings.data_dir, self._settings.start_timeout_s, self._cancelled
                )
            except PortTaken:
                # Another process was quicker; there are other ports.
                if self._settings.fixed_ports or attempt == _START_ATTEMPTS:
                    raise
                continue
            self._started.append(child)
            return child.port
        raise AssertionError("the last attempt returns or raises")

    def _port(self, name: ServiceName) -> int:
        preferred = getattr(self._settings.ports, name)
        if self._settings.fixed_ports:
            if not is_free(preferred):
                raise PortTaken(name, preferred)
            return int(preferred)
        candidates = (self._last_ports.get(name, preferred), preferred)
        return next(filter(is_free, candidates), None) or free_port()
