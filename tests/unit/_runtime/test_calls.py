"""What calling a function gives, told before it is called."""

import functools

import pytest

from isp_perf._runtime.calls import kind_of


def plain(): ...


async def coroutine(): ...


def generator():
    yield


async def async_generator():
    yield


class Callable:
    def __init__(self, call):
        self.__class__ = type("Called", (), {"__call__": staticmethod(call)})


@pytest.mark.parametrize(
    ("function", "kind"),
    [(plain, "function"), (coroutine, "coroutine"), (generator, "generator"), (async_generator, "async generator")],
)
@pytest.mark.parametrize("wrapped", [lambda f: f, functools.partial, Callable], ids=["itself", "partial", "object"])
def test_every_kind_is_told(function, kind, wrapped):
    """Functions, partials and callable objects are told apart by what calling them gives."""
    assert kind_of(wrapped(function)) == kind
