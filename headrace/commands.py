"""What people tell portfolios: halt, reduce, resume; a record in portfolio.events, where every decision is."""

from __future__ import annotations

import getpass
import time
import uuid

import confluent_kafka as ck

from schemas.codec import Codec
from schemas.records import Command, Place, TradingState
from schemas.topics import physical
from streams.errors import HeadraceError
from streams.runtime.kafka import output_settings

TIMEOUT_S = 30.0


class CommandNotSent(HeadraceError):
    """Raised where Kafka did not take a command."""


def send(
    bootstrap: str,
    namespace: str,
    codec: Codec,
    portfolio: str,
    state: TradingState,
    *,
    reason: str = "",
    after: Place | None = None,
) -> Command:
    """Write a command for ``portfolio`` and wait until Kafka has it. Returns it."""
    now_us = time.time_ns() // 1000
    command = Command(
        portfolio=portfolio,
        id=uuid.uuid4().hex,
        state=state,
        reason=reason,
        issued_by=getpass.getuser(),
        issued_at=now_us,
        after=after,
    )
    producer = ck.Producer(output_settings(bootstrap))
    failed: list[str] = []
    producer.produce(
        physical(namespace, "portfolio.events"),
        codec.encode("portfolio.events", command),
        portfolio,
        timestamp=now_us // 1000,
        on_delivery=lambda error, _: failed.append(error.str()) if error is not None else None,
    )
    if producer.flush(TIMEOUT_S) or failed:
        raise CommandNotSent(f"{portfolio} was not told {state}: {failed or 'the broker does not answer'}")
    return command
