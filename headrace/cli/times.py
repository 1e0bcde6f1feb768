"""Event times on the command line."""

from __future__ import annotations

import typer

from headrace import moments


def micros(text: str | None) -> int | None:
    """Event time (µs) as people write it."""
    if text is None:
        return None
    try:
        return moments.parse(text)
    except moments.NoTime as error:
        raise typer.BadParameter(str(error)) from None
