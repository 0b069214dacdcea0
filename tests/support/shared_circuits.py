"""Workers of a fleet whose time is made by tests: clocks of their own, and records in Redis that grow old when told to.

`python shared_circuits.py` is a worker process: it evaluates the expressions it reads, ``me`` being its member of the
fleet, and prints what comes out as JSON.
"""

import json
import subprocess
import sys
import threading
import time

import redis

from isp_perf.breaker import CircuitConfig, CircuitOpenError, CircuitRegistry, _shared_open
from isp_perf.breaker._member import Note
from isp_perf.redis import RedisPool, RedisSettings
from isp_perf.testing import ManualClock

PATIENCE = 20.0
"""Seconds that nothing takes here, however long the machine stalls, unless it hangs."""

BREAK, PROBE = 300, 100
CONFIG = CircuitConfig(failure_threshold=2, break_duration=BREAK, probe_timeout=PROBE)
RECORD = "isp:circuit:{api}"

_AGE = """
local function earlier(ends) return string.format('%.0f', ends - ARGV[1]) end
for _, key in ipairs(redis.call('KEYS', '*:circuit:{*}')) do
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local field, ends, rest = flat[i], string.match(flat[i + 1], '^(%d+)(.*)$')
    if string.find(field, 'ends$') or (ends and string.sub(field, 1, 2) == 'i:') then
      redis.call('HSET', key, field, earlier(ends) .. rest)
    end
  end
end
for _, key in ipairs(redis.call('KEYS', '*:circuit:{*}:votes')) do
  for _, worker in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -ARGV[1], worker) end
end
"""


def age(url, seconds):
    """Make the records of all shared circuits older by so many seconds."""
    with redis.Redis.from_url(url) as client:
        client.eval(_AGE, 0, seconds * 1000)


def wait_for(condition):
    """Ask until the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def patient(url):
    """Return a pool whose deadlines a machine that stalls does not reach."""
    return RedisPool(RedisSettings(url=url, timeout=PATIENCE, connect_timeout=PATIENCE))


def fail():
    """Fail as a service does."""
    raise OSError


class Member:
    """A worker of the fleet, with one circuit."""

    def __init__(self, url, quorum=1):
        self.clock = ManualClock()
        self.registry = CircuitRegistry.on_clock(self.clock)
        self.breaker = self.registry.define("api", CONFIG)
        self.outcomes = []
        self.seen = {}
        self.breaker.on("transition", lambda event: self.seen.setdefault(event.after, time.monotonic()))
        self.pool = patient(url)
        self.fleet = self.registry.share(self.pool, quorum)
        wait_for(self._hears)
        self.flush()

    def _hears(self):
        """Say something to the whole fleet, and tell whether it arrived here."""
        self.fleet.wire.call("reset", "echo", "echo")
        return self.fleet.report()["heard"] > 0

    def flush(self):
        """Wait until every note that was written before is sent."""
        sent = threading.Event()
        self.fleet.post(Note(sent.set, sent.set))
        assert sent.wait(PATIENCE)

    def call(self, work=int):
        """Call through the circuit, and tell what became of it."""
        try:
            return self.breaker.call(work)
        except CircuitOpenError:
            return "rejected"
        except OSError:
            return "failed"

    def trip(self):
        """Fail until the circuit opens."""
        return [self.call(fail), self.call(fail)]

    def reach(self):
        """Be the service, which answers when Redis says so."""
        self.pool.sync().incr("reached")
        wait_for(lambda: self.pool.sync().exists("answer"))
        return "made"

    def stampede(self, threads=10):
        """Have so many threads call at once; their ``outcomes`` come when they come."""
        for _ in range(threads):
            threading.Thread(target=lambda: self.outcomes.append(self.call(self.reach)), daemon=True).start()

    def newest(self):
        """Return the version of the record in Redis."""
        return int(self.pool.sync().hget(RECORD, "v"))

    def known(self):
        """Return the version of the record that the circuit has followed."""
        with self.breaker.lock:
            return self.breaker.fleet.known

    def leave(self):
        """Leave the fleet, and let its connections go."""
        self.fleet.close()
        self.pool.sync().disconnect()


class Worker:
    """A process with a member of the fleet, which joins when it is told to."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, expression):
        """Have an expression evaluated."""
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def end(self):
        """Return what came out of it."""
        return json.loads(self.process.stdout.readline())

    def ask(self, expression):
        """Return what an expression is."""
        self.begin(expression)
        return self.end()

    def until(self, expression, expected):
        """Ask until the answer is the expected one."""
        end = time.monotonic() + PATIENCE
        while (found := self.ask(expression)) != expected:
            assert time.monotonic() < end, f"{expression} is still {found}"
            time.sleep(0.002)

    def stop(self):
        """End the process as a crash does."""
        self.process.kill()
        self.process.communicate()


def work():
    """Be a worker process until the end of the input."""
    _shared_open.PATIENCE = PATIENCE
    names = {"Member": Member, "fail": fail}
    for line in sys.stdin:
        sys.stdout.write(json.dumps(eval(line, names), default=lambda _: None) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    work()
