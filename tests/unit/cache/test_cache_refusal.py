"""What must not be kept is refused, however deep it is."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from isp_perf.cache import CacheManager
from isp_perf.cache._refusal import is_harmless, refuse
from isp_perf.errors import CodecError


class Base(DeclarativeBase):
    pass


class Cliente(Base):
    __tablename__ = "cliente"
    id: Mapped[int] = mapped_column(primary_key=True)


@dataclass
class Page:
    items: list
    next: Any = None


class Pair(NamedTuple):
    left: int
    right: Any


async def work():
    """Do nothing."""


def deep(part):
    """Everywhere that a part may be."""
    return [
        part,
        [part],
        (1, part),
        {"a": part},
        {"a": [1, {"b": (part,)}]},
        Page([part]),
        Page([], {"x": part}),
        Pair(1, part),
        [Page([Page([part])])],
    ]


@pytest.mark.parametrize("place", range(9))
def test_orm_instances_and_generators_are_refused_at_any_depth(place):
    """With and without tags, in both colours, the call fails and nothing is stored."""
    for make in (lambda: Cliente(id=1), lambda: (x for x in "ab"), work):
        part = make()
        cache = CacheManager()
        with pytest.raises(CodecError, match=r"must not be cached; return plain data instead"):
            cache.cached("direct:{x}")(lambda x, part=part: deep(part)[place])(1)
        with pytest.raises(CodecError):
            cache.cached("slow:{x}", tags=["t"])(lambda x, part=part: deep(part)[place])(1)
        assert cache.stats().l1_size == 0
        getattr(part, "close", int)()


@pytest.mark.parametrize(
    "value", [None, 1, "a", [1, "a"], {"a": 1}, (1, 2), {1}, Page([1]), {"a": {"b": [1]}}, object()]
)
def test_plain_data_passes(value):
    """Everything else is kept."""
    refuse(value)


def test_what_needs_no_closer_look():
    """Scalars and flat containers of scalars, up to a length at which looking would cost more than it is worth."""
    assert all(map(is_harmless, (None, 1, "a", b"", [1, 2], {"a": None}, (1.5,), frozenset())))
    assert not any(map(is_harmless, ([[1]], {"a": {}}, Page([]), list(range(2000)))))


def test_looking_is_bounded():
    """Of a very long list the first thousand parts are looked at."""
    refuse([*[[]] * 5000])
