"""Redis for asyncio and threads over redis-py's own connections: one pool object, shared links, honest failures."""

from isp_perf.redis._blocking import BlockingPool
from isp_perf.redis._config import RedisSettings, RetryPolicy
from isp_perf.redis._lock import LockLostError
from isp_perf.redis._pool import RedisPool
from isp_perf.redis._stats import BulkResult, Gap, LaneStats, Message, RedisHealth, RedisStats

__all__ = [
    "BlockingPool",
    "BulkResult",
    "Gap",
    "LaneStats",
    "LockLostError",
    "Message",
    "RedisHealth",
    "RedisPool",
    "RedisSettings",
    "RedisStats",
    "RetryPolicy",
]
