import asyncio
import functools
import inspect
import pickle

import pytest

from isp_perf.breaker import CircuitBreaker, CircuitConfig, CircuitOpenError, CircuitRegistry, circuit_breaker
from isp_perf.errors import ConfigurationError
from isp_perf.testing import ManualClock

ONE = CircuitConfig(failure_threshold=1)


def new(config=ONE, **settings):
    return CircuitBreaker("api", config.replace(**settings), clock=ManualClock())


module_level = CircuitBreaker("module")


@module_level
def add(a, /, b=2, *rest, c: int = 3, **more) -> int:
    """Add."""
    return a + b + sum(rest) + c + sum(more.values())


def test_wrapper_keeps_signature_name_docs_and_kind():
    """The wrapper looks like the function in every respect, and is pickled by reference."""
    assert str(inspect.signature(add)) == "(a, /, b=2, *rest, c: int = 3, **more) -> int"
    assert (add.__name__, add.__doc__, add.__wrapped__(1)) == ("add", "Add.", 6)
    assert add(1, 2, 3, c=4, d=5) == 15
    assert add.breaker is module_level
    assert pickle.loads(pickle.dumps(add)) is add


@pytest.mark.parametrize("name", ["era", "breaker", "result", "self", "function", "BaseException", "era0", "error0"])
def test_parameters_may_have_our_names(name):
    """A parameter named like a variable of the wrapper is passed through untouched."""
    scope = {}
    exec(f"def f({name}, *, args=1, kwargs=2):\n    return {name}, args, kwargs", scope)
    assert new()(scope["f"])(5, kwargs=7) == (5, 1, 7)


def test_wrong_arguments_name_the_users_function_and_count_nothing():
    """Arguments that do not fit raise the TypeError of the function itself; nothing counts in any form of call."""
    breaker = new()

    def fetch(number: int) -> int:
        return number

    async def fetch_later(number: int) -> int:
        return number

    with pytest.raises(TypeError, match=r"fetch\(\)"):
        breaker(fetch)()
    with pytest.raises(TypeError, match=r"fetch\(\)"):
        breaker.call(fetch)
    with pytest.raises(TypeError, match=r"fetch_later\(\)"):
        asyncio.run(breaker.acall(fetch_later, 1, 2))
    assert breaker.counts.failures == 0
    assert breaker.state == "closed"


def test_type_error_inside_the_function_is_a_failure():
    """A TypeError that the function's own body raises counts."""
    breaker = new()

    def wrong():
        return 1 + "x"

    with pytest.raises(TypeError):
        breaker.call(wrong)
    assert breaker.state == "open"


async def test_coroutine_functions_are_protected():
    """An async def stays one; its outcome counts and an open circuit rejects before the body runs."""
    breaker = new()
    calls = []

    @breaker
    async def fetch(x):
        calls.append(x)
        await asyncio.sleep(0)
        raise OSError

    assert inspect.iscoroutinefunction(fetch)
    for error in (OSError, CircuitOpenError):
        with pytest.raises(error):
            await fetch(1)
    assert calls == [1]


def test_generators_are_protected():
    """A generator counts as a success at its end, as a failure when it raises, and passes send and throw through."""
    breaker = new()

    @breaker
    def echo():
        received = []
        while len(received) < 2:
            try:
                received.append((yield len(received)))
            except KeyError:
                received.append("thrown")
        return received

    assert inspect.isgeneratorfunction(echo)
    running = echo()
    assert breaker.counts.successes == 0
    assert next(running) == 0
    assert running.send("a") == 1
    with pytest.raises(StopIteration) as end:
        running.throw(KeyError())
    assert end.value.value == ["a", "thrown"]
    assert breaker.counts.successes == 1
    failing = echo()
    next(failing)
    with pytest.raises(OSError):
        failing.throw(OSError())
    assert breaker.state == "open"
    rejected = echo()
    with pytest.raises(CircuitOpenError):
        next(rejected)


def test_generator_closed_early_is_neutral():
    """A consumer that stops reading counts as nothing."""
    breaker = new()

    @breaker
    def numbers():
        yield 1
        yield 2

    running = numbers()
    next(running)
    running.close()
    assert breaker.counts.neutral == 1
    assert breaker.counts.successes == breaker.counts.failures == 0


