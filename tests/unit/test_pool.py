"""Work that is spread over processes gives what it gives in one."""

from __future__ import annotations

import math

import pytest

from streams.runtime.pool import FEWEST, mapped


@pytest.mark.parametrize("count", [3, FEWEST + 7])
def test_it_is_map(count: int) -> None:
    """Of a list, which is walked once, and of an iterator."""
    numbers = [float(number) for number in range(count)]
    assert list(mapped(math.sqrt, numbers)) == list(map(math.sqrt, numbers))
    assert list(mapped(math.sqrt, iter(numbers))) == list(map(math.sqrt, numbers))
