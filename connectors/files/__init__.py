"""Trades out of a file: CSV (also .gz) or Parquet. `TradesFile(path).messages()` is all of it."""

from connectors.files.settings import Columns, Constants, FilesSettings
from connectors.files.trades import TradesFile

__all__ = ["Columns", "Constants", "FilesSettings", "TradesFile"]
