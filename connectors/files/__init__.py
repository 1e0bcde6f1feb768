"""Trades, or quotes, out of a file: CSV (also .gz) or Parquet. `TradesFile(path).messages()` is all of it."""

from typing import TYPE_CHECKING, Any

from connectors.files.settings import Columns, Constants, FilesSettings

if TYPE_CHECKING:
    from connectors.files.trades import TradesFile

__all__ = ["Columns", "Constants", "FilesSettings", "TradesFile"]


def __getattr__(name: str) -> Any:
    """The reader is imported when it is used: settings must not cost the time that pyarrow takes."""
    if name == "TradesFile":
        from connectors.files.trades import TradesFile

        return TradesFile
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
