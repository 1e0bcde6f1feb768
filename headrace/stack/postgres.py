"""PostgreSQL with TimescaleDB: one cluster with a database for results and one for the schema registry."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import psycopg
from psycopg import sql

from headrace.stack.debian import programs
from headrace.stack.errors import StartFailed
from headrace.stack.processes import HOST, Launch, log_file, run_step, write_atomically
from headrace.stack.settings import StackSettings

USER = "headrace"
RESULTS = "headrace"
REGISTRY = "registry"
_PROBE_TIMEOUT_S = 2
_NOBODY = 65534

SERVER = {
    "shared_preload_libraries": "timescaledb",
    "timescaledb.telemetry_level": "off",
    "jit": "off",
    "max_connections": "100",
    "max_worker_processes": "16",
    "max_wal_size": "1GB",
    "timezone": "UTC",
}
"""Server settings that do not depend on the machine; docker-compose.kafka.yml gives the same ones."""


def prepare(home: Path, settings: StackSettings, port: int) -> Launch:
    """Create the cluster if it is new and say how to start it.

    Raises:
        StartFailed: the cluster cannot be created, or root has no way to become another user.
        DiskFull: there is no room for it.
    """
    folder = settings.data_dir / "postgres"
    folder.mkdir(parents=True, exist_ok=True)
    prefix = _as_other_user(home, folder)
    if not (folder / "data" / "PG_VERSION").exists():
        _create_cluster(home, folder, prefix)
    options = SERVER | {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "shared_buffers": f"{settings.memory.postgres_shared_buffers_mb}MB",
    }
    if not Path("/usr/share/zoneinfo/UTC").exists():
        # Debian's PostgreSQL reads the machine's zones; where there are none, it knows this name alone.
        options["timezone"] = "GMT"
    flags = [flag for name, value in options.items() for flag in ("-c", f"{name}={value}")]
    return Launch(
        service="postgres",
        argv=[*prefix, str(programs(home) / "postgres"), "-D", str(folder / "data"), *flags],
        port=port,
        probe=partial(probe, address(settings, port, "postgres")),
        # SIGTERM would wait until every client has gone.
        stop_signal=signal.SIGINT,
    )


def address(settings: StackSettings, port: int, database: str = RESULTS) -> str:
    """The URL of a database on this machine, the generated password included."""
    password = (settings.data_dir / "postgres" / "password").read_text()
    return f"postgresql://{USER}:{password}@{HOST}:{port}/{database}"


def probe(url: str) -> None:
    """Ask for one row; raises psycopg.OperationalError when the database does not answer."""
    with psycopg.connect(url, connect_timeout=_PROBE_TIMEOUT_S) as connection:
        connection.execute("SELECT 1")


def create_databases(settings: StackSettings, port: int) -> None:
    """Create the databases and the TimescaleDB extension, where they are missing."""
    with psycopg.connect(address(settings, port, "postgres"), autocommit=True) as connection:
        held = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for name in (RESULTS, REGISTRY):
            if name not in held:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(address(settings, port), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")


def _create_cluster(home: Path, folder: Path, prefix: list[str]) -> None:
    password = folder / "password"
    if not password.exists():
        write_atomically(password, secrets.token_hex(16))
        if "setpriv" in prefix:
            shutil.chown(password, _NOBODY, _NOBODY)
    # A cluster that was cut off while it was made is made again.
    partial_data = folder / "data.partial"
    shutil.rmtree(partial_data, ignore_errors=True)
    argv = [
        *prefix,
        *(str(programs(home) / "initdb"), "-D", str(partial_data), "-U", USER, f"--pwfile={password}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--no-sync", "--no-instructions"),
        *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
    ]
    run_step("postgres", argv, folder.parent, "could not create its data folder")
    partial_data.rename(folder / "data")


def _as_other_user(home: Path, folder: Path) -> list[str]:
    """The command that runs a program as a user whom PostgreSQL accepts: neither root nor unknown.

    In a user namespace of its own a process merely looks like nobody and keeps its access to files. Where
    such namespaces are forbidden, root hands the cluster over to nobody.
    """
    if os.geteuid() != 0 and _is_listed(os.geteuid()):
        return []
    namespace = ["unshare", "-U", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}"]
    if _works([*namespace, "true"]):
        return namespace
    if os.geteuid() != 0:
        return []
    shutil.chown(folder, _NOBODY, _NOBODY)
    nobody = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    for path in (folder, programs(home)):
        if not _works([*nobody, "test", "-x", str(path)]):
            raise StartFailed(
                "postgres",
                f"refuses root, user namespaces are forbidden here, nobody may not enter {path}",
                log_file(folder.parent, "postgres"),
                [],
                "Run headrace as an ordinary user, or set stack.data_dir and stack.cache_dir to folders that "
                "every user may enter, such as /var/tmp/headrace.",
            )
    return nobody


def _is_listed(uid: int) -> bool:
    """Whether /etc/passwd has the user: the prefix's C library asks no other directory."""
    users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    return any(user[2:3] == [str(uid)] for user in users)


def _works(argv: list[str]) -> bool:
    try:
        return subprocess.run(argv, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
