import asyncio

import pytest

from isp_perf.errors import ConfigurationError, MaybeExecutedError, NotSentError
from isp_perf.testing import ChaosLevel, MemoryLevel, simulate
from isp_perf.typing import Drop, Ping, Put


class Ear:
    def __init__(self):
        self.heard = []

    def changed(self, keys):
        self.heard.append(keys)

    def connected(self):
        self.heard.append("connected")

    def lost(self):
        self.heard.append("lost")


def test_time_is_made_up():
    """An hour of sleep costs nothing, and the clock says that it has passed."""

    async def main(clock):
        started = clock()
        await asyncio.sleep(3600)
        return clock() - started

    assert simulate(main) == pytest.approx(3600, abs=0.01)


def test_a_schedule_that_hangs_is_an_error():
    """Tasks that wait for one another for ever are not waited for."""

    async def main(clock):
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="hangs"):
        simulate(main)


def seen(seed, **network):
    """What one seed does to a hundred orders."""

    async def main(clock):
        level, outcomes = ChaosLevel(MemoryLevel(clock), seed=seed, **network), []
        for number in range(100):
            try:
                await level.perform([Put(f"k{number}", b"v", 1.0)], within=0.05)
            except MaybeExecutedError as error:
                outcomes.append(str(error))
            else:
                outcomes.append("done")
        return outcomes, sorted(level.level.data)

    return simulate(main)


def test_one_seed_is_one_schedule():
    """The same seed does the same, another seed something else."""
    network = {"cut": 0.05, "silent": 0.05, "late": 0.2, "repeat": 0.1}
    assert seen(1, **network) == seen(1, **network) != seen(2, **network)
    outcomes, _ = seen(1, **network)
    assert len(set(outcomes)) == 3


def test_orders_without_an_answer_may_have_been_carried_out():
    """Of lost answers some orders arrived and some did not; without faults all are answered."""
    outcomes, stored = seen(3, silent=0.2)
    assert outcomes.count("done") < len(stored) < 100
    assert set(seen(3)[0]) == {"done"}


def test_changes_arrive_before_the_answer_that_follows_them():
    """News and answers of one connection keep their order; a cut is heard of, and the next use connects again."""

    async def main(clock):
        server, ear = MemoryLevel(clock), Ear()
        level = ChaosLevel(server, seed=0)
        channel = level.channel("k", ear)
        await channel.perform([Ping(b"1")], within=1)
        server.blocking.perform([Put("k1", b"v", 1.0), Put("other", b"v", 1.0)], within=1)
        await channel.perform([Ping(b"2")], within=1)
        assert ear.heard == ["connected", [b"k1"]]
        level.cut()
        assert ear.heard[-1] == "lost"
        await channel.perform([Drop(("k1",))], within=1)
        assert ear.heard[-2:] == ["connected", [b"k1"]]
        channel.close()
        assert channel.closed
        await level.aclose()

    simulate(main)


def test_a_partition_is_silent_and_ends():
    """Nothing arrives and nobody is told, until it heals; patterns are refused meanwhile."""

    async def main(clock):
        level = ChaosLevel(MemoryLevel(clock), seed=0)
        await level.perform([Put("k", b"v", 1.0)], within=1)
        level.partition()
        with pytest.raises(MaybeExecutedError):
            await level.perform([Drop(("k",))], within=0.05)
        with pytest.raises(NotSentError):
            await level.delete_pattern("*")
        assert "k" in level.level.data
        level.heal()
        assert await level.delete_pattern("k") == 1

    simulate(main)


def test_a_share_is_between_nothing_and_everything():
    """A probability above 1 is refused."""
    with pytest.raises(ConfigurationError):
        ChaosLevel(MemoryLevel(), seed=0, cut=2)
