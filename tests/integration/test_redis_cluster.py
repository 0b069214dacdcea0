"""The pool over a real cluster of three primaries: routing, redirections, bulk operations, a live reshard."""

import asyncio

import pytest
from redis.crc import key_slot as drivers_slot
from redis.exceptions import ResponseError

from isp_perf import CacheManager, RedisPool
from isp_perf._core.slots import SLOTS, first_key, key_slot
from isp_perf.errors import ConfigurationError, NotSentError


@pytest.fixture
async def pool(cluster, patient):
    """A pool over the cluster, which is empty."""
    cluster.empty()
    async with RedisPool(patient(nodes=cluster.names)) as pool:
        yield pool


def owner_of(cluster, key):
    """Return which of the three nodes serves a key now."""
    slot = key_slot(key)
    for first, last, primary, *_ in cluster.nodes[0].execute_command("CLUSTER SLOTS"):
        if first <= slot <= last:
            return cluster.ports.index(int(primary[1]))
    raise AssertionError(slot)


@pytest.mark.parametrize("key", [b"", b"a", b"{user}:1", b"x{user}y", b"{}a", b"{a", b"a}{b}", b"\xff\x00", b"k" * 300])
def test_slots_are_the_drivers(key):
    """A key has the slot that redis-py and the server give it."""
    assert key_slot(key) == drivers_slot(key)


async def test_each_key_is_on_its_node(cluster, pool):
    """Commands go to the node that serves their key, and come back as from one server."""
    client = pool.client()
    for number in range(60):
        assert await client.set(f"k{number}", number)
    assert [await client.get(f"k{number}") for number in range(60)] == [str(number).encode() for number in range(60)]
    assert all(node.dbsize() > 0 for node in cluster.nodes)
    assert await client.dbsize() == 60
    assert sorted(await client.keys("k1*")) == sorted([b"k1", *(f"k1{n}".encode() for n in range(10))])
    assert await client.hset("h", mapping={"a": "1"}) == 1
    assert await client.hgetall("h") == {b"a": b"1"}


async def test_bulk_operations_are_split_by_slot(cluster, pool):
    """Thousands of keys are written, read and removed over all nodes, each answer at its key."""
    values = {f"k:{n}": str(n).encode() for n in range(3000)}
    assert (await pool.set_many(values, ttl=60, jitter=0.1)).errors == {}
    assert await pool.get_many([*values, "absent"]) == values
    assert await pool.mget(["k:1", "absent", "k:2"]) == [b"1", None, b"2"]
    assert all(900 < node.dbsize() < 1100 for node in cluster.nodes)
    assert await pool.delete_many([*values][:1000]) == 1000
    assert await pool.delete_pattern("k:*", dry_run=True) == 2000
    assert await pool.delete_pattern("k:*") == 2000
    assert [node.dbsize() for node in cluster.nodes] == [0, 0, 0]


async def test_a_pipeline_keeps_the_order_over_nodes(pool):
    """Results of a pipeline are in the order of its commands, whatever node answered."""
    async with pool.pipeline() as pipe:
        for number in range(200):
            pipe.set(f"p{number}", number)
            pipe.get(f"p{number}")
        replies = await pipe.execute()
    assert replies[1::2] == [str(number).encode() for number in range(200)]
    assert all(replies[::2])


async def test_a_transaction_needs_one_slot(pool):
    """Keys with one hash tag are changed together; keys of several slots are a clear error before anything is sent."""
    pipe = pool.client().pipeline(transaction=True)
    pipe.incr("{user:7}:a")
    pipe.incr("{user:7}:b")
    assert await pipe.execute() == [1, 1]
    pipe.incr("a")
    pipe.incr("b")
    with pytest.raises(ConfigurationError, match="hash tag"):
        await pipe.execute()
    with pytest.raises(ResponseError, match=r"(?i)same slot"):
        await pool.client().mget("a", "b", "c")


async def test_scripts_locks_and_messages_work(pool):
    """Scripts run where their keys are, locks keep both of their keys together, messages reach every node."""
    client = pool.client()
    script = client.register_script("return redis.call('INCR', KEYS[1])")
    assert [await script(keys=[f"s{number}"]) for number in range(9)] == [1] * 9
    async with pool.lock("job") as lock:
        assert lock.fence > 0
    with pytest.raises(ConfigurationError, match="cursor per node"):
        await client.scan()


