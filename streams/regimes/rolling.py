"""Indicators for strategies of your own, one bar at a time, with the same figures as TA-Lib's batch functions.

A state is a Struct that a strategy keeps among its own. Each step takes a bar's figures and answers the indicator, NaN
until there are bars enough. Sums over a window are kept as a sum that moves, O(1) a bar; so that it does not drift, it
counts from a value of the window, and is made anew, exactly, once each window: its error is a rounding of the largest
value of the last two windows.
"""

from __future__ import annotations

import math

import msgspec

from streams.regimes.indicators import true_range_of, wilder_mean

_LN2 = math.log(2.0)


class Window(msgspec.Struct, kw_only=True):
    """The last ``length`` values and their sums, counted from ``base``."""

    length: int
    values: list[float] = msgspec.field(default_factory=list)
    base: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    age: int = 0

    def push(self, value: float) -> bool:
        """Take a value; whether the window is full."""
        gone = self.values.pop(0) if len(self.values) == self.length else None
        self.values.append(value)
        self.age += 1
        if gone is None or self.age >= self.length:
            self.base, self.age = value, 0
            apart = [each - value for each in self.values]
            self.total, self.squares = math.fsum(apart), math.fsum([each * each for each in apart])
        else:
            new, old = value - self.base, gone - self.base
            self.total += new - old
            self.squares += (new - old) * (new + old)
        return len(self.values) == self.length

    @property
    def mean(self) -> float:
        """Of the values."""
        return self.base + self.total / len(self.values)

    @property
    def sum(self) -> float:
        """Of the values."""
        return self.base * len(self.values) + self.total

    def variance(self, ddof: int = 0) -> float:
        """Of the values, with divisor length - ``ddof``."""
        count = len(self.values)
        return max(self.squares - self.total * self.total / count, 0.0) / (count - ddof)


class Ema(msgspec.Struct, kw_only=True):
    """The exponential mean of TA-Lib: the mean of the first ``period`` values, then 2 / (period + 1) of each."""

    period: int
    count: int = 0
    value: float = 0.0

    def step(self, x: float) -> float:
        """Take a value."""
        self.count += 1
        if self.count <= self.period:
            self.value += x
            if self.count < self.period:
                return math.nan
            self.value /= self.period
        else:
            self.value += (x - self.value) * (2.0 / (self.period + 1))
        return self.value


class Rsi(msgspec.Struct, kw_only=True):
    """The relative strength index: 100 U / (U + D), of Wilder means of gains U and losses D (Wilder 1978)."""

    period: int = 14
    count: int = -1
    close: float = 0.0
    gains: float = 0.0
    losses: float = 0.0

    def step(self, close: float) -> float:
        """Take a close; 0 to 100, 0 where nothing moved, as TA-Lib has it."""
        moved, self.close, self.count = close - self.close, close, self.count + 1
        if self.count == 0:
            return math.nan
        gain, loss = max(moved, 0.0), max(-moved, 0.0)
        self.gains = wilder_mean(self.gains, gain, self.count, self.period)
        self.losses = wilder_mean(self.losses, loss, self.count, self.period)
        if self.count < self.period:
            return math.nan
        whole = self.gains + self.losses
        return 100.0 * (self.gains / whole) if whole > 0.0 else 0.0


class Macd(msgspec.Struct, kw_only=True):
    """Moving average convergence/divergence (Appel): the fast less the slow exponential mean, and its own mean.

    As TA-Lib's, both means have their first value at bar ``slow`` - 1, the fast one of the last ``fast`` closes.
    """

    fast: int = 12
    slow: int = 26
    signal: int = 9
    count: int = 0
    fast_mean: Ema | None = None
    slow_mean: Ema | None = None
    line: Ema | None = None

    def step(self, close: float) -> tuple[float, float, float]:
        """Take a close; (line, signal, line - signal), all three NaN until there is a signal."""
        fast = self.fast_mean = self.fast_mean or Ema(period=self.fast)
        slow = self.slow_mean = self.slow_mean or Ema(period=self.slow)
        own = self.line = self.line or Ema(period=self.signal)
        self.count += 1
        quick = fast.step(close) if self.count > self.slow - self.fast else math.nan
        line = quick - slow.step(close)
        signal = math.nan if math.isnan(line) else own.step(line)
        if math.isnan(signal):
            return math.nan, math.nan, math.nan
        return line, signal, line - signal


