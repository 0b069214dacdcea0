"""Locks with fencing tokens, subscriptions that tell of gaps, and streams in constant memory."""

import asyncio
import contextlib
import tracemalloc

import pytest
from redis.exceptions import ResponseError

from isp_perf.errors import ConfigurationError, NotSentError
from isp_perf.redis import Gap, Message, RedisPool, _released
from isp_perf.redis._lock import LockLostError


@pytest.fixture
async def pool(redis_url, patient):
    """A pool on the clean server."""
    async with RedisPool(patient(url=redis_url)) as pool:
        yield pool


async def test_one_holder_at_a_time_with_growing_fences(pool):
    """Ten tasks take turns; nobody overlaps, and each later holder has a larger fence."""
    inside, fences = 0, []

    async def work():
        nonlocal inside
        async with pool.lock("job") as lock:
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.002)
            fences.append(lock.fence)
            inside -= 1

    await asyncio.gather(*[work() for _ in range(10)])
    assert fences == sorted(set(fences))
    assert await pool.get("lock:{job}") is None


async def test_the_fence_grows_across_expiry(pool):
    """A lock whose holder died is free after its ttl, and its next holder has a larger fence."""
    dead = pool.lock("job", ttl=0.1)
    await dead.__aenter__()
    dead._keeper.cancel()
    async with asyncio.timeout(30), pool.lock("job") as lock:
        assert lock.fence > dead.fence


async def test_a_waiter_is_woken_by_the_release(pool, until, monkeypatch):
    """It has the lock when it is released, though it never looks again, and the link that told it is closed again."""
    monkeypatch.setattr(_released, "_TOLD", (1e6, 1e6))  # seconds between two looks while the server tells
    for _ in range(5):
        async with pool.lock("job"):
            waiter = asyncio.create_task(taken(pool))
            await told(pool, until)
            await asyncio.sleep(0.02)
            assert not waiter.done()
        assert await asyncio.wait_for(waiter, 30)
    assert "locks" not in [name for name, _ in (await pool.client().states.current()).by_name()]


async def taken(pool):
    """Return true when the lock was acquired."""
    async with pool.lock("job"):
        return True


async def told(pool, until):
    """Wait until the link that tells of locks is up."""
    state = await pool.client().states.current()
    await until(lambda: any(name == "locks" and lane.link for name, lane in state.by_name()))


@pytest.mark.parametrize("refused", [False, True])
async def test_waiters_without_pushes_look_again(pool, redis_url, patient, refused):
    """With RESP2, and for a user who may not use CLIENT TRACKING, locks work all the same."""
    settings = patient(url=redis_url, protocol=2)
    if refused:
        await pool.client().execute_command("ACL SETUSER", "plain", "on", ">pw", "~*", "+@all", "-client|tracking")
        settings = patient(url=redis_url.replace("://", "://plain:pw@"))
    async with RedisPool(settings) as plain:
        async with plain.lock("job") as first:
            waiter = asyncio.create_task(taken(plain))
            await asyncio.sleep(0.1)
            assert not waiter.done()
        assert await asyncio.wait_for(waiter, 30)
        async with plain.lock("job") as last:
            assert last.fence == first.fence + 2
        assert (await plain.health()).status == "healthy"


async def test_fences_grow_strictly_over_expiries_and_releases(pool):
    """Holders that die, holders that release: each later one has a larger number, and none is given out twice."""
    fences = []
    for number in range(12):
        lock = pool.lock("job", ttl=0.03 if number % 2 else 10)
        async with asyncio.timeout(30):
            await lock.__aenter__()
        fences.append(lock.fence)
        if number % 2:
            lock._keeper.cancel()
        else:
            await lock.__aexit__(None, None, None)
    assert fences == sorted(set(fences))


async def test_a_cancelled_waiter_leaves_nothing_behind(pool, until):
    """It neither holds the lock later nor keeps the link that would have told it."""
    async with pool.lock("job"):
        waiter = asyncio.create_task(taken(pool))
        await told(pool, until)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    async with asyncio.timeout(30), pool.lock("job"):
        state = await pool.client().states.current()
        assert "locks" not in [name for name, _ in state.by_name()]


async def test_a_held_lock_is_extended(pool):
    """It outlives its ttl many times while its holder works; a machine that stalls longer than that tries again."""
    for _ in range(20):
        with contextlib.suppress(LockLostError):
            async with pool.lock("job", ttl=0.1):
                await asyncio.sleep(0.35)
                assert await pool.get("lock:{job}") is not None
                return
    raise AssertionError("it was lost again and again")


async def test_a_lost_lock_cancels_its_body(pool):
    """When somebody removed it, the body ends and leaving the block says why."""
    reached = False

    async def work():
        nonlocal reached
        async with pool.lock("job", ttl=0.09):
            await pool.delete("lock:{job}")
            await asyncio.sleep(60)
            reached = True

    with pytest.raises(LockLostError):
        await asyncio.wait_for(work(), 30)
    assert not reached


