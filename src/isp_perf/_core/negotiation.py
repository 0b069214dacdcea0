"""Content negotiation by ``Accept-Encoding`` (RFC 9110 8.4.1, 12.4.2, 12.5.3), as a pure and total function.

A header is bytes from a stranger: parsing never raises, takes time linear in its length, and when in doubt (a malformed
q-value) refuses the coding rather than sending one that may not be understood.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "IDENTITY_PREFERRED",
    "KNOWN_CODINGS",
    "NOT_ACCEPTABLE",
    "NO_ACCEPT_ENCODING",
    "Plan",
    "members_of",
    "negotiate",
    "qualities_of",
]

KNOWN_CODINGS: Final = ("br", "zstd", "gzip", "deflate")
"""The codings that can be offered, in the order that breaks ties unless another one is configured."""

NO_ACCEPT_ENCODING: Final = "no_accept_encoding"
IDENTITY_PREFERRED: Final = "identity_preferred"
NOT_ACCEPTABLE: Final = "not_acceptable"

_QVALUE = re.compile(rb"0(?:\.([0-9]{0,3}))?|1(?:\.0{0,3})?")
_UNQUOTED_COMMA = re.compile(rb'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_UNQUOTED_SEMICOLON = re.compile(rb'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_BLANK = b" \t"
_ALIASES = {"x-gzip": "gzip", "x-compress": "compress"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a client accepts, measured against what the server offers.

    Attributes:
        candidates: the codings that share the client's highest q-value, in the server's order; empty for identity.
        acceptable: every offered coding that the client did not refuse.
        identity_ok: whether an uncoded body is acceptable.
        reason: why ``candidates`` is empty (``no_accept_encoding``, ``identity_preferred`` or ``not_acceptable``).
        dictionary: the client takes ``dcz`` at least as gladly as the candidates.
    """

    candidates: tuple[str, ...]
    acceptable: frozenset[str]
    identity_ok: bool
    reason: str | None
    dictionary: bool = False

    @property
    def coding(self) -> str | None:
        """The first candidate; ``None`` means identity, or nothing at all when ``identity_ok`` is false."""
        return self.candidates[0] if self.candidates else None


_SILENT = Plan((), frozenset(), identity_ok=True, reason=NO_ACCEPT_ENCODING)


def _weight(parameters: Sequence[bytes]) -> int:
    """Return the q-value in thousandths; 1000 if there is none, 0 if one is malformed, the least of several."""
    weight = 1000
    for parameter in parameters:
        name, equals, value = parameter.partition(b"=")
        if name.strip(_BLANK) in (b"q", b"Q"):
            match = _QVALUE.fullmatch(value.strip(_BLANK)) if equals else None
            if match is None:
                return 0
            fraction = match.group(1)
            weight = min(weight, int((fraction or b"").ljust(3, b"0")) if match.group()[:1] == b"0" else 1000)
    return weight


def members_of(header: bytes) -> list[bytes]:
    """Split a comma-separated field value; a comma inside a quoted string does not split."""
    return _UNQUOTED_COMMA.findall(header) if b'"' in header else header.split(b",")


def qualities_of(header: bytes) -> dict[str, int]:
    """Parse ``Accept-Encoding`` into q-values (0-1000) by lower-case coding; the last of several mentions counts."""
    found: dict[str, int] = {}
    for member in members_of(header):
        parts = _UNQUOTED_SEMICOLON.findall(member) if b'"' in member else member.split(b";")
        coding = parts[0].strip(_BLANK).lower().decode("latin-1") if parts else ""
        if coding:
            found[_ALIASES.get(coding, coding)] = _weight(parts[1:]) if len(parts) > 1 else 1000
    return found


def negotiate(accept_encoding: bytes | None, encodings: Sequence[str] = KNOWN_CODINGS) -> Plan:
    """Return the plan for one ``Accept-Encoding`` value against the codings that are offered.

    Args:
        accept_encoding: the field value; several lines joined by commas; ``None`` when the request has none.
        encodings: what the server offers; its order breaks ties between equal q-values.

    Returns:
        The plan. Never raises, whatever the bytes are.
    """
    if accept_encoding is None or not accept_encoding.strip(_BLANK):
        return _SILENT
    return _measured(qualities_of(accept_encoding), encodings)


def _measured(found: dict[str, int], encodings: Sequence[str]) -> Plan:
    weights = {name: found.get(name, found.get("*", 0)) for name in encodings}
    best = max(weights.values(), default=0)
    preferred = found.get("identity", 0)
    identity_ok = found.get("identity", found.get("*", 1000)) > 0
    candidates = tuple(name for name in encodings if weights[name] >= max(best, preferred, 1))
    return Plan(
        candidates,
        frozenset(name for name in encodings if weights[name] > 0),
        identity_ok=identity_ok,
        reason=None if candidates else IDENTITY_PREFERRED if identity_ok else NOT_ACCEPTABLE,
        # A wildcard does not stand for dcz: it needs a dictionary that the client must have named (RFC 9842 6).
        dictionary=found.get("dcz", 0) >= max(best, preferred, 1),
    )
