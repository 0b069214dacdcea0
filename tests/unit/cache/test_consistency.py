"""The auditor: what it samples, how it judges, what it leaves alone, and what it never tells."""

import asyncio
import logging
import threading
import time
from dataclasses import dataclass

import pytest

from isp_perf._runtime.drive import adrive, drive
from isp_perf.cache import Auditor, AuditReport, CacheManager, StaleRead, entry
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock, MemoryLevel


@pytest.fixture(autouse=True)
def quiet():
    """A stale value is logged; these tests are made of them."""
    logging.getLogger("isp_perf.cache").setLevel("ERROR")
    yield
    logging.getLogger("isp_perf.cache").setLevel("NOTSET")


class Ward:
    """A manager with a made-up clock, an auditor that takes its turns when it is told to, and a truth."""

    def __init__(self, **options):
        self.clock = ManualClock()
        self.truth = {}
        self.loads = []
        self.cache = CacheManager("ward", clock=self.clock, **options)

    def audit(self, **settings):
        """Start an auditor whose loop never gets a turn by itself."""
        self.auditor = Auditor(self.cache, **{"sample": 1.0, "pause": 0.005, **settings})
        self.auditor._pause = 3600
        return self.auditor

    def balance(self, key="balance:{customer}", **policy):
        """Return a cached function of the truth."""

        @self.cache.cached(key, **policy)
        async def balance(customer: str):
            self.loads.append(customer)
            value = self.truth.get(customer, 0)
            if isinstance(value, Exception):
                raise value
            return value

        return balance

    async def turns(self, number=1):
        """Let some rounds pass and take that many turns."""
        for _ in range(number):
            self.clock.advance(6.0)
            await self.turn()

    async def turn(self):
        """Take one turn."""
        await adrive(self.auditor._audit.turn(tasks=True))

    @property
    def results(self):
        """What was found so far."""
        return dict(self.auditor.report().results)


@pytest.fixture
def ward():
    return Ward()


async def hit(function, times, *args):
    """Load and then hit a key."""
    for _ in range(times + 1):
        await function(*args)


async def test_a_true_value_is_found_true(ward):
    """The loader is called once for all samples of one key, and all of them count."""
    balance = ward.balance()
    async with ward.audit():
        await hit(balance, 10, "ana")
        await ward.turns()
        report = ward.auditor.report()
    assert report.results == {"true": 10}
    assert report.loads == 1
    assert report.stale_ratio == 0.0
    assert ward.loads == ["ana", "ana"]


async def test_a_write_that_nobody_told_is_found(ward):
    """A value that differs twice and is served in between is stale, and is as old as the first difference."""
    balance = ward.balance()
    async with ward.audit():
        await hit(balance, 4, "ana")
        ward.truth["ana"] = 70
        await ward.turns()
        assert ward.results == {}, "the news may be on the way"
        await ward.turns()
        report = ward.auditor.report()
    assert report.results == {"stale": 4}
    assert report.stale_by == {"balance:{customer}": 4}
    assert report.stale_ratio == 1.0
    assert report.latest == (StaleRead(template="balance:{customer}", seconds=6.0),)
    assert report.age_seconds == 24.0
    assert sum(report.age_cells) == 4
    assert await balance("ana") == 0, "an auditor changes nothing"


async def test_the_age_of_an_untruth_grows_with_every_look(ward):
    """A value that stays stale is counted again, with its age since it was first seen to differ."""
    balance = ward.balance()
    async with ward.audit():
        await hit(balance, 1, "ana")
        ward.truth["ana"] = 70
        await ward.turns(2)
        await balance("ana")
        await ward.turns(2)
        ages = [stale.seconds for stale in ward.auditor.report().latest]
    assert ages == [6.0, 18.0]


async def test_a_write_that_was_told_is_overtaken(ward):
    """A value that differs and is gone a moment later was not served too long."""
    balance = ward.balance()
    async with ward.audit():
        await hit(balance, 2, "ana")
        ward.truth["ana"] = 70
        await ward.turns()
        await balance.invalidate("ana")
        await ward.turns()
        report = ward.auditor.report()
    assert report.results == {"overtaken": 2}
    assert report.stale_ratio == 0.0
    assert report.loads == 1, "gone is gone: nothing has to be loaded for that"


async def test_nothing_is_stale_before_its_second_look(ward):
    """A second look comes no sooner than recheck_after and the function's own bound after the first one."""
    balance = ward.balance(max_stale=3)
    async with ward.audit(recheck_after=2):
        await hit(balance, 1, "ana")
        ward.truth["ana"] = 70
        await ward.turns()
        ward.clock.advance(4.9)
        await ward.turn()
        assert ward.results == {}
        ward.clock.advance(0.2)
        await ward.turn()
        assert ward.results == {"stale": 1}