async def test_async_generators_are_protected():
    """An async generator passes asend, athrow and aclose through and counts like a generator."""
    breaker = new()
    closed = []

    @breaker
    async def echo():
        received = []
        try:
            while len(received) < 2:
                try:
                    received.append((yield len(received)))
                except KeyError:
                    received.append("thrown")
        finally:
            closed.append(received)

    assert inspect.isasyncgenfunction(echo)
    running = echo()
    assert await running.asend(None) == 0
    assert await running.asend("a") == 1
    with pytest.raises(StopAsyncIteration):
        await running.athrow(KeyError())
    assert breaker.counts.successes == 1
    early = echo()
    await anext(early)
    await early.aclose()
    assert breaker.counts.neutral == 1
    assert closed == [["a", "thrown"], []]
    failing = echo()
    await anext(failing)
    with pytest.raises(OSError):
        await failing.athrow(OSError())
    assert breaker.state == "open"
    with pytest.raises(CircuitOpenError):
        await anext(echo())


async def test_hidden_coroutine_functions_are_noticed():
    """A plain callable that returns a coroutine is protected by that coroutine's outcome."""
    breaker = new(failure_threshold=2)

    async def fails():
        raise OSError

    @breaker
    def disguised():
        return fails()

    with pytest.raises(OSError):
        await disguised()
    assert breaker.counts.failures == 1
    with pytest.raises(OSError):
        await breaker.call(fails)
    assert breaker.state == "open"


@pytest.mark.parametrize("annotation", ["Missing", "not python", "1 / 0 +", "dict[str", "int"])
def test_annotations_that_cannot_be_read_do_no_harm(annotation):
    """Whatever stands after the arrow, the function can be decorated and called."""

    def fetch():
        return 1

    fetch.__annotations__ = {"return": annotation}
    assert new()(fetch)() == 1


async def test_partials_and_callable_objects_keep_their_kind():
    """functools.partial and objects with __call__ are protected as what they are."""
    breaker = new()

    async def fetch(a, b):
        return a + b

    class Fetcher:
        async def __call__(self, a):
            return a

    assert await breaker(functools.partial(fetch, 1))(2) == 3
    assert inspect.iscoroutinefunction(breaker(Fetcher()))
    assert await breaker(Fetcher())(4) == 4
    assert breaker.counts.successes == 2


def test_methods_class_methods_and_static_methods_are_protected():
    """The decorator works on every kind of method, above or below classmethod and staticmethod."""
    breaker = new()

    class Client:
        @breaker
        def method(self, x):
            return self, x

        @classmethod
        @breaker
        def inner(cls, x):
            return cls, x

        @breaker
        @classmethod
        def outer(cls, x):
            return cls, x

        @breaker
        @staticmethod
        def static(x):
            return x

    client = Client()
    assert client.method(1) == (client, 1)
    assert client.inner(2) == Client.outer(2) == (Client, 2)
    assert client.static(3) == 3
    assert breaker.counts.successes == 4


def test_only_functions_can_be_wrapped():
    """A coroutine object is refused: rejecting it would leave it un-awaited."""

    async def fetch():
        return None

    work = fetch()
    with pytest.raises(ConfigurationError, match="function"):
        new()(work)
    work.close()


def test_recursion_through_one_breaker_counts_each_call():
    """A protected function may call itself."""
    breaker = new()

    @breaker
    def down(n):
        return n if n == 0 else down(n - 1)

    assert down(5) == 0
    assert breaker.counts.successes == 6


def test_tracebacks_show_the_users_function():
    """The traceback of a failure ends in the user's own function."""
    breaker = new()

    @breaker
    def broken(x):
        raise OSError(x)

    with pytest.raises(OSError) as caught:
        broken(1)
    assert [entry.name for entry in caught.traceback][-2:] == ["broken", "broken"]


