"""Response and request header lists: read once, never changed in place, rewritten into new lists."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from isp_perf._core.etags import Marks, mark
from isp_perf._core.negotiation import KNOWN_CODINGS, members_of

__all__ = [
    "Headers",
    "Vary",
    "coded_headers",
    "collect",
    "declared_length",
    "has_token",
    "marked_headers",
    "plain_headers",
    "without_digests",
]

Headers = list[tuple[bytes, bytes]]

_READ: Final = frozenset(
    {b"content-type", b"content-length", b"content-encoding", b"content-range", b"cache-control", b"vary"}
)
# Integrity fields describe the bytes before coding (RFC 9530), and ranges of coded bytes are not what was asked for.
_DIGESTS: Final = frozenset({b"content-md5", b"digest", b"content-digest", b"repr-digest"})
_DROPPED: Final = _DIGESTS | {b"content-length", b"accept-ranges", b"content-encoding", b"transfer-encoding"}
_CODING_LINES: Final = {coding: (b"content-encoding", coding.encode("ascii")) for coding in (*KNOWN_CODINGS, "dcz")}
_CHANGED: Final = _DROPPED | {b"etag"}
_MAX_LENGTH_DIGITS = 18


def collect(headers: Iterable[Sequence[bytes]]) -> dict[bytes, bytes]:
    """Return the response fields that decide about compression, by lower-case name, lines joined by commas."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        key = name
        if name not in _READ:
            if name.islower():  # as nearly all names are: nothing to look up again
                continue
            key = name.lower()
            if key not in _READ:
                continue
        found[key] = found[key] + b", " + value if key in found else value
    return found


def has_token(value: bytes, token: bytes) -> bool:
    """Say whether a comma-separated value has ``token`` as a whole, case-insensitive member (arguments ignored)."""
    if token not in value.lower():
        return False
    return any(member.partition(b"=")[0].strip(b" \t").lower() == token for member in members_of(value))


def declared_length(found: Mapping[bytes, bytes]) -> int | None:
    """Return the declared Content-Length, or ``None`` if there is none that can be believed."""
    value = found.get(b"content-length")
    if value is None or not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
        return None
    return int(value)


class Vary:
    """What a response varies by, and the line that says so.

    Args:
        members: field names, as they are to be written.
    """

    __slots__ = ("line", "members")

    def __init__(self, members: tuple[bytes, ...]) -> None:
        self.members = members
        self.line = (b"vary", b", ".join(members))


def _missing(vary: bytes, wanted: Sequence[bytes]) -> list[bytes]:
    present = {member.strip(b" \t").lower() for member in vary.split(b",")}
    return [] if b"*" in present else [name for name in wanted if name.lower() not in present]


def _varied(headers: Headers, missing: Sequence[bytes]) -> Headers:
    """Return ``headers`` with the ``missing`` members added to the last Vary line, or in a line of their own."""
    added = b", ".join(missing)
    for index in range(len(headers) - 1, -1, -1):
        name, value = headers[index]
        if name.lower() == b"vary":
            headers[index] = (name, value + b", " + added if value.strip(b" \t") else added)
            return headers
    headers.append((b"vary", added))
    return headers


def plain_headers(headers: Headers, vary: bytes | None, wanted: Vary) -> Headers:
    """Return the headers of an uncoded response with what it varies by; the same object if nothing is missing."""
    if vary is None:
        return [*headers, wanted.line]
    missing = _missing(vary, wanted.members)
    return _varied(list(headers), missing) if missing else headers


def coded_headers(
    headers: Iterable[tuple[bytes, bytes]], coding: str, *, vary: bytes | None, wanted: Vary, strong: bool
) -> Headers:
    """Return the headers of a coded response, without its length.

    Fields that describe the uncoded bytes are dropped, a strong tag is marked, everything else keeps its order and
    multiplicity.
    """
    out: Headers = []
    for pair in headers:
        key = pair[0].lower()
        if key not in _CHANGED:
            out.append(pair)
        elif key == b"etag":
            tag = mark(pair[1], coding, strong=strong)
            if tag is not None:
                out.append((pair[0], tag))
    if vary is None:
        out.append(wanted.line)
    elif missing := _missing(vary, wanted.members):
        _varied(out, missing)
    out.append(_CODING_LINES[coding])
    return out


def marked_headers(
    headers: Iterable[tuple[bytes, bytes]], marks: Marks, coding: str | None, *, strong: bool
) -> Headers:
    """Return the headers of a 304 with the tag that the client presented for it.

    The tag of the ``coding`` chosen for this request if the client presented it, else the first one it presented.
    """
    out: Headers = []
    for name, value in headers:
        tag = value
        if name.lower() == b"etag":
            opaque = value.strip(b" \t").removeprefix(b"W/")
            presented = marks.get(opaque, ())
            if presented:
                tag = mark(opaque, coding if coding in presented else presented[0], strong=strong) or value
        out.append((name, tag))
    return out


def without_digests(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return trailers without the digests of the uncoded bytes."""
    return [(name, value) for name, value in headers if name.lower() not in _DIGESTS]
