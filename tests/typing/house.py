"""What type checkers must say about the parts that every room shares; read by mypy and pyright, never run."""

from typing import assert_type

from isp_perf.errors import CircuitOpenError, ConfigurationError, PerfError, PoolBusyError, RemoteError
from isp_perf.testing import ManualClock
from isp_perf.typing import BlockingRemoteLevel, Clock, RemoteLevel


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


async def a_remote_level_answers_bytes(level: RemoteLevel) -> BlockingRemoteLevel:
    """Give bytes or nothing, in both colours."""
    assert_type(await level.get("key"), bytes | None)
    assert_type(await level.get_many(["key"]), dict[str, bytes])
    assert_type(await level.delete("key"), int)
    assert_type(level.blocking.get("key"), bytes | None)
    return level.blocking
