"""Where a command belongs in a Redis cluster: its first key, and the slot of that key. Pure tables and functions.

A slot is CRC16 (XMODEM) of the key, or of what stands between the first ``{`` and the next ``}`` if that is not empty,
modulo 16384. Source: the Redis cluster specification.
"""

from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["SLOTS", "first_key", "key_slot"]

SLOTS: Final = 16384


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KEYLESS: Final = _names(
    """
    ACL ASKING AUTH BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND COMMANDLOG CONFIG DBSIZE ECHO EXEC FAILOVER FLUSHALL
    FLUSHDB FUNCTION HELLO INFO KEYS LASTSAVE LATENCY LOLWUT MODULE MONITOR MULTI PING PSUBSCRIBE PUBLISH PUBSUB
    PUNSUBSCRIBE QUIT RANDOMKEY READONLY READWRITE REPLICAOF RESET ROLE SAVE SCAN SCRIPT SELECT SHUTDOWN SLAVEOF SLOWLOG
    SUBSCRIBE SWAPDB SYNC TIME UNSUBSCRIBE UNWATCH WAIT WAITAOF
    """
)
_CONTAINERS: Final = _names("DEBUG MEMORY OBJECT XGROUP XINFO")  # the key comes after the second word
_STREAMS: Final = _names("XREAD XREADGROUP")
# Position of the number of keys, which the keys follow.
_COUNTED: Final = {
    **dict.fromkeys(("LMPOP", "MSETEX", "SINTERCARD", "ZDIFF", "ZINTER", "ZINTERCARD", "ZMPOP", "ZUNION"), 1),
    **dict.fromkeys(("BLMPOP", "BZMPOP", "EVAL", "EVALSHA", "EVALSHA_RO", "EVAL_RO", "FCALL", "FCALL_RO"), 2),
}
_PLACES: Final = {"BITOP": 2, "MIGRATE": 3}
_NONE: Final = (0, "0", b"0", None)  # how a number of keys says that there is none


def key_slot(key: bytes) -> int:
    """Return the slot of a key, 0 to 16383."""
    opening = key.find(b"{")
    if opening >= 0:
        closing = key.find(b"}", opening + 1)
        if closing > opening + 1:
            key = key[opening + 1 : closing]
    return crc_hqx(key, 0) % SLOTS


def first_key(words: Sequence[str], args: Sequence[Any]) -> Any:
    """Return the first key of a command, or ``None`` if it has none.

    Args:
        words: the name as separate words, upper case.
        args: the whole command; its first part holds the name, in one word or two.
    """
    name = words[0]
    if name in _CONTAINERS:
        return _at(args, 3 - len(words))
    if name in _KEYLESS:
        return None
    if name in _STREAMS:
        return _after_streams(args)
    counted = _COUNTED.get(name)
    if counted is not None:
        return None if _at(args, counted) in _NONE else _at(args, counted + 1)
    return _at(args, _PLACES.get(name, 1))


def _after_streams(args: Sequence[Any]) -> Any:
    """Return what follows the word STREAMS."""
    for i, part in enumerate(args):
        if isinstance(part, str | bytes) and part.upper() in {"STREAMS", b"STREAMS"}:
            return _at(args, i + 1)
    return None


def _at(args: Sequence[Any], place: int) -> Any:
    return args[place] if place < len(args) else None