async def test_timeout_ends_a_coroutine_and_counts_as_a_failure():
    """A timeout raises TimeoutError and is a failure; it is refused for what cannot be interrupted."""
    breaker = new(timeout=0.02)

    @breaker
    async def hang():
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await hang()
    assert breaker.state == "open"
    for make in (lambda: None, lambda: (yield)):
        with pytest.raises(ConfigurationError, match="timeout"):
            new(timeout=1)(make)
    with pytest.raises(ConfigurationError, match="timeout"):
        new(timeout=1).call(len, "x")
    plain = new()
    plain(lambda: None)
    with pytest.raises(ConfigurationError, match="timeout"):
        plain.reconfigure(CircuitConfig(timeout=1))


async def test_fallback_answers_rejected_calls_in_every_form():
    """With a fallback a rejected call answers with its value, or with what the function makes of the arguments."""
    config = CircuitConfig(failure_threshold=1, fallback=lambda x: [x, "stale"])
    breaker = CircuitBreaker("api", config, clock=ManualClock())

    @breaker
    def plain(x):
        raise OSError

    @breaker
    async def later(x):
        raise OSError

    @breaker
    def items(x):
        yield x

    @breaker
    async def more(x):
        yield x

    with pytest.raises(OSError):
        plain(1)
    assert plain(1) == [1, "stale"]
    assert await later(2) == [2, "stale"]
    assert list(items(3)) == [3, "stale"]
    assert breaker.call(plain.__wrapped__, 4) == [4, "stale"]
    assert await breaker.acall(later.__wrapped__, 5) == [5, "stale"]
    with pytest.raises(CircuitOpenError), breaker.guard():
        pass

    async def stale(x):
        yield x
        yield "stale"

    breaker.reconfigure(config.replace(fallback=stale))
    assert [item async for item in more(6)] == [6, "stale"]
    assert breaker.counts.rejected == 7


async def test_async_fallback_is_awaited():
    """A coroutine function serves as the fallback of coroutine functions."""

    async def stale(x):
        return x, "stale"

    breaker = new(fallback=stale)

    @breaker
    async def later(x):
        raise OSError

    with pytest.raises(OSError):
        await later(1)
    assert await later(1) == (1, "stale")


@pytest.mark.parametrize("good", [True, False])
async def test_waiting_calls_share_the_fate_of_the_probe(good):
    """With overflow="wait" the calls beside the probe pass after a closing, and are rejected after an opening."""
    clock = ManualClock()
    config = CircuitConfig(failure_threshold=1, break_duration=30, overflow="wait")
    breaker = CircuitBreaker("api", config, clock=clock)
    release = asyncio.Event()

    @breaker
    async def fetch(fine):
        await release.wait()
        if not fine:
            raise OSError
        return "fine"

    release.set()
    with pytest.raises(OSError):
        await fetch(False)
    release.clear()
    clock.advance(30)
    calls = [asyncio.create_task(fetch(good)) for _ in range(50)]
    await asyncio.sleep(0.01)
    assert breaker.state == "half_open"
    release.set()
    kinds = [type(result) for result in await asyncio.gather(*calls, return_exceptions=True)]
    assert kinds == ([str] * 50 if good else [OSError] + [CircuitOpenError] * 49)


def test_breaker_per_key_is_bounded_and_isolates_tenants():
    """key= gives each tenant a circuit of its own, in one bounded, escaped entry of the report."""
    registry = CircuitRegistry()

    @circuit_breaker("tenants", ONE, registry=registry, key="tenant", max_keys=3)
    def fetch(tenant, fine=True):
        if not fine:
            raise OSError
        return tenant

    with pytest.raises(OSError):
        fetch("a\n{}", fine=False)
    with pytest.raises(CircuitOpenError) as caught:
        fetch("a\n{}")
    assert caught.value.name == "tenants[a%0A%7B%7D]"
    for tenant in "bcdefgh":
        assert fetch(tenant) == tenant
    assert len(fetch.breakers) == 3
    entry = registry.report()["circuit_breakers"]["tenants"]
    assert (entry["state"], entry["keys"]) == ("open", 3)
    assert entry["not_closed"] == {"tenants[a%0A%7B%7D]": "open"}

    @circuit_breaker("by_function", ONE, registry=registry, key=lambda tenant, fine: tenant)
    async def later(tenant, fine):
        return tenant

    assert asyncio.run(later("x", True)) == "x"
    with pytest.raises(ConfigurationError, match="key"):
        circuit_breaker("wrong", registry=registry, key="nobody")(fetch.__wrapped__)
