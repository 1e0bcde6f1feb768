"""Ways to break the guarantee on purpose: `python -m tests.chaos.breaches BREACH worker AGENT …` runs a broken worker.

Each is a small change of the real code, in the process that runs it. A run of chaos that does not notice one proves
nothing.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from schemas.records import Bar
from schemas.states import POSITION_KEY
from streams.runtime import kafka
from streams.runtime.ownership import Cut, Ownership
from streams.symbol import Run
from streams.symbols import Symbols


def position_without_state() -> None:
    """The position is committed, the states are not."""
    cut = Ownership.cut

    def without(self: Ownership) -> Cut | None:
        found = cut(self)
        return found and found._replace(changes={POSITION_KEY: found.changes[POSITION_KEY]})

    Ownership.cut = without  # type: ignore[method-assign]


def outputs_not_waited_for() -> None:
    """A commit does not wait until its outputs are acknowledged."""
    Ownership.acknowledged = staticmethod(lambda _: True)  # type: ignore[method-assign, assignment]


def nobody_is_fenced() -> None:
    """Every owner has a transactional.id of its own, so an old one can still commit."""
    kafka.transactional_id = lambda *_: uuid.uuid4().hex


def names_not_looked_at() -> None:
    """A tick that was sent again counts again."""
    columns = Run._columns

    def unknown(self: Run, owner: list[int]) -> Any:
        found = columns(self, owner)
        found["held"] = False
        self.slots[:] = -1
        return found

    Run._columns = unknown  # type: ignore[method-assign]


def depends_on_the_run() -> None:
    """A bar's volume depends on how many records were fetched together."""
    step = Symbols.step

    def by_size(self: Symbols, where: Any, partition: Any, keys: Any, inputs: Any) -> Any:
        self._encoded = False  # or its bars would be bodies already
        outputs, touched = step(self, where, partition, keys, inputs)
        for place, output in enumerate(outputs):
            if isinstance(output.value, Bar):
                value = msgspec.structs.replace(output.value, volume=output.value.volume + len(inputs) % 2)
                outputs[place] = output._replace(value=value)
        return outputs, touched

    Symbols.step = by_size  # type: ignore[method-assign]


BREACHES: dict[str, Callable[[], None]] = {
    "position-without-state": position_without_state,
    "outputs-not-waited-for": outputs_not_waited_for,
    "nobody-is-fenced": nobody_is_fenced,
    "names-not-looked-at": names_not_looked_at,
    "depends-on-the-run": depends_on_the_run,
}


def main() -> None:
    """Break what the first argument names, then be the `headrace` command."""
    from headrace.cli import main as headrace

    BREACHES[sys.argv.pop(1)]()
    headrace()


if __name__ == "__main__":
    main()
