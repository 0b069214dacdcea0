"""What a loader may say about the entry it fills."""

import pytest

from isp_perf.cache import CacheManager, entry
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def cache(clock):
    return CacheManager(clock=clock)


def test_ttl_of_one_value(cache, clock):
    """entry().ttl overrides the policy for this value."""
    loads = []

    @cache.cached("x:{x}", ttl=100)
    def load(x: int):
        loads.append(x)
        entry().ttl = x
        return x

    load(5)
    load(50)
    clock.advance(5)
    load(5)
    load(50)
    assert loads == [5, 50, 5]
    with pytest.raises(ConfigurationError, match=r"entry\(\)\.ttl=-1"):
        load(-1)


async def test_skip(cache):
    """A skipped result is returned and not stored."""
    loads = []

    @cache.cached("x:{x}")
    async def load(x: int):
        loads.append(x)
        entry().skip()
        return x

    assert [await load(1), await load(1)] == [1, 1]
    assert loads == [1, 1]


async def test_tags_of_one_value(cache, remote):
    """Tags found while loading invalidate the value; with a remote level it is stored nowhere."""

    @cache.cached("x:{x}", tags=["all"])
    async def load(x: int):
        entry().tags.add(f"owner:{x}")
        assert list(entry().tags) == ["all", f"owner:{x}"]
        assert "all" in entry().tags
        return x

    await load(1)
    assert cache.stats().l1_size == 1
    await cache.invalidate_tags("owner:1")
    assert cache.stats().l1_size == 0
    # Nobody knows which version such a tag had before the load, so nothing could be proved later.
    cache.configure(redis=remote)
    await load(1)
    assert "isp:1:x:1" not in remote.data
    assert cache.stats().l1_size == 0


def test_not_modified_keeps_the_stale_value(cache, clock):
    """A loader that learns that nothing changed keeps the old value for another ttl, and its etag."""
    asked = []

    @cache.cached("x:{x}", ttl=10, stale_if_error=1000)
    def load(x: int):
        ours = entry()
        asked.append((ours.stale_value, ours.etag))
        if ours.stale_value is not None:
            ours.not_modified()
            return None
        ours.etag = "v1"
        return {"id": x}

    first = load(1)
    clock.advance(10)
    assert load(1) is first
    assert load(1) is first
    clock.advance(10)
    assert load(1) is first
    assert asked == [(None, None), (first, "v1"), (first, "v1")]


def test_misuse(cache):
    """Outside a loader there is no entry, and without a stale value nothing can be unmodified."""

    @cache.cached("x:{x}")
    def load(x: int):
        entry().not_modified()

    with pytest.raises(ConfigurationError, match="for loaders only"):
        entry()
    with pytest.raises(ConfigurationError, match="there is no stale value"):
        load(1)
