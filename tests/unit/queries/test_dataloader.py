"""`DataLoader`: keys asked one by one, loaded together."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from isp_perf.errors import ConfigurationError
from isp_perf.queries import DataLoader


class Calls:
    """A session factory and a load function that write down what happened to them."""

    def __init__(self, answer):
        self.answer = answer
        self.keys = []
        self.open = 0
        self.most_open = 0

    @asynccontextmanager
    async def session(self):
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            yield self
        finally:
            self.open -= 1

    async def load(self, session, keys):
        assert session is self
        self.keys.append(keys)
        await asyncio.sleep(0)
        return self.answer(keys)


def loader(answer, **settings):
    calls = Calls(answer)
    return calls, DataLoader(calls.session, calls.load, **settings)


async def test_keys_of_one_turn_are_one_call():
    """Keys asked at the same time become one call, each key once, and what is known is not asked again."""
    calls, loads = loader(lambda keys: {key: key * 2 for key in keys})
    assert await asyncio.gather(*(loads.load(k % 3) for k in range(9))) == [0, 2, 4] * 3
    assert await loads.load_many([2, 5, 2]) == [4, 10, 4]
    assert calls.keys == [[0, 1, 2], [5]]


async def test_one_session_at_a_time():
    """Keys that come while a batch runs form the next one, with a session of its own after the first."""
    calls, loads = loader(lambda keys: list(keys), max_batch=2)
    first = asyncio.gather(*(loads.load(k) for k in range(5)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(loads.load(9))
    assert await first == [0, 1, 2, 3, 4]
    assert await second == 9
    assert calls.keys == [[0, 1], [2, 3], [4, 9]]
    assert (calls.most_open, calls.open) == (1, 0)


async def test_missing_keys_and_errors_per_key():
    """A key without a value is None or a KeyError, and a value that is an error is raised for its key alone."""
    _, loads = loader(lambda keys: {1: "a", 2: ValueError("two")})
    results = await asyncio.gather(*(loads.load(k) for k in (1, 2, 3)), return_exceptions=True)
    assert (results[0], str(results[1]), results[2]) == ("a", "two", None)
    _, strict = loader(lambda keys: {}, missing="error")
    with pytest.raises(KeyError, match="7"):
        await strict.load(7)


async def test_an_error_reaches_everyone_and_is_not_kept():
    """What the load raises reaches all who wait for it; asked again, the key is loaded again."""
    broken = [OSError("gone")]

    def answer(keys):
        if broken:
            raise broken.pop()
        return dict.fromkeys(keys, "there")

    calls, loads = loader(answer)
    results = await asyncio.gather(loads.load(1), loads.load(2), return_exceptions=True)
    assert [str(result) for result in results] == ["gone", "gone"]
    assert await loads.load(1) == "there"
    assert calls.open == 0
    _, short = loader(lambda keys: [])
    with pytest.raises(ConfigurationError, match="1 keys were asked for, and 0 values came"):
        await short.load(1)


async def test_a_cancelled_waiter_leaves_the_others():
    """One waiter leaves; the others of the same batch, and of the same key, get their values."""
    calls, loads = loader(lambda keys: {key: key for key in keys})
    tasks = [asyncio.create_task(loads.load(k)) for k in (1, 1, 2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [1, 2]
    loads.clear(1)
    assert await loads.load_many([1, 2]) == [1, 2]
    assert calls.keys == [[1, 2], [1]]


def test_settings_are_checked():
    """An unknown word and a batch without keys are refused."""
    for settings in ({"missing": "raise"}, {"max_batch": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(settings))):
            loader(dict, **settings)
