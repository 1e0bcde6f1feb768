"""The pace of a sender; what it sends is tested against Kafka in tests/integration/test_ingest.py."""

from __future__ import annotations

from typing import Any

import pytest

from connectors import sender
from connectors.messages import QUOTES, TICKS, Message, Position
from connectors.sender import UNPACED, Pace
from tests.examples import DAY0, SECOND, quote, tick


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


class LateProducer:
    """Acknowledges everything at once but for the records of symbol B, which it keeps until ``let_go``."""

    def __init__(self, *_: Any) -> None:
        self.kept: list[Any] = []
        self.ready: list[Any] = []

    def produce(self, topic: str, *, on_delivery: Any, key: str | None = None, **_: Any) -> None:
        (self.kept if key == "B" else self.ready).append(on_delivery)

    def poll(self, _: float) -> None:
        while self.ready:
            self.ready.pop()(None, None)

    def let_go(self) -> None:
        self.ready, self.kept = self.ready + self.kept, []


def test_a_position_counts_only_when_all_before_it_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions acknowledge out of order; what is behind a record still on its way must be sent again."""
    monkeypatch.setattr(sender, "Producer", LateProducer)
    monkeypatch.setattr(sender, "_topic", lambda *_: ("id", 2))
    monkeypatch.setattr(sender, "_REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(sender, "_SERVE_EVERY", 1)
    sending = sender.Sender("nowhere", "", lambda *_: b"")
    told: list[sender.Progress] = []

    def report(progress: sender.Progress) -> None:
        told.append(progress)
        if progress.counts.ticks == 4:
            sending._producer.let_go()

    clock = Message(None, None, DAY0, "test")
    ticks = [
        Message(symbol, tick(symbol, sequence=number), DAY0, "test")
        for number, symbol in enumerate(("A", "B", "A", "A"), start=1)
    ]
    sending.run(iter([clock, *ticks]), report=report)
    assert [(report.counts.ticks, report.acknowledged.sequence) for report in told[:5]] == [
        (0, 0),
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 1),
    ]
    assert told[1].acknowledged == Position(1, DAY0)
    assert told[4].outstanding == 1
    assert told[-1].acknowledged == Position(4, DAY0, finished=True)


def test_quotes_beside_ticks_belong_to_the_tick_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between the two, both are sent again."""
    sent: list[tuple[str, Any]] = []

    class Producer(LateProducer):
        def produce(self, topic: str, *, on_delivery: Any, key: str | None = None, **rest: Any) -> None:
            sent.append((topic, rest.get("partition", key)))
            super().produce(topic, on_delivery=on_delivery, key=key)

    monkeypatch.setattr(sender, "Producer", Producer)
    monkeypatch.setattr(sender, "_topic", lambda _, name: (name, 2 if name.endswith("ticks") else 1))
    sending = sender.Sender("nowhere", "n", lambda *_: b"", topics=(TICKS, QUOTES))
    messages = [
        Message(None, None, DAY0, "test", TICKS),
        Message(None, None, DAY0, "test", QUOTES),
        Message("A", quote("A", sequence=1), DAY0, "test", QUOTES),
        Message("A", tick("A", sequence=1), DAY0, "test", TICKS),
        Message("A", quote("A", sequence=2), DAY0, "test", QUOTES),
    ]
    told: list[sender.Progress] = []
    counts = sending.run(iter(messages), report=told.append)
    assert (sending.topic, sending.topic_id) == ("n.market.ticks", "n.market.ticks")
    assert sent == [
        ("n.market.ticks", 0),
        ("n.market.ticks", 1),
        ("n.market.quotes", 0),
        ("n.market.quotes", "A"),
        ("n.market.ticks", "A"),
        ("n.market.quotes", "A"),
    ]
    assert (counts.ticks, counts.quotes, counts.clocks) == (1, 2, 2)
    assert told[-1].acknowledged == Position(1, DAY0, finished=True)
