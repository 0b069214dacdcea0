"""Entity tags of coded responses (RFC 9110 8.8.3): marked on the way out, restored on the way in.

A coded body is another representation than the plain one, so it may not carry the plain one's strong tag. The mark is
the coding's name inside the tag: ``"v1"`` leaves as ``W/"v1-br"``. On the next request the mark is taken off again, so
that the application finds the tag it gave.
"""

from collections.abc import Sequence

from isp_perf._core.negotiation import members_of

__all__ = ["Marks", "mark", "unmark_list"]

_MIN_LENGTH = 2
Marks = dict[bytes, tuple[str, ...]]
"""The codings that a request presented per restored (strong, quoted) tag, in the order it presented them."""


def mark(tag: bytes, coding: str, *, strong: bool = False) -> bytes | None:
    """Return the tag for the coded form of the response that carries ``tag``; ``None`` if it must be dropped.

    A weak tag says nothing of bytes and is kept. A tag without its quotes is no tag, and could be taken for a strong
    one by a client, so it is dropped.
    """
    tag = tag.strip(b" \t")
    if tag.startswith(b"W/"):
        return tag
    if len(tag) < _MIN_LENGTH or tag[:1] != b'"' or tag[-1:] != b'"':
        return None
    return (b"" if strong else b"W/") + tag[:-1] + b"-" + coding.encode("ascii") + b'"'


def _unmark(tag: bytes, codings: Sequence[str], *, strong: bool) -> tuple[bytes, str | None]:
    opaque = tag[2:] if tag.startswith(b"W/") else tag if strong else b""
    if opaque[:1] == b'"' and opaque[-1:] == b'"':
        for coding in codings:
            if opaque.endswith(b"-" + coding.encode("ascii") + b'"'):
                return opaque[: -len(coding) - 2] + b'"', coding
    return tag, None


def unmark_list(value: bytes, codings: Sequence[str], *, strong: bool = False) -> tuple[bytes, Marks]:
    """Restore the tags of an ``If-None-Match`` or ``If-Match`` value.

    Args:
        value: the field value; ``*`` and foreign tags pass unchanged.
        codings: the marks to look for.
        strong: also look for marks in strong tags (``etag="suffix"``).

    Returns:
        The value for the application (the very same object if nothing was marked), and what was presented per tag.
    """
    marks: Marks = {}
    tags: list[bytes] = []
    for member in members_of(value):
        tag, coding = _unmark(member.strip(b" \t"), codings, strong=strong)
        if coding is not None:
            marks[tag] = (*marks.get(tag, ()), coding)
        if tag and tag not in tags:
            tags.append(tag)
    return (b", ".join(tags), marks) if marks else (value, marks)
