"""Names of bar kinds: what they say, and what is none."""

from __future__ import annotations

import pytest

from streams.bars.kinds import Family, Kind, Measure, parse, parse_utc
from streams.bars.plan import Plan
from streams.errors import UnknownKind
from tests.examples import MINUTE, SECOND

DAY = 1440 * MINUTE


@pytest.mark.parametrize(
    ("kind", "size_us"),
    [
        ("time:1s", SECOND),
        ("time:1m", MINUTE),
        ("time:5m", 5 * MINUTE),
        ("time:1h", 60 * MINUTE),
        ("time:1d", DAY),
    ],
)
def test_windows_of_utc_time(kind: str, size_us: int) -> None:
    assert parse(kind) == parse_utc(kind) == Kind(kind, Family.TIME, size_us)


@pytest.mark.parametrize(
    ("kind", "parsed"),
    [
        ("time:5m@XNYS", Kind("time:5m@XNYS", Family.SESSION, 5 * MINUTE, "XNYS")),
        ("time:1d@XTKS", Kind("time:1d@XTKS", Family.SESSION, DAY, "XTKS")),
        ("tick:100", Kind("tick:100", Family.THRESHOLD, measure=Measure.TICKS, size=100.0)),
        ("volume:0.25", Kind("volume:0.25", Family.THRESHOLD, measure=Measure.VOLUME, size=0.25)),
        ("dollar:1000000", Kind("dollar:1000000", Family.THRESHOLD, measure=Measure.DOLLARS, size=1e6)),
        ("range:0.5", Kind("range:0.5", Family.RANGE, size=0.5)),
        ("renko:12.5", Kind("renko:12.5", Family.RENKO, size=12.5)),
        (
            "tick-imbalance:1000",
            Kind("tick-imbalance:1000", Family.IMBALANCE, measure=Measure.TICKS, ticks=1000, span=20),
        ),
        (
            "volume-imbalance:50:7",
            Kind("volume-imbalance:50:7", Family.IMBALANCE, measure=Measure.VOLUME, ticks=50, span=7),
        ),
        ("dollar-run:9:1", Kind("dollar-run:9:1", Family.RUN, measure=Measure.DOLLARS, ticks=9, span=1)),
    ],
)
def test_other_kinds(kind: str, parsed: Kind) -> None:
    assert parse(kind) == parsed
    with pytest.raises(UnknownKind, match="UTC"):
        parse_utc(kind)


@pytest.mark.parametrize(
    ("kind", "right"),
    [
        *((kind, "time:1m") for kind in ("", "time", "time:", "time:m", "time:0s", "time:-1s", "time:1w")),
        *((kind, "time:1m") for kind in ("time:1m ", "time:1m@", "time:1m@nyse", "time:2d@XNYS", "Time:1m")),
        *(
            (kind, "tick:100")
            for kind in ("tick", "tick:", "tick:0", "tick:-1", "tick:1.5", "tick:01", "tick:1e3")
        ),
        *(
            (kind, "volume:10000")
            for kind in ("volume:0", "volume:1.0", "volume:1.50", "volume:.5", "volume:1.")
        ),
        ("dollar:1234567890123456", "dollar:1000000"),  # 16 digits
        *((kind, "range:0.5") for kind in ("range:0.0", "range:nan", "range:inf", "range:0.5:1", "range:٣")),
        *((kind, "renko:0.5") for kind in ("renko:", "renko:1 ", "renko:+1")),
        *(
            (f"tick-run{rest}", "tick-run:1000:50")
            for rest in ("", ":", ":0", ":1.5", ":10:", ":10:0", ":10:20")
        ),
        ("dollar-imbalance:10:5:3", "dollar-imbalance:1000"),
        ("mean-run:10", "volume-run:1000"),
    ],
)
def test_what_is_no_kind_is_told_what_would_be(kind: str, right: str) -> None:
    with pytest.raises(UnknownKind) as raised:
        parse(kind)
    assert repr(kind) in str(raised.value)
    assert right in str(raised.value)


@pytest.mark.parametrize("exchange", ["XXXX", "NYSE"])
def test_an_exchange_has_one_code(exchange: str) -> None:
    with pytest.raises(UnknownKind, match="ISO 10383"):
        Plan.of([f"time:5m@{exchange}"], 0, 1)


def test_a_plan_has_each_kind_once_and_at_most_64() -> None:
    with pytest.raises(UnknownKind, match="each kind once"):
        Plan.of(["tick:1", "tick:2", "tick:1"], 0, 1)
    assert len(Plan.of([f"tick:{n}" for n in range(1, 65)], 0, 1).kinds) == 64
    with pytest.raises(UnknownKind, match="at most 64"):
        Plan.of([f"tick:{n}" for n in range(1, 66)], 0, 1)
