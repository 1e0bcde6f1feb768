"""The `headrace` command. Each command's module is imported when it runs, so that `--help` is quick."""

from __future__ import annotations

import sys

import typer

from connectors.errors import ConnectorError
from headrace.cli import (
    audit,
    backtest,
    bench,
    dead_letters,
    demo,
    diff,
    ingest,
    init,
    replay,
    run,
    settings,
    stack,
    topics,
    trading,
)
from headrace.stack import StackError
from schemas.codec import CodecError
from sinks.timescale.errors import SinkError
from streams.errors import HeadraceError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Market ticks in, orders out: a Kafka streams pipeline for live trading, paper trading and replay.",
)

_BEGIN, _LOCAL, _PIPELINE, _TRADING = "To begin with", "Local stack", "Pipeline", "Trading"
_HISTORY = "History"
app.command(rich_help_panel=_BEGIN)(demo.demo)
app.command(rich_help_panel=_BEGIN)(backtest.backtest)
app.command(rich_help_panel=_BEGIN)(init.init)
app.command(
    rich_help_panel=_BEGIN,
    add_help_option=False,  # --help goes on to the measurements, as all else
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(bench.bench)
app.command(rich_help_panel=_LOCAL)(stack.up)
app.command(rich_help_panel=_LOCAL)(stack.down)
app.command(rich_help_panel=_LOCAL)(stack.status)
app.command(rich_help_panel=_LOCAL)(stack.backup)
app.command(rich_help_panel=_LOCAL)(stack.restore)
app.add_typer(topics.app, name="topics", rich_help_panel=_PIPELINE)
app.add_typer(settings.app, name="settings", rich_help_panel=_PIPELINE)
app.add_typer(ingest.app, name="ingest", rich_help_panel=_PIPELINE)
app.command(rich_help_panel=_PIPELINE)(run.worker)
app.command(rich_help_panel=_PIPELINE)(run.sink)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel=_PIPELINE)
app.add_typer(replay.app, name="replay", rich_help_panel=_HISTORY)
app.command(rich_help_panel=_HISTORY)(replay.checkpoint)
app.command(rich_help_panel=_HISTORY)(diff.diff)
app.command(rich_help_panel=_HISTORY)(audit.audit)
app.command(rich_help_panel=_TRADING)(trading.halt)
app.command(rich_help_panel=_TRADING)(trading.reduce)
app.command(rich_help_panel=_TRADING)(trading.resume)

FAILURES = (HeadraceError, StackError, ConnectorError, SinkError, CodecError)


def main() -> None:
    """Run the command; our own errors are one clear message and exit status 1, never a traceback."""
    try:
        app()
    except FAILURES as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from error
