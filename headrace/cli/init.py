"""`headrace init`: a commented headrace.toml to begin with."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from headrace.settings import FILE
from streams.errors import HeadraceError


class SettingsExist(HeadraceError):
    """Raised where a file would be overwritten."""


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path(FILE),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file that is there.")] = False,
) -> None:
    """Write a headrace.toml with every setting, its default and what it means, and a portfolio to begin with.

    Examples:

        headrace init && headrace backtest --simulate

        headrace init --force
    """
    if path.exists() and not force:
        raise SettingsExist(f"{path} is there already; --force overwrites it")
    text = (resources.files("headrace") / "template.toml").read_text("utf-8")
    path.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {path}; try it: headrace backtest --simulate")
