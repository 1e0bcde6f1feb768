"""The database's schema, step by step (Alembic)."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sinks.timescale.settings import sqlalchemy_url

VERSION_TABLE = "headrace_version"

_one_at_a_time = threading.Lock()  # Alembic keeps what it is about in module globals


def migrate(database_url: str, revision: str = "head") -> None:
    """Bring the database to ``revision``; any number of processes and threads may do so at once.

    Raises `sqlalchemy.exc.OperationalError` where the database is away.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    engine = create_engine(sqlalchemy_url(database_url), poolclass=NullPool)
    with _one_at_a_time, engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
