"""Which topics a worker works on: by the broker's ids, since a name may be given to another topic.

A topic that is deleted and made again has the same name and another log. A position in the old one means nothing in
the new one: its first records would be taken for done, up to where the old one had been read. So the ids are kept with
the position (`schemas.states.SourcePosition`), compared at take-over, and looked at while the worker runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from streams.errors import RuntimeFault, TopicDeleted

log = logging.getLogger("headrace.identity")

LOOK_EVERY_S = 1.0
GONE_AFTER = 5
"""Looks. A broker that has just come back may not know its topics yet."""
KNOWN_WITHIN_S = 5.0
_ANSWER_S = 10.0


class TopicIds(NamedTuple):
    """The broker's ids of an agent's source topic and of its changelog; empty where they are not known."""

    source: str = ""
    changelog: str = ""


UNKNOWN = TopicIds()


def topic_ids(admin: AdminClient, names: Sequence[str]) -> dict[str, str]:
    """The broker's id of each topic that is there.

    Raises `confluent_kafka.KafkaException` where the broker does not answer.
    """
    found = {}
    answers = admin.describe_topics(ck.TopicCollection(list(names)), request_timeout=_ANSWER_S)
    for name, answer in answers.items():
        try:
            found[name] = str(answer.result().topic_id)
        except ck.KafkaException as error:
            if error.args[0].code() != ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    return found


class TopicWatch:
    """Asks for the ids of topics each second, in a thread, until the process ends.

    ``deleted`` is called with the first that has another one, or none any more, and does not return.
    """

    def __init__(
        self, admin: AdminClient, known: Mapping[str, str], deleted: Callable[[TopicDeleted], None]
    ) -> None:
        self._admin, self._known, self._deleted = admin, dict(known), deleted
        threading.Thread(target=self._watch, name="identity", daemon=True).start()

    def _watch(self) -> None:
        missed = Counter[str]()
        while True:
            time.sleep(LOOK_EVERY_S)
            try:
                found = topic_ids(self._admin, list(self._known))
            except ck.KafkaException as error:
                log.debug("the broker does not answer: %s", error)
                continue
            for name, was in self._known.items():
                now = found.get(name)
                missed[name] = missed[name] + 1 if now is None else 0
                if now != was and (now is not None or missed[name] == GONE_AFTER):
                    self._deleted(TopicDeleted(name, was, now))
                    return


def known_ids(admin: AdminClient, names: Sequence[str]) -> list[str]:
    """The ids of topics, by their names on the broker; waits a little for new ones, which it may not know yet.

    Raises `streams.errors.RuntimeFault` where one is not there.
    """
    deadline_s = time.monotonic() + KNOWN_WITHIN_S
    while True:
        try:
            found = topic_ids(admin, names)
        except ck.KafkaException as error:
            raise RuntimeFault(f"the broker does not tell about {names[0]}: {error.args[0].str()}") from error
        missing = [name for name in names if name not in found]
        if not missing:
            return [found[name] for name in names]
        if time.monotonic() > deadline_s:
            raise RuntimeFault(f"there is no topic {', '.join(missing)}: run `headrace topics create` first")
        time.sleep(0.1)
