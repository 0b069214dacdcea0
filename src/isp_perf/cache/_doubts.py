"""Doubts: keys under which the remote level may get something older than what was returned here.

A load that the remote level has not taken may have read a later truth than the value that stands there now, or that the
present holder of the lease will store. Who got the former must not get the latter, so a value under such a key is
believed only if it is what was returned; otherwise it is replaced by a new load. A lease that is granted here ends the
doubt: nothing stood there, so whatever comes later is loaded later.
"""

from hashlib import blake2b
from typing import Final

__all__ = ["Doubts"]

_MOST: Final = 10_000
_DIGEST_BYTES: Final = 16
_UNLIKE_ANY: Final = b""


class Doubts:
    """The doubts of one manager by key. Methods that end in ``_locked`` need the lock of its local level."""

    __slots__ = ("_returned",)

    def __init__(self) -> None:
        self._returned: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._returned)

    def __contains__(self, wire: str) -> bool:
        return wire in self._returned

    def raise_locked(self, wire: str, payload: bytes | None) -> list[str]:
        """Doubt what will be found under ``wire``; return keys that there is no room to doubt any longer.

        Of two different values that were returned nobody knows which is the newer one: then nothing compares.

        Args:
            wire: the key.
            payload: the encoded value that was returned; ``None``: nothing compares with it.
        """
        digest = _UNLIKE_ANY if payload is None else _digest(payload)
        self._returned[wire] = digest if self._returned.pop(wire, digest) == digest else _UNLIKE_ANY
        forgotten = list(self._returned)[: max(0, len(self._returned) - _MOST)]
        for other in forgotten:
            del self._returned[other]
        return forgotten

    def end_locked(self, wire: str) -> None:
        """Doubt no longer."""
        self._returned.pop(wire, None)

    def believe_locked(self, wire: str, payload: bytes) -> bool:
        """Return whether the encoded value found under ``wire`` may be returned; if so, there is no doubt any more."""
        returned = self._returned.get(wire)
        if returned is None:
            return True
        if returned != _digest(payload):
            return False
        del self._returned[wire]
        return True

    def clear(self) -> None:
        """Doubt nothing."""
        self._returned.clear()


def _digest(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=_DIGEST_BYTES).digest()
