"""Keys of cached functions, used by key: the function's tags, windows and codec hold."""

from dataclasses import dataclass

import pytest

from isp_perf._core.keys import parse_template
from isp_perf.cache import CacheManager
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock


@dataclass
class Plan:
    name: str
    speed: int = 500


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def cache(clock):
    return CacheManager(clock=clock)


def plans(cache, **policy):
    """A cached function with tags that its key tells."""

    @cache.cached("plan:{region}:{name}", tags=["region:{region}", "plans"], **policy)
    async def plan(region: str, name: str) -> Plan:
        return Plan(name)

    return plan


async def test_tags_of_the_function_are_those_of_the_value(cache):
    """What was set under the function's key goes when one of its tags is invalidated, or one that was given."""
    plan = plans(cache)
    for tag in ("region:são paulo%3A2", "region:x", "plans", "more"):
        key = plan.key("x", "fibra")
        await cache.set(key, Plan("mine"), tags=["more"])
        await cache.invalidate_tags(tag)
        assert (await cache.get(key) is None) == (tag != "region:são paulo%3A2")
    odd = plan.key("são paulo:2", "a:b")
    await cache.set(odd, Plan("odd"))
    assert set(cache.explain(odd).tags) == set((await describe(plan, "são paulo:2", "a:b")).tags)


async def describe(plan, *args):
    """What is known of a value that the function itself loaded."""
    await plan.invalidate(*args)
    await plan(*args)
    return plan.explain(*args)


async def test_windows_of_the_function_hold(cache, clock):
    """The ttl and the stale windows are the function's, unless set says another ttl."""
    plan = plans(cache, ttl=10, stale_if_error=20)
    await cache.set(plan.key("x", "a"), Plan("mine"))
    known = plan.explain("x", "a")
    assert (known.ttl_left, known.stale_left) == (10, 30)
    await cache.set(plan.key("x", "a"), Plan("mine"), ttl=5)
    assert plan.explain("x", "a").ttl_left == 5


async def test_other_processes_read_it_as_the_functions_value(cache, remote):
    """The bytes are the function's: another process gets the annotated type, by call and by key."""
    cache.configure(redis=remote)
    await cache.set(plans(cache).key("x", "a"), Plan("mine", 1))
    kept = plans(cache)
    await cache.set(kept.key("x", "a"), Plan("mine", 1))
    elsewhere = CacheManager(redis=remote, clock=cache._engine.local.clock)
    plan = plans(elsewhere)
    assert await elsewhere.get(plan.key("x", "a")) == Plan("mine", 1)
    fresh = CacheManager(redis=remote, clock=cache._engine.local.clock)
    assert await plans(fresh)("x", "a") == Plan("mine", 1)
    await cache.invalidate_tags("plans")
    another = CacheManager(redis=remote, clock=cache._engine.local.clock)
    plan = plans(another)
    assert await another.get(plan.key("x", "a")) is None


async def test_tags_that_the_key_does_not_tell_are_refused(cache):
    """Storing such a value by key would lose its tag, so set says to use put; reading and putting work."""

    @cache.cached("bill:{number}", tags=["customer:{customer}"])
    async def bill(number: int, customer: str = "ana"):
        return number

    with pytest.raises(ConfigurationError, match=r"not in its key.*use \.put"):
        await cache.set(bill.key(1), 1)
    await bill.put(5, 1, customer="bob")
    assert await cache.get(bill.key(1)) == 5
    assert bill.explain(1).tags == ("customer:bob",)


async def test_warm_cache_under_a_functions_key(cache):
    """A warmed value has the function's tags too."""
    plan = plans(cache)
    await cache.warm_cache({plan.key("x", "a"): {"fetch_func": lambda: Plan("warm"), "ttl": 60}})
    assert (await plan("x", "a")).name == "warm"
    assert plan.explain("x", "a").tags == ("plans", "region:x")


def test_fields_are_found_in_a_key():
    """Each field's text comes out of a key as it went in; another template's key, or a shortened one, has none."""
    cache = CacheManager()

    @cache.cached("a:{x}-{y}:{x}", tags=["t:{y}+{x}"])
    def load(x: str, y: str):
        return x

    def fields(key):
        site = next(iter(cache._sites))
        texts = site.plan.texts(key)
        return None if texts is None else {field.name: text for field, text in texts.items()}

    assert fields(load.key("1-2", "3")) == {"x": "1%2D2", "y": "3"}
    assert fields("a:1-2:3") is None
    assert fields("b:1-2:1") is None
    assert fields(load.key("x" * 300, "y")) is None
    site = next(iter(cache._sites))
    values = ("p-q+r", "s+t-u")
    assert site.tags_of_key(load.key(*values)) == site.tags(values)


def test_patterns_of_templates():
    """A template's pattern matches its keys whole, with the text of each field."""
    template = parse_template("user:{{tag}}:{name}", ["name"])
    assert template.pattern().fullmatch("user:{tag}:ana").groups() == ("ana",)
    assert template.pattern().fullmatch("user:{tag}:a:b") is None
