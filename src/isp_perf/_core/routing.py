"""Which lane a Redis command takes, and whether it may be repeated after a lost connection. Pure tables and functions.

The names come from the ``readonly`` and ``blocking`` flags of Valkey 9.1's ``COMMAND`` reply; a command that is in no
table is taken for a short one that writes. A test compares the tables with the server at hand.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

__all__ = ["READ_ONLY", "Lane", "Route", "blocks_for", "is_read_only", "plan", "route"]


class Lane(Enum):
    """Where a command runs."""

    FAST = "fast"  # the shared link for everything short
    BULK = "bulk"  # a second shared link for large replies
    DEDICATED = "dedicated"  # a connection of its own: the command blocks or changes the connection's state
    REFUSED = "refused"  # would break the pairing of replies on any pooled connection


class Route(NamedTuple):
    """What a command's name alone decides."""

    lane: Lane
    words: tuple[str, ...]  # the name as separate words, upper case
    read_only: bool
    inspect: bool  # the arguments may move it to the dedicated lane


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


READ_ONLY: Final = _names(
    """
    BITCOUNT BITFIELD_RO BITPOS DBSIZE DUMP ECHO EVALSHA_RO EVAL_RO EXISTS EXPIRETIME FCALL_RO GEODIST GEOHASH GEOPOS
    GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETRANGE HEXISTS HEXPIRETIME HGET HGETALL HKEYS HLEN HMGET
    HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSTRLEN HTTL HVALS KEYS LCS LINDEX LLEN LPOS LRANGE MGET PEXPIRETIME PFCOUNT
    PING PTTL RANDOMKEY SCAN SCARD SDIFF SINTER SINTERCARD SISMEMBER SMEMBERS SMISMEMBER SORT_RO SRANDMEMBER SSCAN
    STRLEN SUBSTR SUNION TIME TOUCH TTL TYPE XLEN XPENDING XRANGE XREAD XREVRANGE ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD
    ZLEXCOUNT ZMSCORE ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE
    ZREVRANK ZSCAN ZSCORE ZUNION
    """
)

_LARGE: Final = _names(
    """
    CLUSTERSCAN COMMAND DUMP EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO HGETALL HKEYS HSCAN HVALS INFO KEYS LRANGE
    RESTORE SCAN SDIFF SINTER SMEMBERS SORT SORT_RO SSCAN SUNION XRANGE XREVRANGE ZRANGE ZRANGEBYLEX ZRANGEBYSCORE
    ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZSCAN
    """
)

# Seconds are the last argument (or, for BLMPOP and BZMPOP, the first); the value is the argument's position.
_BLOCKING: Final = {
    "BLMOVE": -1,
    "BLMPOP": 1,
    "BLPOP": -1,
    "BRPOP": -1,
    "BRPOPLPUSH": -1,
    "BZMPOP": 1,
    "BZPOPMAX": -1,
    "BZPOPMIN": -1,
}
_BLOCKING_MILLISECONDS: Final = {"WAIT": 2, "WAITAOF": 3}
_STATEFUL: Final = _names("AUTH CLIENT DEBUG DISCARD FAILOVER HIMPORT READONLY READWRITE SHUTDOWN UNWATCH")
_MAY_BLOCK: Final = frozenset({"XREAD", "XREADGROUP"})
_REFUSED: Final = _names(
    """
    ASKING EXEC HELLO MONITOR MULTI PSUBSCRIBE PSYNC PUNSUBSCRIBE QUIT RESET SELECT SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE
    SYNC UNSUBSCRIBE WATCH
    """
)
_REFUSED_PAIRS: Final = frozenset({("CLIENT", "REPLY")})
# Parts of CLIENT that only ask or that act on another connection stay on the shared link.
_PLAIN_CLIENT: Final = frozenset({"INFO", "KILL", "LIST", "PAUSE", "UNPAUSE", "UNBLOCK", "ID"})


def _text(part: object) -> str:
    if isinstance(part, bytes):
        return part.decode("ascii", "replace").upper()
    return str(part).upper()


def plan(name: str | bytes) -> Route:
    """Return the route of a command by the name redis-py passes, which may be two words (``"CONFIG GET"``)."""
    words = tuple(_text(name).split()) or ("",)
    return Route(_lane(words), words, words[0] in READ_ONLY, words[0] in _MAY_BLOCK or words == ("CLIENT",))


def _lane(words: tuple[str, ...]) -> Lane:
    first = words[0]
    if first in _REFUSED or words[:2] in _REFUSED_PAIRS:
        return Lane.REFUSED
    if first in _BLOCKING or first in _BLOCKING_MILLISECONDS or _is_stateful(words):
        return Lane.DEDICATED
    return Lane.BULK if first in _LARGE else Lane.FAST


def _is_stateful(words: tuple[str, ...]) -> bool:
    if words[0] == "CLIENT":
        return not _PLAIN_CLIENT.issuperset(words[1:2]) or len(words) == 1
    return words[0] in _STATEFUL


def route(found: Route, args: Sequence[object]) -> Lane:
    """Return the lane of one command whose arguments matter (``found.inspect``).

    Args:
        found: the answer of ``plan`` for its name.
        args: the whole command, the name first.
    """
    if found.words == ("CLIENT",):
        return _lane(("CLIENT", *(_text(part) for part in args[1:2])))
    if any(_text(part) == "BLOCK" for part in args[1:6]):
        return Lane.DEDICATED
    return found.lane


def blocks_for(found: Route, args: Sequence[object]) -> float | None:
    """Return how many seconds the command may block on the server; ``None``: without limit; 0: not at all."""
    first = found.words[0]
    if first in _BLOCKING:
        return _seconds(args, _BLOCKING[first], 1.0)
    if first in _BLOCKING_MILLISECONDS:
        return _seconds(args, _BLOCKING_MILLISECONDS[first], 1000.0)
    if first in _MAY_BLOCK:
        upper = [_text(part) for part in args[1:6]]
        return _seconds(args, upper.index("BLOCK") + 2, 1000.0) if "BLOCK" in upper else 0.0
    return 0.0


def _seconds(args: Sequence[object], position: int, divisor: float) -> float | None:
    try:
        value = float(_text(args[position])) / divisor
    except (IndexError, ValueError):
        return 0.0  # the server will refuse the command at once
    return value or None


def is_read_only(name: str | bytes) -> bool:
    """Return whether the command changes nothing, so that repeating it is harmless."""
    return plan(name).read_only
