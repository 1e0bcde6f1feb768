"""What a file of trades, or of quotes, looks like: guessed from the names of its columns, unless it is said."""

from __future__ import annotations

import zoneinfo
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from connectors.clocks import ClockSettings

TIME_UNITS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class Columns(BaseModel):
    """Names of the file's columns. None: look for a usual name; an empty string: the file has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str | None = None
    time: str | tuple[str, ...] | None = Field(
        default=None, description="several, as date and time, are joined by a blank"
    )
    price: str | None = None
    size: str | None = None
    exchange: str | None = None
    conditions: str | None = None
    suspicious: str | None = None
    trade_id: str | None = None
    aggressor: str | None = None
    bid: str | None = None
    bid_size: str | None = None
    ask: str | None = None
    ask_size: str | None = None


class Constants(BaseModel):
    """Values for what the file has no column for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str | None = None
    size: float | None = None
    exchange: str = ""


class FilesSettings(BaseModel):
    """How to read a file of trades, or of quotes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        default="files", min_length=1, description="name of the feed, as declared in the pipeline's settings"
    )
    columns: Columns = Columns()
    constants: Constants = Constants()
    header: tuple[str, ...] | None = Field(
        default=None, description="names of the columns of a CSV file without a first line"
    )
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="None: guessed from the first line"
    )
    time_format: str = Field(
        default="auto",
        description="auto, s, ms, us, ns (since the epoch), iso, or a strptime format as %d/%m/%Y %H:%M:%S",
    )
    time_zone: str = Field(
        default="UTC", description="of times that do not say theirs: an IANA name as America/New_York"
    )
    price_scale: int | None = Field(
        default=None,
        gt=0,
        description="prices are divided by it; None: 10**n for a column named ..._en, as price_e4, else 1",
    )
    condition_base: Literal[10, 16] = Field(
        default=16, description="how a text column spells its bit mask of conditions"
    )
    limit: int | None = Field(default=None, gt=0, description="read this many rows, from the first")
    clocks: ClockSettings = ClockSettings()

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{name!r} is no time zone; use an IANA name as America/New_York") from error
        return name

    @field_validator("time_format")
    @classmethod
    def _known_format(cls, name: str) -> str:
        if name not in ("auto", "iso", *TIME_UNITS_PER_SECOND) and "%" not in name:
            raise ValueError(
                f"{name!r} is none of auto, iso, {', '.join(TIME_UNITS_PER_SECOND)}, or a strptime format"
            )
        return name