class Choppiness(msgspec.Struct, kw_only=True):
    """The Choppiness Index (Dreiss): 100 log10(sum of true ranges / range of all) / log10(n), over n bars."""

    period: int = 14
    close: float | None = None
    ranges: list[float] = msgspec.field(default_factory=list)
    highs: list[float] = msgspec.field(default_factory=list)
    lows: list[float] = msgspec.field(default_factory=list)

    def step(self, high: float, low: float, close: float) -> float:
        """Take a bar; near 100 where moves cancel out, near 0 in a trend; NaN where nothing moved."""
        before, self.close = self.close, close
        for values, value in ((self.highs, high), (self.lows, low)):
            values.append(value)
            del values[: -self.period]
        if before is None:
            return math.nan
        self.ranges.append(true_range_of(high, low, before))
        del self.ranges[: -self.period]
        whole = max(self.highs) - min(self.lows)
        if len(self.ranges) < self.period or whole <= 0.0:
            return math.nan
        return 100.0 * math.log10(math.fsum(self.ranges) / whole) / math.log10(self.period)


class ZScore(msgspec.Struct, kw_only=True):
    """How many (population) standard deviations a value is from the mean of the last ones, itself among them."""

    window: Window

    def step(self, x: float) -> float:
        """Take a value; 0 where they are all the same."""
        if not self.window.push(x):
            return math.nan
        deviation = math.sqrt(self.window.variance())
        return (x - self.window.mean) / deviation if deviation > 0.0 else 0.0


class VolumeRatio(msgspec.Struct, kw_only=True):
    """A bar's volume over the mean of the last ones, itself among them."""

    window: Window

    def step(self, volume: float) -> float:
        """Take a volume; 1 where there was none at all."""
        if not self.window.push(volume):
            return math.nan
        mean = self.window.mean
        return volume / mean if mean > 0.0 else 1.0


class Realised(msgspec.Struct, kw_only=True):
    """Volatilities per bar over a window of bars, in log returns, by four estimators.

    With o, h, l, c the logarithms of open, high, low and close, and c' the close before:

    - close to close: the standard deviation of c - c' (divisor n - 1);
    - Parkinson (1980): sqrt(mean of (h - l)^2 / (4 ln 2));
    - Garman & Klass (1980): sqrt(mean of (h - l)^2 / 2 - (2 ln 2 - 1) (c - o)^2);
    - Yang & Zhang (2000): sqrt(V_o + k V_c + (1 - k) V_rs), of V_o the variance of o - c', V_c that of c - o, V_rs the
      mean of Rogers & Satchell's (h - c)(h - o) + (l - c)(l - o), and k = 0.34 / (1.34 + (n + 1) / (n - 1)).
    """

    close_to_close: Window
    parkinson: Window
    garman_klass: Window
    overnight: Window
    open_to_close: Window
    rogers_satchell: Window
    close: float | None = None

    @classmethod
    def over(cls, bars: int) -> Realised:
        """With a window of so many bars, 2 at least."""
        return cls(
            close_to_close=Window(length=bars),
            parkinson=Window(length=bars),
            garman_klass=Window(length=bars),
            overnight=Window(length=bars),
            open_to_close=Window(length=bars),
            rogers_satchell=Window(length=bars),
        )

    def step(self, open_: float, high: float, low: float, close: float) -> tuple[float, float, float, float]:
        """Take a bar, prices > 0; the four volatilities, NaN until ``bars`` + 1 bars are there."""
        o, h, l, c = math.log(open_), math.log(high), math.log(low), math.log(close)  # noqa: E741
        before, self.close = self.close, c
        if before is None:
            return math.nan, math.nan, math.nan, math.nan
        is_full = self.close_to_close.push(c - before)
        self.parkinson.push((h - l) ** 2 / (4.0 * _LN2))
        self.garman_klass.push(0.5 * (h - l) ** 2 - (2.0 * _LN2 - 1.0) * (c - o) ** 2)
        self.overnight.push(o - before)
        self.open_to_close.push(c - o)
        self.rogers_satchell.push((h - c) * (h - o) + (l - c) * (l - o))
        if not is_full:
            return math.nan, math.nan, math.nan, math.nan
        n = self.close_to_close.length
        k = 0.34 / (1.34 + (n + 1) / (n - 1))
        yang_zhang = (
            self.overnight.variance(1)
            + k * self.open_to_close.variance(1)
            + (1.0 - k) * self.rogers_satchell.mean
        )
        return (
            math.sqrt(self.close_to_close.variance(1)),
            math.sqrt(max(self.parkinson.mean, 0.0)),
            math.sqrt(max(self.garman_klass.mean, 0.0)),
            math.sqrt(max(yang_zhang, 0.0)),
        )
