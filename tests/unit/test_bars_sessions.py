"""Windows of exchanges' sessions against the library's own schedule: summer time, half days, lunch."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import exchange_calendars
import pandas
import pytest

from schemas.records import NEVER, Bar, LateTick
from streams.bars import sessions
from streams.bars.plain import Event
from streams.bars.plan import Plan
from tests.examples import DAY0, MINUTE, SECOND, tick
from tests.kernel_bars import both

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # exchange_calendars on pandas 3
HOUR = 60 * MINUTE
NEW_YORK, TOKYO = ZoneInfo("America/New_York"), ZoneInfo("Asia/Tokyo")


def us(zone: ZoneInfo, text: str) -> int:
    """A local time as µs since the epoch."""
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * SECOND


def windows(kind: str, times: list[int]) -> list[tuple[int, int, int]]:
    """(start, end, count) of the bars that ticks at these times make."""
    events: list[Event] = [(NEVER, tick(time=time), f"s/{n}") for n, time in enumerate(times)]
    return [
        (bar.start, bar.end, bar.count)
        for bar in both([*events, (2**60, None, "")], [kind])
        if isinstance(bar, Bar)
    ]


def test_windows_begin_with_the_session_whatever_the_clocks_in_new_york_say() -> None:
    for day in ("2013-11-01", "2013-11-04", "2014-03-07", "2014-03-10"):  # before and after each change
        opens, closes = us(NEW_YORK, f"{day} 09:30"), us(NEW_YORK, f"{day} 16:00")
        assert windows("time:1h@XNYS", [opens - 1, opens, opens + HOUR, closes - 1, closes]) == [
            (opens, opens + HOUR, 1),
            (opens + HOUR, opens + 2 * HOUR, 1),
            (closes - HOUR // 2, closes, 1),  # 15:30: six and a half hours are six windows and a half
        ]
    assert (
        us(NEW_YORK, "2013-11-04 09:30") % (24 * HOUR)
        == us(NEW_YORK, "2013-11-01 09:30") % (24 * HOUR) + HOUR
    )


def test_a_half_day_ends_early() -> None:
    opens, closes = us(NEW_YORK, "2013-11-29 09:30"), us(NEW_YORK, "2013-11-29 13:00")
    assert windows("time:1d@XNYS", [opens, closes - 1, closes, us(NEW_YORK, "2013-11-29 15:00")]) == [
        (opens, closes, 2)
    ]
    assert windows("time:1h@XNYS", [closes - 1, closes]) == [(closes - HOUR // 2, closes, 1)]


def test_lunch_in_tokyo() -> None:
    day = "2014-06-02"
    opens, lunch, resumes, closes = (
        us(TOKYO, f"{day} {hour}") for hour in ("09:00", "11:30", "12:30", "15:00")
    )
    times = [opens, lunch - 1, lunch, resumes - 1, resumes, closes - 1, closes]
    assert windows("time:1h@XTKS", times) == [
        (opens, opens + HOUR, 1),
        (lunch - HOUR // 2, lunch, 1),
        (resumes, resumes + HOUR, 1),
        (closes - HOUR // 2, closes, 1),
    ]
    assert windows("time:1d@XTKS", times) == [(opens, closes, 4)]


@pytest.mark.parametrize("exchange", ["XNYS", "XTKS", "XHKG", "CMES", "XLON"])
def test_every_minute_of_a_year_is_where_the_library_has_it(exchange: str) -> None:
    calendar = exchange_calendars.get_calendar(exchange, start="2019-01-01", end="2019-12-31")
    minutes = calendar.minutes.astype("datetime64[us, UTC]").asi8  # left-closed: the open's, not the close's
    plan = Plan.of([f"time:5m@{exchange}"], 0, 1)
    parts = plan.parts[(plan.parts["open"] >= minutes[0]) & (plan.parts["open"] <= minutes[-1])]
    ours = [time for part in parts.tolist() for time in range(part[0], part[1], MINUTE)]
    assert ours == minutes.tolist()
    sessions_of_days = {(row["session_open"].item(), row["session_close"].item()) for row in parts}
    schedule = calendar.schedule
    assert sessions_of_days == set(
        zip(
            *(schedule[name].astype("datetime64[us, UTC]").astype("int64") for name in ("open", "close")),
            strict=True,
        )
    )


def test_calendars_reach_as_far_as_they_say_whatever_the_date_is() -> None:
    parts = sessions.parts("XNYS", "time:1d@XNYS")
    first, last = (pandas.Timestamp(int(time), unit="us") for time in (parts[0]["open"], parts[-1]["close"]))
    assert (first.isoformat(), last.isoformat()) == ("1990-01-02T14:30:00", "2050-12-30T21:00:00")
    assert (parts["close"][:-1] <= parts["open"][1:]).all()
    beyond = us(NEW_YORK, "2051-01-03 10:00")
    assert windows("time:1h@XNYS", [us(NEW_YORK, "1989-12-29 10:00"), beyond]) == []


def test_a_tick_outside_of_all_sessions_is_late_for_none_and_moves_watermark_and_tick_rule() -> None:
    opens = us(NEW_YORK, "2013-10-07 09:30")
    assert opens > DAY0
    results = both(
        [
            (opens + HOUR, tick(time=DAY0, price=1.0), "s/1"),  # long past the clock, but in no window
            (opens + HOUR, tick(time=opens + HOUR, price=2.0, size=8.0), "s/2"),
            (opens + 2 * HOUR, None, ""),
        ],
        ["time:1h@XNYS"],
    )
    (bar,) = results
    assert isinstance(bar, Bar)
    assert (bar.buy_volume, bar.sell_volume) == (
        8.0,
        0.0,
    )  # 2.0 is above 1.0: the first tick counted for the rule


def test_a_tick_that_is_late_and_has_no_window_elsewhere_leaves_no_trace() -> None:
    opens = us(NEW_YORK, "2013-10-07 09:30")
    results = both(
        [
            (opens, tick(time=opens, price=3.0, size=1.0), "s/1"),
            (opens, tick(time=DAY0, price=4.0), "s/2"),  # late for the minute; before the session
            (opens, tick(time=opens + 1, price=3.0, size=8.0), "s/3"),
            (opens + HOUR, None, ""),
        ],
        ["time:1m", "time:1h@XNYS"],
    )
    (late,) = (result for result in results if isinstance(result, LateTick))
    assert (late.name, late.kinds) == ("s/2", ("time:1m",))
    hour = results[-1]
    assert isinstance(hour, Bar)
    assert (hour.kind, hour.buy_volume, hour.sell_volume) == (
        "time:1h@XNYS",
        4.5,
        4.5,
    )  # still no change of price
