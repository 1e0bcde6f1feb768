"""What is wrong with a replay that was asked for."""

from __future__ import annotations

from streams.errors import HeadraceError


class ReplayError(HeadraceError):
    """Raised where a replay cannot be made, is not there, or would not be what was asked for; says what to do."""
