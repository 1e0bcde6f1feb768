"""The database's schema, step by step (Alembic)."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sinks.timescale.settings import sqlalchemy_url

VERSION_TABLE = "headrace_version"


def migrate(database_url: str, revision: str = "head") -> None:
    """Bring the database to ``revision``. Any number of processes may do so at once; one does the work.

    Raises `sqlalchemy.exc.OperationalError` where the database is away.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    engine = create_engine(sqlalchemy_url(database_url), poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
