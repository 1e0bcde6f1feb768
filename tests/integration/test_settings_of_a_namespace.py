"""A process with other settings than its namespace refuses to join."""

from __future__ import annotations

import msgspec
import pytest

from headrace import topics
from headrace.stack import Endpoints
from streams.runtime import registry
from tests.examples import settings


def test_other_settings_are_refused(stack: Endpoints, namespace: str) -> None:
    codec = registry.codec(stack.registry, namespace)
    with pytest.raises(topics.TopicsError, match="headrace topics create"):
        topics.verify_settings(stack.kafka, namespace, settings(), codec)
    topics.create(stack.kafka, namespace, settings(), codec)
    topics.verify_settings(stack.kafka, namespace, settings(), codec)
    changed = msgspec.structs.replace(settings(), lateness_us=1_000_000)
    with pytest.raises(topics.SettingsDiffer, match="other settings"):
        topics.verify_settings(stack.kafka, namespace, changed, codec)
    with pytest.raises(topics.SettingsDiffer):
        topics.create(stack.kafka, namespace, changed, codec)
