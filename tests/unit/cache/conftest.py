"""An in-memory remote level whose faults can be switched."""

import asyncio
import fnmatch
from collections import Counter

import pytest

from isp_perf.errors import RemoteError


class Blocking:
    """The store and its faults; the blocking half."""

    def __init__(self):
        self.data = {}
        self.ttls = {}
        self.sick = False
        self.asked = Counter()

    def _asked(self, name):
        self.asked[name] += 1
        if self.sick:
            raise RemoteError("refused")

    def get(self, key):
        self._asked("get")
        return self.data.get(key)

    def get_many(self, keys):
        self._asked("get_many")
        return {key: self.data[key] for key in keys if key in self.data}

    def set(self, key, value, *, ttl=None):
        self._asked("set")
        self.data[key] = value
        self.ttls[key] = ttl

    def set_many(self, values, *, ttl=None):
        self._asked("set_many")
        self.data.update(values)
        self.ttls.update(dict.fromkeys(values, ttl))

    def delete(self, *keys):
        self._asked("delete")
        return sum(self.data.pop(key, None) is not None for key in keys)

    def delete_pattern(self, glob, *, force=False):
        self._asked("delete_pattern")
        found = [key for key in self.data if fnmatch.fnmatchcase(key, glob)]
        for key in found:
            del self.data[key]
        return len(found)


class FakeRemote:
    """A RemoteLevel in memory.

    ``before_write`` is awaited between the arrival of a write and its effect: the moment for a race.
    """

    def __init__(self):
        self.blocking = Blocking()
        self.before_write = None
        self.closed = False

    async def get(self, key):
        await asyncio.sleep(0)
        return self.blocking.get(key)

    async def get_many(self, keys):
        await asyncio.sleep(0)
        return self.blocking.get_many(keys)

    async def set(self, key, value, *, ttl=None):
        if self.before_write is not None:
            await self.before_write()
        return self.blocking.set(key, value, ttl=ttl)

    async def delete(self, *keys):
        await asyncio.sleep(0)
        return self.blocking.delete(*keys)

    async def delete_pattern(self, glob, *, force=False):
        return self.blocking.delete_pattern(glob, force=force)

    async def aclose(self):
        self.closed = True


@pytest.fixture
def remote():
    return FakeRemote()
