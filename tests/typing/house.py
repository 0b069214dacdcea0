"""What type checkers must say about the parts that every room shares; read by mypy and pyright, never run."""

from typing import Any, assert_type

from isp_perf.errors import CircuitOpenError, ConfigurationError, PerfError, PoolBusyError, RemoteError
from isp_perf.testing import ManualClock
from isp_perf.typing import BlockingRemoteLevel, Clock, Drop, RemoteLevel


def a_manual_clock_is_a_clock(clock: ManualClock) -> Clock:
    """Accept the test kit's clock wherever a clock is wanted."""
    assert_type(clock(), float)
    assert_type(clock.advance(1), float)
    return clock


def errors_are_what_users_catch(error: PoolBusyError) -> tuple[PerfError, TimeoutError]:
    """Let a rejected wait be caught as ours and as Python's."""
    assert_type(error.retry_after, float | None)
    assert_type(error.name, str)
    return error, error


def a_wrong_setting_is_a_value_error(error: ConfigurationError) -> ValueError:
    """Let a wrong setting be caught by those who know nothing of this package."""
    assert_type(error.setting, str)
    assert_type(error.value, object)
    return error


def codes_are_text() -> None:
    """Give every error class a code of its own."""
    assert_type(CircuitOpenError.code, str)
    assert_type(RemoteError.code, str)


async def a_remote_level_answers_orders(level: RemoteLevel) -> BlockingRemoteLevel:
    """Carry out orders in both colours."""
    assert_type(await level.perform([Drop(("key",))], within=0.05), list[Any])
    assert_type(level.blocking.perform([Drop(("key",))], within=0.05), list[Any])
    assert_type(await level.delete_pattern("k*"), int)
    return level.blocking
