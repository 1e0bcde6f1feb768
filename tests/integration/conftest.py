"""What tests on a real broker share."""

from __future__ import annotations

import pytest

from headrace.stack import Endpoints
from schemas.codec import Codec
from streams.runtime.registry import codec as registered_codec
from tests.integration.kafka_log import Log


@pytest.fixture
def codec(stack: Endpoints, namespace: str) -> Codec:
    return registered_codec(stack.registry, namespace)


@pytest.fixture
def log(stack: Endpoints, namespace: str, codec: Codec) -> Log:
    return Log(stack, namespace, codec)
