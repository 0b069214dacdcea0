"""Random command programs: what redis-py answers alone, the pool's client answers too, and leaves the same data."""

import asyncio

import pytest
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from isp_perf.redis import RedisPool, RedisSettings

KEYS = st.sampled_from(["a", "b", b"c", "d:1", "d:2"])
VALUES = st.one_of(st.binary(max_size=12), st.text(max_size=6), st.integers(-99, 99), st.just("x" * 70_000))
MEMBERS = st.sampled_from(["m", "n", "o", "p"])
NUMBERS = st.integers(-3, 6)

COMMANDS = st.one_of(
    st.tuples(st.just("SET"), KEYS, VALUES),
    st.tuples(st.just("SET"), KEYS, VALUES, st.sampled_from(["NX", "XX", "GET", "KEEPTTL"])),
    st.tuples(st.sampled_from(["GET", "STRLEN", "TYPE", "GETDEL", "DEL", "INCR", "LLEN", "SCARD", "EXISTS"]), KEYS),
    st.tuples(st.sampled_from(["LPOP", "RPOP", "PERSIST", "TTL", "HGETALL", "HKEYS", "SMEMBERS"]), KEYS),
    st.tuples(st.sampled_from(["APPEND", "LPUSH", "RPUSH", "GETSET", "ECHO"]), KEYS, VALUES),
    st.tuples(st.just("GETRANGE"), KEYS, NUMBERS, NUMBERS),
    st.tuples(st.just("LRANGE"), KEYS, NUMBERS, NUMBERS),
    st.tuples(st.just("MGET"), KEYS, KEYS),
    st.tuples(st.just("MSET"), KEYS, VALUES, KEYS, VALUES),
    st.tuples(st.sampled_from(["SADD", "SREM", "SISMEMBER"]), KEYS, MEMBERS),
    st.tuples(st.just("HSET"), KEYS, MEMBERS, VALUES),
    st.tuples(st.sampled_from(["HGET", "HDEL", "HEXISTS"]), KEYS, MEMBERS),
    st.tuples(st.just("HINCRBYFLOAT"), KEYS, MEMBERS, st.sampled_from(["0.5", "-1", "x"])),
    st.tuples(st.just("ZADD"), KEYS, NUMBERS, MEMBERS),
    st.tuples(st.just("ZRANGE"), KEYS, NUMBERS, NUMBERS, st.just("WITHSCORES")),
    st.tuples(st.just("ZINCRBY"), KEYS, NUMBERS, MEMBERS),
    st.tuples(st.just("EVAL"), st.just("return {redis.call('INCR', KEYS[1]), 'x'}"), st.just(1), KEYS),
    st.tuples(st.just("CONFIG GET"), st.just("maxmemory-policy")),
    st.tuples(st.just("NOSUCH"), KEYS),
    st.tuples(st.just("SET"), KEYS),
    st.tuples(st.just("SET"), KEYS, st.just(True)),
)
PROGRAMS = st.lists(
    st.one_of(
        st.tuples(st.just("one"), st.lists(COMMANDS, min_size=1, max_size=1)),
        st.tuples(st.just("batch"), st.lists(COMMANDS, max_size=6)),
        st.tuples(st.just("unit"), st.lists(COMMANDS, max_size=6)),
        st.tuples(st.just("together"), st.lists(st.tuples(st.just("GET"), KEYS), max_size=8)),
    ),
    max_size=12,
)


async def outcome(call):
    """Return a reply, or the class and text of an error."""
    try:
        return comparable(await call)
    except Exception as error:
        return comparable(error)


def comparable(reply):
    """Return a reply with its errors replaced by class and text."""
    if isinstance(reply, Exception):
        return (type(reply).__name__, str(reply))
    return [comparable(part) for part in reply] if isinstance(reply, list) else reply


async def play(client, program):
    """Run a program and return everything it answered and everything it left behind."""
    await client.flushdb()
    answers = []
    for kind, commands in program:
        if kind == "one":
            answers.append(await outcome(client.execute_command(*commands[0])))
        elif kind == "together":
            answers.append(await asyncio.gather(*[outcome(client.get(key)) for _, key in commands]))
        else:
            pipe = client.pipeline(transaction=kind == "unit")
            for command in commands:
                pipe.execute_command(*command)
            answers.append(await outcome(pipe.execute(raise_on_error=False)))
    keys = sorted(await client.keys("*"))
    return answers, [(key, await client.type(key), await contents(client, key)) for key in keys]


async def contents(client, key):
    """Return everything in a key, whatever it is."""
    readers = {
        b"string": lambda: client.get(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
        b"hash": lambda: client.hgetall(key),
        b"zset": lambda: client.zrange(key, 0, -1, withscores=True),
    }
    return await readers[await client.type(key)]()


COUNTS = [pytest.param(25, id="slice"), pytest.param(1_000, id="thousand", marks=pytest.mark.soak)]


@pytest.mark.parametrize("count", COUNTS)
def test_programs_answer_as_with_redis_py(redis_url, count):
    """Single commands, batches, transactions and concurrent reads: equal replies, equal errors, equal final data."""
    base = redis_url.removesuffix("/0")

    async def run(program):
        stock = redis.asyncio.Redis.from_url(f"{base}/1")
        expected = await play(stock, program)
        await stock.aclose()
        for coalesce in (False, True):
            patient = RedisSettings(url=f"{base}/2", timeout=30.0, connect_timeout=15.0, coalesce=coalesce)
            if coalesce and any(isinstance(answer, list) and has_wrong_type(answer) for answer in expected[0]):
                continue  # a key of a wrong type may answer as absent, as documented
            async with RedisPool(patient) as pool:
                assert await play(pool.client(), program) == expected

    @settings(max_examples=count, deadline=None)
    @given(program=PROGRAMS)
    def programs(program):
        asyncio.run(run(program))

    programs()


def has_wrong_type(answers):
    """Whether a concurrent read met a key of a wrong type."""
    return any(isinstance(answer, tuple) and "WRONGTYPE" in answer[1] for answer in answers)
