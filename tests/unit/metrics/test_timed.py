"""``timed`` measures blocks and every kind of function, exceptions included, and changes nothing else."""

import inspect

import pytest

from isp_perf.metrics import MetricRegistry, _timed, timed


@pytest.fixture
def took():
    return MetricRegistry().histogram("took_seconds", "Took.")


def test_a_block_is_timed_also_when_it_raises(took):
    """A block counts once, whether it ends or raises."""
    with timed(took):
        pass
    with pytest.raises(KeyError), timed(took):
        raise KeyError("x")
    assert took.count == 2


def test_one_timer_may_be_entered_inside_itself(took):
    """Nested use of one object records each level, the outer one at least as long as the inner one."""
    timer = timed(took)
    with timer, timer, timer:
        pass
    with timer:
        pass
    assert took.count == 4
    assert took.total < 10**9


def test_a_function_is_timed_and_keeps_its_signature(took):
    """A timed function keeps name, signature and result, and a raising call counts too."""

    @timed(took)
    def divide(a: int, b: int = 2) -> float:
        """Divide."""
        return a / b

    assert divide(6) == 3
    assert divide.__name__ == "divide"
    assert list(inspect.signature(divide).parameters) == ["a", "b"]
    with pytest.raises(ZeroDivisionError):
        divide(1, 0)
    assert took.count == 2


async def test_a_coroutine_function_is_timed(took):
    """A timed coroutine function stays one, and its awaiting is what is measured."""

    @timed(took)
    async def work(x):
        return x

    assert inspect.iscoroutinefunction(work)
    coroutine = work(1)
    assert took.count == 0
    assert await coroutine == 1
    assert took.count == 1


def test_a_generator_is_timed_to_its_end(took):
    """Sent values, the return value and close() pass through; the generator counts when it is done."""

    @timed(took)
    def talk():
        heard = yield 1
        yield heard
        return "done"

    generator = talk()
    assert next(generator) == 1
    assert generator.send("x") == "x"
    assert took.count == 0
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "done"
    assert took.count == 1
    second = talk()
    next(second)
    second.close()
    assert took.count == 2


async def test_an_async_generator_is_timed_to_its_end(took):
    """Items, sent values, thrown errors and aclose() pass through an async generator."""
    closed = []

    @timed(took)
    async def talk():
        try:
            heard = yield 1
            try:
                yield heard
            except ValueError:
                yield "caught"
        finally:
            closed.append(True)

    generator = talk()
    assert await anext(generator) == 1
    assert await generator.asend("x") == "x"
    assert await generator.athrow(ValueError()) == "caught"
    with pytest.raises(StopAsyncIteration):
        await anext(generator)
    assert took.count == 1
    second = talk()
    await anext(second)
    await second.aclose()
    assert took.count == 2
    assert closed == [True, True]


async def test_an_error_inside_an_async_generator_reaches_the_caller(took):
    """An exception of the generator itself passes through and still counts."""

    @timed(took)
    async def fail():
        yield 1
        raise LookupError("x")

    generator = fail()
    await anext(generator)
    with pytest.raises(LookupError):
        await anext(generator)
    assert took.count == 1


def test_user_bounds_and_odd_clocks_are_recorded_too(monkeypatch):
    """Histograms with bounds of their own are timed as well, and a clock that stands still or leaps costs nothing."""
    bounded = MetricRegistry().histogram("bounded_seconds", "Took.", buckets=(0.5, 1.0))
    timed(bounded)(lambda: None)()
    assert bounded.cells == [1, 0, 0]
    readings = iter([0, 0, 5, 1, 0, 1 << 60])
    monkeypatch.setattr(_timed, "perf_counter_ns", lambda: next(readings))
    histogram = MetricRegistry().histogram("took_seconds", "Took.")
    call = timed(histogram)(lambda: None)
    for _ in range(3):
        call()
    assert (histogram.cells[0], histogram.cells[-1], histogram.count) == (2, 1, 3)
