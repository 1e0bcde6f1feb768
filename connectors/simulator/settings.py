"""What market is made up. Everything that changes a tick is here: the same settings give the same bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from connectors.clocks import ClockSettings

Share = Annotated[float, Field(ge=0, lt=1)]


class SimulatorSettings(BaseModel):
    """One session of a market of symbols that move together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        default="simulator",
        min_length=1,
        description="name of the feed, as declared in the pipeline's settings",
    )
    seed: int = Field(default=7, ge=0, description="another seed, another day")
    symbols: tuple[str, ...] = Field(
        default=tuple(f"SIM{i:02d}" for i in range(1, 21)), min_length=1, description="names of the symbols"
    )
    start: AwareDatetime = Field(
        default=datetime(2024, 1, 2, 14, 30, tzinfo=UTC), description="opening of the session"
    )
    minutes: int = Field(default=390, gt=0, description="length of the session")
    ticks_per_minute: float = Field(
        default=30.0, gt=0, description="of a symbol, on average over day and symbols"
    )
    annual_volatility: tuple[float, float] = Field(
        default=(0.15, 0.45), description="range that the symbols' calm volatilities are drawn from"
    )
    correlation: tuple[tuple[float, ...], ...] | None = Field(
        default=None, description="of the symbols' shocks; None: made from the factors"
    )
    factors: Literal[1, 2] = Field(
        default=2, description="a market, and a style that half the symbols oppose"
    )
    clustering: Share = Field(
        default=0.08, description="weight of the last squared shock in the variance (GARCH alpha)"
    )
    persistence: Share = Field(default=0.90, description="weight of the last variance (GARCH beta)")
    dwell: float = Field(
        default=1.0, gt=0, description="factor on how long regimes last (means of 30 to 60 minutes)"
    )
    half_spread_bps: float = Field(default=1.0, ge=0, description="trades lie this far from the fair price")
    grid: int = Field(default=100, gt=0, description="price steps in a unit of currency")
    lot: int = Field(default=100, gt=0, description="sizes are multiples of it")
    quotes: bool = Field(default=False, description="best bids and asks beside the trades; changes no trade")
    clocks: ClockSettings = ClockSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.symbols)) != len(self.symbols) or "" in self.symbols:
            raise ValueError("symbols must differ and not be empty")
        low, high = self.annual_volatility
        if not 0 < low <= high:
            raise ValueError("annual_volatility is a range (low, high) with 0 < low <= high")
        if self.clustering + self.persistence >= 1:
            raise ValueError("clustering + persistence must be below 1, or the variance has no mean")
        return self

    @property
    def start_us(self) -> int:
        """The opening in microseconds since the epoch."""
        return int(self.start.timestamp()) * 1_000_000 + self.start.microsecond
