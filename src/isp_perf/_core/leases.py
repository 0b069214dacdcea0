"""What a reader does with what it finds under a key of the remote level, and what a failure of that level is called.

One key holds one of three things: an envelope (a value), a lease (somebody loads), or a write intent (somebody is about
to change the truth). They are told apart by their first bytes.
"""

from enum import Enum
from typing import Final

__all__ = [
    "KINDS",
    "LEASE_SECONDS",
    "RENEW_SECONDS",
    "Finding",
    "backoff",
    "classify",
    "held_bytes",
    "keeps_reading",
    "kind_of",
    "lease_token",
]

LEASE_SECONDS: Final = 1.8
"""Life of a lease: a holder that was killed is replaced within 2 s."""
RENEW_SECONDS: Final = LEASE_SECONDS / 3
"""Time between two renewals by a living holder."""

_LEASE: Final = b"L"
_INTENT: Final = b"T"
_TOKEN_BYTES: Final = 16
_WRITER_BYTES: Final = 8
_NO_LEASE: Final = b"N"
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.2
_IDLE_PAUSE: Final = 1.0


class Finding(Enum):
    """What is under a key."""

    GRANTED = "granted"
    """Nothing was; the asker holds the lease now."""
    LEASED = "leased"
    """Somebody holds the lease."""
    INTENT = "intent"
    """Somebody is writing: load, do not store."""
    NO_LEASE = "no lease"
    """Nothing is, and the server stores nothing: load, do not store."""
    VALUE = "value"
    """Bytes that may be an envelope."""


def classify(data: bytes | None) -> Finding:
    """Return what ``data`` is, as answered by a ``Lease`` order."""
    if data is None:
        return Finding.GRANTED
    if data[:1] == _LEASE and len(data) == 1 + _TOKEN_BYTES:
        return Finding.LEASED
    if data[:1] == _INTENT and len(data) > 1 and len(data) % _WRITER_BYTES == 1:
        return Finding.INTENT
    return Finding.NO_LEASE if data == _NO_LEASE else Finding.VALUE


def held_bytes(token: bytes) -> bytes:
    """Return what stands under a key that is leased with ``token``."""
    return _LEASE + token


def lease_token(data: bytes) -> bytes:
    """Return the token of a lease."""
    return data[1:]


KINDS: Final = (
    "refused",
    "timeout",
    "reset",
    "protocol",
    "loading",
    "readonly",
    "oom",
    "masterdown",
    "misconf",
    "auth",
    "noperm",
    "maxclients",
    "busy",
    "moved",
    "other",
)
"""Every kind of failure, as used in health and as a metric label."""

# By class name along the inheritance, most telling first, and by the first word of a server's answer: the drivers'
# classes belong to another room.
_BY_CLASS: Final = {
    "MaxClientsError": "maxclients",
    "BusyLoadingError": "loading",
    "ReadOnlyError": "readonly",
    "OutOfMemoryError": "oom",
    "MasterDownError": "masterdown",
    "ClusterDownError": "masterdown",
    "AuthenticationError": "auth",
    "AuthorizationError": "auth",
    "NoPermissionError": "noperm",
    "MovedError": "moved",
    "AskError": "moved",
    "PoolBusyError": "busy",
    "InvalidResponse": "protocol",
    "TimeoutError": "timeout",
    "ConnectionRefusedError": "refused",
    "ConnectionResetError": "reset",
}
_BY_WORD: Final = {
    "LOADING": "loading",
    "READONLY": "readonly",
    "OOM": "oom",
    "MASTERDOWN": "masterdown",
    "MISCONF": "misconf",
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "NOPERM": "noperm",
    "BUSY": "busy",
    "MOVED": "moved",
    "CLUSTERDOWN": "masterdown",
}
_DEPTH: Final = 5


def kind_of(error: BaseException) -> str:
    """Return the kind of a failure, one of ``KINDS``; what is behind it says more than it does itself."""
    found = "other"
    behind: BaseException | None = error
    for _ in range(_DEPTH):
        if behind is None:
            break
        kind = _kind(behind)
        found = kind if kind != "other" else found
        behind = behind.__cause__
    if found != "other":
        return found
    names = {base.__name__ for base in type(error).__mro__}
    if "MaybeExecutedError" in names:
        return "reset"
    return "refused" if names & {"NotSentError", "OSError"} else "other"


def _kind(error: BaseException) -> str:
    for base in type(error).__mro__:
        if kind := _BY_CLASS.get(base.__name__):
            return kind
    text = str(error)
    if "max number of clients" in text:
        return "maxclients"
    if "can't run this command" in text or "no permissions" in text:
        return "noperm"
    return _BY_WORD.get(text.split(" ", 1)[0].strip("-:"), "other")


def keeps_reading(kind: str) -> bool:
    """Return whether a store that failed so leaves reads as they are."""
    return kind in {"oom", "misconf", "noperm", "busy"}


def backoff(attempt: int, draw: float, *, idle: bool) -> float:
    """Return the seconds before the next probe of a level that is down.

    Args:
        attempt: probes that failed, from 0.
        draw: a uniform number in [0, 1).
        idle: nobody asks for anything.
    """
    most = _IDLE_PAUSE if idle else _LONGEST_PAUSE
    return min(most, _FIRST_PAUSE * 2.0 ** min(attempt, 10)) * (0.5 + 0.5 * draw)
