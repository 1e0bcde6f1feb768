"""`headrace worker` and `headrace sink`: the long-running processes."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from headrace import settings, topics
from streams.agent import Agent
from streams.runtime import registry

LIVE = "live"
"""Stands for the empty namespace."""
LOG_FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


class AgentName(StrEnum):
    """The agents that a worker can run."""

    symbols = "symbols"
    quotes = "quotes"
    fitter = "fitter"
    universes = "universes"
    portfolios = "portfolios"


def worker(
    agent: Annotated[AgentName, typer.Argument(help="Which agent to run.")],
    instance: Annotated[
        str | None,
        typer.Option(help="Name of this process in its group: with it, a restart moves no partitions."),
    ] = None,
    replay_of: Annotated[str | None, typer.Option(hidden=True, help="Told by `headrace replay`.")] = None,
) -> None:
    """Run one agent until it is stopped. Start more processes of it to share its partitions.

    Exit status: 0 after SIGTERM or SIGINT, 3 after a fault; start it again, it goes on where it last committed.

    Examples:

        headrace worker symbols

        headrace worker symbols --instance symbols-1
    """
    from streams import topology
    from streams.runtime.app import run_worker

    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    loaded = settings.load()
    found = loaded.endpoints()
    codec = registry.codec(found.registry, loaded.namespace)
    chosen = _fitter() if agent is AgentName.fitter else topology.agent(agent.value, encoded=True)
    config = loaded.runtime(found, instance=instance)
    if replay_of is None:
        topics.verify_settings(found.kafka, loaded.namespace, loaded.pipeline.record(), codec)
    else:
        from headrace import replay

        source = "" if replay_of == LIVE else replay_of
        planned = replay.find(found.kafka, source, codec, loaded.namespace)
        config = msgspec.structs.replace(
            config, source_namespace=source, until=replay.ends_of(planned, chosen.source), state_dir=None
        )
    sys.argv = ["headrace", "worker", "--without-web"]  # Faust reads its own options there
    run_worker(config, chosen, codec)


def _fitter() -> Agent[Any, Any]:
    """The fitter, whose margins are fitted in several processes, and which says in the log what it is at."""
    from streams.fitter import Fitter
    from streams.runtime.pool import mapped, told

    logging.getLogger("headrace.fitter").setLevel(logging.INFO)
    return Fitter(mapped, told)


def sink(
    instance: Annotated[
        str | None,
        typer.Option(help="Name of this process in its group: with it, a restart moves no partitions."),
    ] = None,
) -> None:
    """Write every result topic into TimescaleDB until stopped; makes and migrates the tables first.

    Example:

        headrace sink
    """
    from sinks.timescale.sink import TimescaleSink

    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    loaded = settings.load()
    found = loaded.endpoints()
    codec = registry.codec(found.registry, loaded.namespace)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    chosen = loaded.sink.model_copy(update={"instance": instance}) if instance else loaded.sink
    TimescaleSink(chosen, found.kafka, found.database, loaded.namespace, codec.decode).run(stop)
