"""The pace of a sender; what it sends is tested against Kafka in tests/integration/test_ingest.py."""

from __future__ import annotations

import pytest

from connectors.sender import UNPACED, Pace
from tests.examples import DAY0, SECOND


@pytest.mark.parametrize(
    ("pace", "time_us", "ticks", "moment_s"),
    [
        (Pace(speed=1.0), DAY0 + 7 * SECOND, 10**6, 107.0),
        (Pace(speed=60.0), DAY0 + 60 * SECOND, 0, 101.0),
        (Pace(rate=500.0), DAY0 + 3600 * SECOND, 1000, 102.0),
        (Pace(speed=60.0, rate=500.0), DAY0 + 60 * SECOND, 1000, 102.0),
        (Pace(speed=60.0, rate=500.0), DAY0 + 600 * SECOND, 1000, 110.0),
        (Pace(speed=1.0), DAY0 - SECOND, 0, 100.0),
    ],
)
def test_the_slower_of_speed_and_rate_decides(pace: Pace, time_us: int, ticks: int, moment_s: float) -> None:
    assert pace.start(DAY0, 100.0)(time_us, ticks) == pytest.approx(moment_s)
    assert pace.limits


def test_no_pace_no_limit() -> None:
    assert not UNPACED.limits
    assert not Pace(speed=0.0, rate=0.0).limits