async def test_a_truth_that_never_stands_still_is_unsteady(ward):
    """A loader that returns a third value says nothing about the first."""
    balance = ward.balance()
    async with ward.audit():
        await hit(balance, 1, "ana")
        for value in (1, 2):
            ward.truth["ana"] = value
            await ward.turns()
    assert ward.results == {"unsteady": 1}


async def test_a_loader_that_fails_is_counted_and_reaches_nobody(ward):
    """The error of a loader is a result, at the first look and at the second one."""
    balance = ward.balance()
    async with ward.audit():
        await hit(balance, 1, "ana")
        ward.truth["ana"] = OSError("gone")
        await ward.turns()
        assert ward.results == {"failed": 1}
        await balance("ana")
        ward.truth["ana"] = 1
        await ward.turns()
        ward.truth["ana"] = OSError("gone")
        await ward.turns()
    assert ward.results == {"failed": 2}


async def test_a_loader_that_hangs_is_left_behind(ward):
    """A loader call ends after the timeout, and one that cancels itself does not end the auditor."""
    waits = [asyncio.sleep(0)]

    @ward.cache.cached("slow:{n}")
    async def slow(n: int) -> int:
        await waits.pop()
        return n

    async def cancel_myself():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async with ward.audit(timeout=0.01):
        await hit(slow, 1, 1)
        waits.append(asyncio.sleep(60))
        await ward.turns()
        await slow(1)
        waits.append(cancel_myself())
        await ward.turns()
    assert ward.results == {"failed": 2}


class Odd:
    def __eq__(self, other):
        raise ValueError("ambiguous")

    __hash__ = None


class Plain:
    """Knows no equality, and no codec writes it."""


@dataclass(eq=False)
class Account:
    """Knows no equality; a codec writes it."""

    owner: str
    balance: int


async def test_a_comparison_that_raises_is_no_untruth(ward):
    """What cannot be compared is neither true nor stale."""
    balance = ward.balance()
    ward.truth["ana"] = Odd()
    async with ward.audit():
        await hit(balance, 1, "ana")
        ward.truth["ana"] = Odd()
        await ward.turns()
    assert ward.results == {"failed": 1}


async def test_objects_that_are_never_equal_are_unsteady(ward):
    """Objects without an equality of their own, which no codec writes either, are never called stale."""
    balance = ward.balance()
    ward.truth["ana"] = Plain()
    async with ward.audit():
        await hit(balance, 1, "ana")
        for _ in range(2):
            ward.truth["ana"] = Plain()
            await ward.turns()
    assert ward.results == {"unsteady": 1}


async def test_objects_are_the_same_if_they_are_stored_as_the_same(ward):
    """Where == does not know, the codec decides."""

    @ward.cache.cached("account:{owner}")
    async def account(owner: str) -> Account:
        return Account(owner, ward.truth.get(owner, 0))

    async with ward.audit():
        await hit(account, 1, "ana")
        await hit(account, 1, "bia")
        ward.truth["bia"] = 1
        await ward.turns(3)
    assert ward.results == {"true": 1, "stale": 1}


async def test_users_may_compare_by_themselves(ward):
    """A field that is always new does not make a value stale if the user's comparison leaves it out."""
    balance = ward.balance()
    ward.truth["ana"] = {"at": 1, "sum": 5}
    async with ward.audit(same=lambda one, other: one["sum"] == other["sum"]):
        await hit(balance, 1, "ana")
        ward.truth["ana"] = {"at": 2, "sum": 5}
        await ward.turns()
    assert ward.results == {"true": 1}


async def test_hits_whose_call_cannot_be_made_again_are_opaque(ward):
    """Digests, kept errors, keys of the user's own and calls with more than the key are not made again."""

    @ward.cache.cached()
    async def digest(x: list[int]) -> int:
        return len(x)

    @ward.cache.cached("fails:{x}", cache_errors={KeyError: 60})
    async def fails(x: int) -> int:
        raise KeyError(x)

    @ward.cache.cached("extra:{x}")
    async def extra(x: int, session: object) -> int:
        return x

    async with ward.audit():
        await hit(digest, 1, [1])
        await hit(extra, 1, 1, object())
        await ward.cache.set("own", 1)
        await ward.cache.get("own")
        for _ in range(2):
            with pytest.raises(KeyError):
                await fails(1)
        await ward.turns()
        report = ward.auditor.report()
    assert report.results == {"opaque": 4}
    assert report.loads == 0


