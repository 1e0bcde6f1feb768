"""What people tell portfolios: halt, reduce, resume; a record in portfolio.events, where every decision is."""

from __future__ import annotations

import getpass
import time
import uuid

from headrace import sending
from headrace.sending import Outgoing
from schemas.codec import Codec
from schemas.records import Command, Place, TradingState
from schemas.topics import physical
from streams.errors import HeadraceError


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
    record = Outgoing(
        physical(namespace, "portfolio.events"),
        codec.encode("portfolio.events", command),
        portfolio,
        now_us // 1000,
    )
    failed = sending.send(bootstrap, [record])
    if failed:
        raise CommandNotSent(f"{portfolio} was not told {state}: {failed}")
    return command
