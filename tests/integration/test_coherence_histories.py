"""Random histories: three processes with local levels, one Redis, PostgreSQL as the truth, and a judge."""

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from isp_perf.testing import FaultProxy, History, Verdict, check

WORKER = Path(__file__).with_name("coherence_worker.py")
PROCESSES = 3
KEYS = [f"{kind}:{number}" for kind in ("near", "strict") for number in range(8)]
BOUND = 0.1
BOUND_IN_CHAOS = 0.4  # max(max_stale, deadline of one step) and 300 ms
FEWEST = 100  # reads of each kind: so much even a machine does that stalls
FAULTS = [
    lambda proxy, chance: proxy.heal(),
    lambda proxy, chance: proxy.reset(),
    lambda proxy, chance: proxy.drop(),
    lambda proxy, chance: proxy.drop(refuse=True),
    lambda proxy, chance: proxy.half_close(),
    lambda proxy, chance: proxy.blackhole(),
    lambda proxy, chance: proxy.blackhole(direction="up"),
    lambda proxy, chance: proxy.blackhole(direction="down"),
    lambda proxy, chance: proxy.latency(chance.choice([0.002, 0.02, 0.3])),
    lambda proxy, chance: proxy.slice(chance.choice([1, 7])),
    lambda proxy, chance: proxy.corrupt(3),
]


async def new_truth(url):
    """Make the table of the truth."""
    connection = await asyncpg.connect(url)
    await connection.execute("DROP TABLE IF EXISTS truth")
    await connection.execute("CREATE TABLE truth (key text PRIMARY KEY, version int NOT NULL)")
    await connection.executemany("INSERT INTO truth VALUES ($1, 0)", [(key,) for key in KEYS])
    await connection.close()


def torment(proxies, chance, end):
    """Let something else go wrong on some connection, again and again, until ``end``; heal all."""
    while time.monotonic() < end:
        proxy = chance.choice(proxies)
        proxy.heal()
        chance.choice(FAULTS)(proxy, chance)
        time.sleep(chance.random() * 0.25)
    for proxy in proxies:
        proxy.heal()


def run(redis_url, postgres_url, *, seed, seconds, chaos, pause=0.02):
    """Run one random history; return the verdicts of keys with and without a local level, and what was counted."""
    truth = postgres_url.replace("+asyncpg", "")
    asyncio.run(new_truth(truth))
    chance, where = random.Random(seed), urlsplit(redis_url)
    with ExitStack() as stack:
        proxies = (
            [stack.enter_context(FaultProxy(where.hostname, where.port)) for _ in range(PROCESSES)] if chaos else []
        )
        workers = []
        for number in range(PROCESSES):
            order = {"truth": truth, "name": f"p{number}", "seed": chance.random(), "keys": KEYS, "pause": pause}
            order |= {"redis": redis_url, "namespace": f"history{seed}"}  # the truth starts again from 0
            if chaos:
                order["redis"] = f"redis://{proxies[number].host}:{proxies[number].port}{where.path}"
            workers.append(stack.enter_context(started(order)))
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        end = time.monotonic() + seconds
        settled = end + (2.0 if chaos else 0.3)
        for worker in workers:
            worker.stdin.write(f"{json.dumps({'end': end, 'settled': settled})}\n")
            worker.stdin.flush()
        if chaos:
            tormentor = threading.Thread(target=torment, args=(proxies, chance, end))
            tormentor.start()
            stack.callback(tormentor.join)
        outputs = [json.loads(worker.communicate(timeout=seconds + 60)[0]) for worker in workers]
    return judged(outputs, settled, bound=BOUND_IN_CHAOS if chaos else BOUND)


def started(order):
    """Return a worker process with its orders; it says when it is ready, and is told how long to go on."""
    command = [sys.executable, str(WORKER), json.dumps(order)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)


def judged(outputs, settled, *, bound):
    """Return the verdicts of keys with and without a local level, and the workers' counts."""
    counts = Counter()
    for output in outputs:
        counts.update({name: number for name, number in output["counts"].items() if name != "channel"})
    verdicts = []
    for kind in ("near", "strict"):
        history = History({key: f"{key}=0" for key in KEYS})
        for output in outputs:
            named = [[*write[:2], f"{write[1]}={write[-1]}", *write[3:]] for write in output["writes"]]
            reads, writes = ([r for r in records if r[1].startswith(kind)] for records in (output["reads"], named))
            history.add(reads, writes)
        strict = 0 if kind == "strict" and bound == BOUND else bound
        verdicts.append(check(history, max_stale=strict, converged_after=settled))
    return (*verdicts, counts)


@pytest.mark.parametrize("chaos", [False, True], ids=["healthy", "chaos"])
def test_a_random_history_breaks_no_promise(redis_url, postgres_url, chaos):
    """Three processes read nothing older than the bound (0 without a local level), nothing backwards or made up."""
    seed = random.randrange(1 << 30)
    near, strict, counts = run(redis_url, postgres_url, seed=seed, seconds=2.5, chaos=chaos)
    for verdict in (near, strict):
        assert verdict.ok, f"seed {seed}: {verdict}"
    assert min(near.reads, strict.reads) > FEWEST
    assert min(counts["l1_hits"], near.writes, strict.writes) > 0


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("chaos", [False, True], ids=["healthy", "chaos"])
def test_many_random_histories_break_no_promise(redis_url, postgres_url, chaos):
    """As many reads as COHERENCE_READS says (100,000) in each of many histories with seeds of their own."""
    wanted = int(os.environ.get("COHERENCE_READS", "100000"))
    near, strict, counts = Verdict(), Verdict(), Counter()
    seed = int(os.environ.get("COHERENCE_SEED", "0"))
    while near.reads + strict.reads < wanted:
        seed += 1
        one, other, more = run(redis_url, postgres_url, seed=seed, seconds=20, chaos=chaos, pause=0.005)
        near, strict, counts = near + one, strict + other, counts + more
        sys.stderr.write(f"seed {seed}\n with a local level: {near}\n max_stale=0: {strict}\n {dict(counts)}\n")
        assert one.ok, f"seed {seed}: {one}"
        assert other.ok, f"seed {seed}: {other}"