async def test_a_share_of_the_hits_is_sampled(ward):
    """One in a hundred of 1,000 hits on two keys, in proportion to them; the rest of a hundred is owed to later."""
    balance = ward.balance()
    async with ward.audit(sample=0.01):
        await hit(balance, 750, "ana")
        await hit(balance, 299, "bia")
        await ward.turns(2)
        assert ward.results == {"true": 10}
        await hit(balance, 51, "cai")
        await ward.turns(3)
    assert ward.results == {"true": 11}


async def test_what_was_served_before_the_start_is_not_sampled(ward):
    """An auditor looks at hits from its start on."""
    balance = ward.balance()
    await hit(balance, 10, "ana")
    async with ward.audit():
        await ward.turns(2)
        assert ward.auditor.report() == AuditReport(age_cells=(0,) * 320)


async def test_more_hits_than_there_is_time_for_are_thinned_out(ward):
    """However many hits there are, a round has no more samples than loader calls fit into it."""
    balance = ward.balance()
    async with ward.audit(pause=1.6):
        for name in "abcdefgh":
            await hit(balance, 5, name)
        await ward.turns()
        for _ in range(5):
            await ward.turn()
    assert ward.results == {"true": 3}
    assert ward.auditor.report().loads == 3


async def test_an_audit_counts_in_no_statistics(ward):
    """Neither hits, misses nor loads change by an audit, and nothing is stored."""
    balance = ward.balance()
    async with ward.audit():
        await hit(balance, 3, "ana")
        ward.truth["ana"] = 1
        before = ward.cache.stats()
        await ward.turns(2)
        assert ward.results == {"stale": 3}
        assert ward.cache.stats() == before


async def test_a_loader_can_speak_of_its_entry_in_an_audit(ward):
    """entry() works in a loader that an auditor calls, and changes nothing."""

    @ward.cache.cached("told:{n}")
    async def told(n: int) -> int:
        entry().ttl = 50
        return n

    async with ward.audit():
        await hit(told, 1, 1)
        await ward.turns()
    assert ward.results == {"true": 1}


async def test_plain_functions_are_called_in_threads(ward):
    """The loader of a plain function does not hold up the event loop."""
    threads = []

    @ward.cache.cached("plain:{n}")
    def plain(n: int) -> int:
        threads.append(threading.current_thread())
        return n

    async with ward.audit():
        plain(1)
        plain(1)
        await ward.turns()
    assert ward.results == {"true": 1}
    assert threads[0] is threading.main_thread() is not threads[1]


async def test_hits_of_the_remote_level_are_sampled():
    """Where nothing is kept locally, hits of the remote level are, those of many calls at once included."""
    level = MemoryLevel()
    ward, other = Ward(redis=level), Ward(redis=level)
    balance, filled = ward.balance(max_stale=0), other.balance(max_stale=0)
    for name in ("ana", "bia", "cai"):
        await filled(name)
    async with ward.audit():
        await balance("ana")
        await balance.many(["bia", "cai"])
        ward.truth["ana"] = 1
        await ward.turns(4)
        assert ward.results == {"true": 2, "stale": 1}
        await filled.invalidate("ana")
        await balance("bia")
        ward.truth["bia"] = 1
        await ward.turns()
        await filled.invalidate("bia")
        await ward.turns()
    assert ward.results == {"true": 2, "stale": 1, "overtaken": 1}
    await ward.cache.aclose()
    await other.cache.aclose()


def test_threads_judge_hits_of_the_remote_level_too():
    """Without an event loop a plain function's hit of the remote level is loaded, and looked up, in the thread."""
    level, clock, truth = MemoryLevel(), ManualClock(), [1]
    caches = [CacheManager(redis=level, clock=clock) for _ in range(2)]

    def cached(cache):
        @cache.cached("n:{n}", max_stale=0)
        def read(n: int) -> int:
            return truth[0]

        return read

    filled, read = map(cached, caches)
    assert filled(1) == 1
    auditor = Auditor(caches[1], sample=1.0)
    auditor._audit.begin()
    assert read(1) == 1
    truth[0] = 2
    for _ in range(2):
        drive(auditor._audit.turn(tasks=False))
        clock.advance(6.0)
    auditor._audit.end()
    for cache in caches:
        cache.configure(redis=None)
    assert auditor.report().results == {"stale": 1}


