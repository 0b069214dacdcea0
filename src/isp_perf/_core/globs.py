"""Redis globs (``*``, ``?``, ``[a-z]``, ``[^a]``, backslash quoting) as regular expressions."""

import re

__all__ = ["glob_pattern"]

_TOKEN = re.compile(r"\\(.)|\[(\^?)((?:\\.|[^\]])*)\]|([*?])|(.)", re.DOTALL)


def glob_pattern(glob: str) -> re.Pattern[str]:
    """Return the expression whose ``fullmatch`` accepts exactly the keys that the Redis glob matches."""
    return re.compile("".join(_translate(token) for token in _TOKEN.finditer(glob)), re.DOTALL)


def _translate(token: re.Match[str]) -> str:
    quoted, negated, members, wild, plain = token.groups()
    if wild:
        return ".*" if wild == "*" else "."
    if members is not None:
        return _class(members, negated=bool(negated))
    return re.escape(quoted or plain)


def _class(members: str, *, negated: bool) -> str:
    if not members:
        return "." if negated else r"(?!)"
    safe = "".join(f"\\{character}" if character in "[]^&~|" else character for character in members)
    return f"[{'^' if negated else ''}{safe}]"