async def test_release_leaves_another_holders_lock_alone(pool):
    """Only the owner removes it."""
    async with pool.lock("job", ttl=10):
        await pool.set("lock:{job}", b"somebody else")
    assert await pool.get("lock:{job}") == b"somebody else"


async def test_bad_locks_are_refused(pool):
    """An empty name, a ttl of zero and nested use of one object are errors at once."""
    for name, ttl in (("", 1), ("job", 0)):
        with pytest.raises(ConfigurationError):
            pool.lock(name, ttl=ttl)
    lock = pool.lock("job")
    async with lock:
        with pytest.raises(RuntimeError):
            await lock.__aenter__()


async def test_messages_arrive_and_a_reconnect_is_a_gap(proxy, patient):
    """After a lost connection the next thing is a Gap, then messages again."""
    async with RedisPool(patient(url=f"redis://127.0.0.1:{proxy.port}")) as pool:
        heard = pool.subscribe("news", "other")
        first = asyncio.create_task(anext(heard))
        await until_subscribed(pool)
        await pool.client().publish("news", "1")
        assert await first == Message(b"news", b"1")
        waiting = asyncio.create_task(anext(heard))
        await asyncio.sleep(0.01)
        proxy.reset()
        gap = await asyncio.wait_for(waiting, 30)
        assert isinstance(gap, Gap)
        assert 0 < gap.since <= gap.until
        later = asyncio.create_task(anext(heard))
        await until_subscribed(pool)
        await pool.client().publish("other", "2")
        assert await later == Message(b"other", b"2")
        await heard.aclose()


async def until_subscribed(pool):
    """Wait until the server knows a subscriber."""
    for _ in range(2_000):
        if (await pool.client().pubsub_numsub("news"))[0][1]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody subscribed within 20 s")


async def test_a_quiet_server_is_no_gap(pool, redis_url, patient):
    """Who publishes nothing is asked by a PING after the health check interval, and answers."""
    async with RedisPool(patient(url=redis_url, health_check_interval=0.05)) as listening:
        heard = listening.subscribe("news")
        waiting = asyncio.create_task(anext(heard))
        await until_subscribed(pool)
        await asyncio.sleep(0.2)
        await pool.client().publish("news", "1")
        assert await asyncio.wait_for(waiting, 30) == Message(b"news", b"1")
        await heard.aclose()


async def test_a_silent_server_is_a_gap_too(pool, proxy, patient):
    """A connection that swallows everything is noticed by a PING after the health check interval."""
    settings = patient(url=f"redis://127.0.0.1:{proxy.port}", health_check_interval=0.1, timeout=0.2)
    async with RedisPool(settings) as listening:
        heard = listening.subscribe("news")
        waiting = asyncio.create_task(anext(heard))
        await until_subscribed(pool)
        proxy.blackhole()
        await asyncio.sleep(0.5)
        proxy.heal()
        assert isinstance(await asyncio.wait_for(waiting, 30), Gap)
        await heard.aclose()


async def test_a_first_subscription_that_fails_raises(proxy, patient):
    """Nobody waits for a server that was never there; no channel is an error at once."""
    proxy.drop(refuse=True)
    async with RedisPool(patient(url=f"redis://127.0.0.1:{proxy.port}")) as pool:
        with pytest.raises(NotSentError):
            await anext(pool.subscribe("news"))
        with pytest.raises(ConfigurationError):
            pool.subscribe()


async def test_a_stream_answers_in_order_and_in_constant_memory(pool):
    """A generator of commands is drawn as replies are taken, so memory does not grow with their number."""
    count = 8_000
    drawn = 0

    def commands():
        nonlocal drawn
        for i in range(count):
            drawn += 1
            yield ("ECHO", b"%d" % i)

    tracemalloc.start()
    taken = 0
    async for reply in pool.stream(commands()):
        assert reply == b"%d" % taken
        taken += 1
        assert drawn - taken <= 4 * 256
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken == count
    assert peak < 4 << 20


async def test_a_stream_raises_or_collects(pool):
    """The first error is raised, or stands in its place; a command that cannot share a link is refused."""
    commands = [("SET", "a", "x"), ("INCR", "a"), ("GET", "a")]
    collected = [reply async for reply in pool.stream(commands, on_error="collect")]
    assert (collected[0], collected[2]) == (b"OK", b"x")
    assert isinstance(collected[1], ResponseError)
    with pytest.raises(ResponseError):
        [reply async for reply in pool.stream(commands)]
    for wrong in ([("BLPOP", "a", 0)], [("SELECT", 1)]):
        with pytest.raises(ConfigurationError):
            [reply async for reply in pool.stream(wrong)]
    with pytest.raises(ConfigurationError):
        await anext(pool.stream([], limit=0))


async def test_a_large_stored_batch_is_complete(pool):
    """Everything streamed in is there."""
    writes = [reply async for reply in pool.stream(("SET", f"k{i}", i) for i in range(3_000))]
    assert writes == [b"OK"] * 3_000
    assert await pool.client().dbsize() == 3_000