async def test_keys_with_a_loader_of_their_own_are_sampled_in_the_remote_level():
    """get_or_set brings its loader along, so its hits of the remote level can be judged."""
    level = MemoryLevel()
    ward, other = Ward(redis=level), Ward(redis=level)
    await other.cache.get_or_set("own", lambda: 1)
    async with ward.audit():
        assert await ward.cache.get_or_set("own", lambda: 2) == 1
        await ward.turns(2)
        report = ward.auditor.report(keys=True)
    assert report.stale_by == {"(by key)": 1}
    assert report.latest[0].key == "own"
    await ward.cache.aclose()
    await other.cache.aclose()


async def test_a_database_that_stands_alone_gets_no_more_to_do():
    """While the remote level is down no loader is called for an audit."""
    level = MemoryLevel()
    ward = Ward(redis=level)
    balance = ward.balance()
    async with ward.audit():
        await hit(balance, 2, "ana")
        level.sick = True
        await ward.cache.invalidate("bia")
        assert ward.cache.health().l2 != "up"
        await ward.turns(2)
        assert ward.auditor.report().loads == 0
    await ward.cache.aclose()


async def test_no_key_is_told_unasked(ward, caplog):
    """A stale value is one line in the log and a sighting in the report, both with the template alone."""
    logging.getLogger("isp_perf.cache").setLevel("NOTSET")
    balance = ward.balance()
    async with ward.audit():
        for name in ("secret-ana", "secret-bia"):
            await hit(balance, 1, name)
            ward.truth[name] = 1
        await ward.turns(6)
        assert ward.results == {"stale": 2}
        assert "secret" not in f"{ward.auditor.report()} {ward.auditor!r} {caplog.text}"
        assert {seen.key for seen in ward.auditor.report(keys=True).latest} == {
            "balance:secret-ana",
            "balance:secret-bia",
        }
    assert [record.getMessage() for record in caplog.records] == [
        "cached values of balance:{customer} are not what it returns, for 6.0 s or more"
    ]


async def test_it_works_by_itself_from_start_to_close():
    """Between start and close it takes its turns; afterwards nothing runs, and it may be started again."""
    cache = CacheManager()

    @cache.cached("n:{n}")
    async def read(n: int) -> int:
        return n

    auditor = Auditor(cache, sample=1.0, pause=0.001)
    for round_ in (1, 2):
        await auditor.start()
        auditor._audit._next_round = 0.0
        await read(1)
        await read(1)
        for _ in range(20_000):
            if auditor.report().results.get("true", 0) >= round_:
                break
            await asyncio.sleep(0.001)
        assert auditor.running
        await auditor.aclose()
        assert not auditor.running
    await auditor.aclose()
    assert auditor.report().results["true"] >= 2
    assert "isp_perf auditor" not in {task.get_name() for task in asyncio.all_tasks()}


def test_a_thread_audits_where_no_loop_runs():
    """With a plain ``with`` a thread audits plain functions; those of coroutines are opaque to it."""
    cache = CacheManager()

    @cache.cached("n:{n}")
    def read(n: int) -> int:
        return n

    @cache.cached("c:{n}")
    async def coroutine(n: int) -> int:
        return n

    with Auditor(cache, sample=1.0, pause=0.001) as auditor:
        read(1)
        read(1)
        for _ in range(2):
            asyncio.run(coroutine(1))
        auditor._audit._next_round = 0.0
        end = time.monotonic() + 20
        while len(auditor.report().results) < 2 and time.monotonic() < end:
            time.sleep(0.001)
        assert auditor.running
    assert not auditor.running
    assert auditor.report().results == {"true": 1, "opaque": 1}
    assert "isp_perf auditor" not in {thread.name for thread in threading.enumerate()}


async def test_a_manager_has_one_running_auditor(ward):
    """A second auditor is refused while the first one runs, and welcome afterwards."""
    async with ward.audit():
        with pytest.raises(ConfigurationError, match="one running auditor"):
            await Auditor(ward.cache).start()
    async with Auditor(ward.cache) as second:
        assert second.name == "ward"


WRONG = [{"sample": 0}, {"sample": 1.1}, {"pause": 0}, {"pause": -1}, {"recheck_after": -1}, {"timeout": 0}]


@pytest.mark.parametrize("setting", WRONG, ids=str)
def test_settings_out_of_range_are_refused(ward, setting):
    """Each setting names itself when it is out of its range."""
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        Auditor(ward.cache, **setting)


async def test_a_caller_who_is_cancelled_while_it_closes_an_auditor_stays_cancelled():
    """Closing swallows the end of the auditor's own task, not a cancellation of whoever closes it."""
    auditor = Auditor(CacheManager())
    await auditor.start()
    closing = asyncio.create_task(auditor.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not auditor.running
