"""Run by Alembic: the steps in one transaction, alone."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from sinks.timescale.migrations import VERSION_TABLE
from sinks.timescale.tables import metadata

_LOCK = 0x68656164  # any number, the same for all who migrate

connection = context.config.attributes["connection"]
# Taken before Alembic looks where the database stands: who waits here finds the work done.
connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE)
context.run_migrations()