async def test_a_slot_that_moved_is_followed(cluster, pool):
    """After a slot has moved, the first command is redirected and executed exactly once, and the map is corrected."""
    client = pool.client()
    assert await client.incr("count") == 1
    source = owner_of(cluster, b"count")
    target = (source + 1) % 3
    cluster.move(key_slot(b"count"), source, target)
    assert await client.incr("count") == 2
    async with pool.pipeline() as pipe:
        for _ in range(50):
            pipe.incr("count")
        assert await pipe.execute() == list(range(3, 53))
    assert await client.get("count") == b"52"
    cluster.move(key_slot(b"count"), target, source)


async def test_a_slot_on_its_way_is_asked_for(cluster, pool):
    """While a slot is between two nodes, a key that is already over there is found by ASK, once per command."""
    client = pool.client()
    await client.set("moving", 1)
    slot, source = key_slot(b"moving"), owner_of(cluster, b"moving")
    target = (source + 1) % 3
    cluster.move(slot, source, target, finish=False)
    assert await client.incr("moving") == 2
    assert await pool.get_many(["moving", "other"]) == {"moving": b"2"}
    for node in cluster.nodes:
        node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", cluster.name_of(target))
    assert await client.incr("moving") == 3


async def test_nothing_is_lost_or_doubled_in_a_live_reshard(cluster, pool):
    """While slots move back and forth under load, every increment counts once and no reader sees an error."""
    client = pool.client()
    keys = [f"live{number}" for number in range(12)]
    await asyncio.gather(*(client.set(key, 0) for key in keys))
    stop = asyncio.Event()
    counts = dict.fromkeys(keys, 0)

    async def increment(key):
        while not stop.is_set():
            counts[key] += 1
            assert await client.incr(key) == counts[key]

    def reshard():
        for key in keys[:4]:
            source = owner_of(cluster, key.encode())
            cluster.move(key_slot(key.encode()), source, (source + 1) % 3)

    tasks = [asyncio.create_task(increment(key)) for key in keys]
    await asyncio.to_thread(reshard)
    stop.set()
    await asyncio.gather(*tasks)
    assert await pool.get_many(keys) == {key: str(count).encode() for key, count in counts.items()}


async def test_statistics_and_health_are_those_of_all_nodes(cluster, pool):
    """Lanes are told per node, sockets are added up, and a node that is gone makes the pool unhealthy."""
    assert (await pool.set_many({f"k{n}": b"x" for n in range(100)})).errors == {}
    lanes = pool.stats().lanes
    assert {name.partition("@")[2] for name in lanes} >= {f"127.0.0.1:{port}" for port in cluster.ports}
    assert sum(lane.commands for lane in lanes.values()) >= 100
    health = await pool.health()
    assert health.status == "healthy"
    assert health.created_connections >= 3


async def test_one_seed_of_three_is_enough(cluster, patient):
    """The map comes from whichever seed answers; without any the failure says that nothing was sent."""
    async with RedisPool(patient(nodes=f"127.0.0.1:1,127.0.0.1:{cluster.ports[2]}")) as pool:
        assert await pool.set("seeded", b"1")
    async with RedisPool(patient(nodes="127.0.0.1:1", timeout=0.3)) as pool:
        with pytest.raises(NotSentError, match="no node tells"):
            await pool.get("seeded")


def test_threads_have_the_same(cluster, patient):
    """The client for threads routes, splits, redirects and joins as the asyncio one does."""
    cluster.empty()
    pool = RedisPool(patient(nodes=cluster.names))
    values = {f"t:{n}": str(n).encode() for n in range(300)}
    assert pool.blocking.set_many(values, ttl=60).errors == {}
    assert pool.blocking.get_many(values) == values
    client = pool.sync()
    assert client.dbsize() == 300
    assert client.incr("threads") == 1
    source = owner_of(cluster, b"threads")
    cluster.move(key_slot(b"threads"), source, (source + 1) % 3)
    assert client.incr("threads") == 2
    assert pool.blocking.delete_pattern("t:*") == 300
    pipe = client.pipeline(transaction=True)
    pipe.incr("{one}a")
    pipe.incr("{one}b")
    assert pipe.execute() == [1, 1]
    client.disconnect()


def test_every_slot_has_an_owner(cluster):
    """The map of the test's own cluster is complete."""
    assert sum(last - first + 1 for first, last, *_ in cluster.nodes[0].execute_command("CLUSTER SLOTS")) == SLOTS


