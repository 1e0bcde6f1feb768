"""The codec of simulated worlds: the schema of each topic has an id of its own, and no other is known."""

from __future__ import annotations

from schemas.codec import Codec, UnknownSchema, Unreadable
from schemas.records import Record
from schemas.states import State
from schemas.topics import TOPICS

_MOST_KEPT = 200_000


def knows_no_other(number: int) -> str:
    raise UnknownSchema(f"schema id {number} is not in the registry")


class RememberingCodec(Codec):
    """Decodes a record once: worlds of one script read the same bytes again and again.

    Records are immutable. States are not, and each reader gets its own.
    """

    def __init__(self) -> None:
        super().__init__({name: number for number, name in enumerate(TOPICS, 1)}, knows_no_other)
        self._known: dict[tuple[str, bytes], Record | State | Unreadable] = {}

    def decode(self, topic: str, value: bytes) -> Record | State | Unreadable:
        """See `Codec.decode`."""
        if TOPICS[topic].role == "changelog":
            return super().decode(topic, value)
        known = self._known.get((topic, value))
        if known is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            known = self._known[topic, value] = super().decode(topic, value)
        return known


CODEC = RememberingCodec()
