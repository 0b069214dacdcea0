"""No two different calls share a key: many random calls, all pairs of them compared at once.

TEST_KEY_CALLS sets how many calls each test makes: 20,000 by default (200 million pairs), 1,000,000 in a nightly
run.
"""

import os
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from isp_perf.cache import CacheManager

CALLS = int(os.environ.get("TEST_KEY_CALLS", "20000"))
ALPHABET = "ab:{}%*1-_ é\x00/"
START = datetime(2020, 1, 1, tzinfo=UTC)


def text(draw):
    return "".join(draw.choices(ALPHABET, k=draw.randrange(5)))


MAKERS = (
    lambda draw: draw.randrange(-99, 99),
    text,
    lambda draw: text(draw).encode(),
    lambda draw: draw.random() < 0.5,
    lambda draw: draw.randrange(99) / 4,
    lambda draw: Decimal(draw.randrange(99)) / 4,
    lambda draw: UUID(int=draw.randrange(99)),
    lambda draw: START + timedelta(hours=draw.randrange(99)),
    lambda draw: None,
    lambda draw: tuple(draw.randrange(3) for _ in range(draw.randrange(4))),
    lambda draw: [text(draw) for _ in range(draw.randrange(3))],
    lambda draw: {text(draw): draw.randrange(3) for _ in range(draw.randrange(3))},
)


def shape(value):
    """A value and its types, as something that can be compared: 1, True and 1.0 differ."""
    if isinstance(value, dict):
        return (dict, frozenset((shape(key), shape(item)) for key, item in value.items()))
    if isinstance(value, tuple | list):
        return (type(value), tuple(map(shape, value)))
    return (type(value), value)


def calls(number):
    draw = random.Random(20261123)
    for _ in range(number):
        yield draw.choice(MAKERS)(draw), draw.choice(MAKERS)(draw)


def test_different_calls_never_share_a_digest():
    """Under {hash}, equal calls of equal types have one key, and all others different ones."""
    cache = CacheManager()

    @cache.cached("n:{hash}")
    def load(x, y):
        return x

    seen = {}
    for x, y in calls(CALLS):
        known = seen.setdefault(load.key(x, y), (shape(x), shape(y)))
        assert known == (shape(x), shape(y))
    assert len(set(seen.values())) == len(seen)


def test_different_calls_never_share_a_readable_key():
    """In a template with typed=True the same holds, whatever separates the fields."""
    cache = CacheManager()

    @cache.cached("n:{x}-{y}", typed=True)
    def load(x, y):
        return x

    seen = {}
    for x, y in calls(CALLS):
        known = seen.setdefault(load.key(x, y), (shape(x), shape(y)))
        assert known == (shape(x), shape(y))
    assert len(set(seen.values())) == len(seen)
