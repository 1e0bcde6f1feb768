"""Settings of the TimescaleDB sink."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SinkSettings(BaseModel):
    """How the sink gathers records into transactions, and how it waits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_ms: int = Field(default=250, gt=0, description="a transaction this often while records come")
    batch_rows: int = Field(default=20_000, gt=0, description="a transaction at this many records")
    batch_bytes: int = Field(default=16_000_000, gt=0, description="a transaction at so many bytes of values")
    max_backoff_ms: int = Field(
        default=10_000, gt=0, description="longest pause between two tries while a service is away"
    )
    session_timeout_ms: int = Field(
        default=10_000, gt=0, description="the group takes a silent process for dead after this"
    )
    instance: str | None = Field(
        default=None, description="static member name: a restart within the time-out moves nothing"
    )


def sqlalchemy_url(database_url: str) -> str:
    """``database_url`` (``postgresql://…``, any driver) for SQLAlchemy over psycopg 3."""
    from sqlalchemy import make_url  # who reads the settings alone need not wait for it

    return make_url(database_url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def libpq_url(database_url: str) -> str:
    """``database_url`` (``postgresql://…``, any driver) as psycopg itself takes it."""
    from sqlalchemy import make_url

    return make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