COMMANDS = [
    ("GET", "k"),
    ("SET", "k", "v", "PX", "5"),
    ("MGET", "k", "j"),
    ("EVAL", "return 1", "2", "k", "j", "x"),
    ("BITOP", "AND", "k", "j"),
    ("OBJECT", "ENCODING", "k"),
    ("MEMORY", "USAGE", "k"),
    ("XGROUP", "CREATE", "k", "g", "$"),
    ("XREAD", "COUNT", "1", "STREAMS", "k", "0"),
    ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "k", ">"),
    ("ZUNION", "2", "k", "j"),
    ("LMPOP", "1", "k", "LEFT"),
    ("BLMPOP", "0.1", "1", "k", "LEFT"),
    ("SINTERCARD", "1", "k"),
    ("ZUNIONSTORE", "k", "1", "j"),
    ("SORT", "k"),
    ("HSET", "k", "f", "v"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_the_first_key_is_the_servers(cluster, command):
    """The tables find the first key that the server finds."""
    keys = cluster.nodes[0].execute_command("COMMAND GETKEYS", *command)
    assert first_key((command[0],), command) == (keys[0].decode() if isinstance(keys[0], bytes) else keys[0])


@pytest.mark.parametrize("command", [("PING",), ("INFO",), ("EVAL", "return 1", "0"), ("DBSIZE",), ("GET",)])
def test_commands_without_a_key_have_none(command):
    """What has no key belongs to no slot, and a command that lacks its key is left to the server to refuse."""
    assert first_key((command[0],), command) is None


async def until_gone(manager, key):
    """Read until another manager's invalidation has arrived; max_stale is 0.1 s."""
    for _ in range(2_000):
        if await manager.get(key) is None:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(key)


async def test_the_cache_is_coherent_over_a_cluster(cluster, patient):
    """Two managers over a cluster share loads, values, tags and invalidations, whatever node a key is on."""
    cluster.empty()
    settings = patient(nodes=cluster.names)
    async with RedisPool(settings) as one, RedisPool(settings) as two:
        first, second = CacheManager(redis=one, namespace="c"), CacheManager(redis=two, namespace="c")
        for number in range(20):
            await first.set(f"user:{number}", number, tags=("all",))
        assert [await second.get(f"user:{number}") for number in range(20)] == list(range(20))
        assert (await second.invalidate("user:3")).delivered
        assert (await first.get_many(["user:3", "user:4"])).keys() <= {"user:3", "user:4"}
        await until_gone(first, "user:3")
        assert (await first.invalidate_tags("all")).delivered
        await until_gone(second, "user:4")
        assert await first.get_or_set("loaded", lambda: 42) == 42
        assert await second.get("loaded") == 42
        assert (await first.clear()).delivered
        await first.aclose()
        await second.aclose()


async def test_a_reshard_under_the_cache_is_not_seen(cluster, patient):
    """While slots move, readers get right values and no error; afterwards invalidations reach every manager."""
    cluster.empty()
    settings = patient(nodes=cluster.names)
    names = [f"item:{number}" for number in range(24)]
    truth = dict.fromkeys(names, 1)
    async with RedisPool(settings) as one, RedisPool(settings) as two:
        managers = [CacheManager(redis=pool, namespace="r") for pool in (one, two)]
        stop = asyncio.Event()

        async def read(manager, name):
            while not stop.is_set():
                assert await manager.get_or_set(name, lambda: truth[name], ttl=0.05) == 1
                await asyncio.sleep(0.01)

        def reshard():
            for source, node in enumerate(cluster.nodes):
                for key in node.keys("*")[:3]:
                    if owner_of(cluster, key) == source:
                        cluster.move(key_slot(key), source, (source + 1) % 3)

        tasks = [asyncio.create_task(read(manager, name)) for manager in managers for name in names]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(reshard)
        stop.set()
        await asyncio.gather(*tasks)
        truth.update(dict.fromkeys(names, 2))
        for name in names:
            await until_delivered(managers[0], name)
        for manager in managers:
            for name in names:
                await until_seen(manager, name, truth)
            await manager.aclose()


async def until_delivered(manager, name):
    """Invalidate until the remote level has taken it; right after a reshard it may be given a moment's rest."""
    for _ in range(1_000):
        if (await manager.invalidate(name)).delivered:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"the invalidation of {name} was not delivered")


async def until_seen(manager, name, truth):
    """Wait until a manager gives the true value, as it does once the invalidation has arrived."""
    for _ in range(2_000):
        if await manager.get_or_set(name, lambda: truth[name]) == truth[name]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{name} is stale")
