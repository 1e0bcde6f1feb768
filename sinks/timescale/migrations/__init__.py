"""The database's schema, step by step (Alembic)."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sinks.timescale.settings import sqlalchemy_url

VERSION_TABLE = "headrace_version"

logger = logging.getLogger(__name__)

_one_at_a_time = threading.Lock()  # Alembic keeps what it is about in module globals


def migrate(database_url: str, revision: str = "head") -> None:
    """Bring the database to ``revision``; any number of processes and threads may do so at once.

    One that a newer build has brought further is left as it is: its steps only add, what is older goes on writing.
    Raises `sqlalchemy.exc.OperationalError` where the database is away.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    engine = create_engine(sqlalchemy_url(database_url), poolclass=NullPool)
    with _one_at_a_time, engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        held = context.get_current_revision()
        if held not in {
            None,
            *(step.revision for step in ScriptDirectory.from_config(config).walk_revisions()),
        }:
            logger.warning("the database is at step %s, of a newer build; it is left as it is", held)
            return
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
