"""What every record is, and the time before all times."""

from __future__ import annotations

import msgspec

NEVER = -(2**62)
"""An event time before all others: a clock that has not struck yet."""


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="-type"):
    """Base of all records. The tag is Avro's full name, which fastavro reads to pick the branch of a union.

    A record is a tree: the collector of cycles need not look at it, which cost more than making a bar (``gc=False``).
    """
