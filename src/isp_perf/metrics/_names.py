"""Names and label values: what is accepted, and how it is written in each escaping scheme of the text formats.

Metric and label names may hold any UTF-8 text, as in Prometheus 3 and prometheus-client. What is not of the classic
alphabet is quoted where the reader asked for ``allow-utf-8`` and rewritten in the other schemes. Label values may
hold anything: quotes, backslashes and newlines are escaped, and lone surrogates, which no encoding can carry, become
U+FFFD when the series is created, so that one bad value can never break a scrape.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from isp_perf.errors import ConfigurationError

__all__ = [
    "ALLOW_UTF8",
    "DOTS",
    "SCHEMES",
    "UNDERSCORES",
    "VALUES",
    "clean",
    "escape_help",
    "escape_name",
    "is_classic",
    "label_text",
    "valid_labels",
    "valid_name",
]

ALLOW_UTF8: Final = "allow-utf-8"
UNDERSCORES: Final = "underscores"
DOTS: Final = "dots"
VALUES: Final = "values"
SCHEMES: Final = (ALLOW_UTF8, UNDERSCORES, DOTS, VALUES)

_CLASSIC_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_CLASSIC_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_VALUE_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})
_SCHEMES_BY_RUNE: Final[dict[str, Callable[[str], str]]] = {
    UNDERSCORES: lambda _: "_",
    DOTS: lambda rune: "_dot_" if rune == "." else "__",
    VALUES: lambda rune: "__" if rune == "_" else f"_{ord(rune):x}_",
}


def clean(text: object) -> str:
    """Return ``text`` as a string without lone surrogates; each becomes U+FFFD."""
    written = text if isinstance(text, str) else str(text)
    return written if written.isascii() else _SURROGATE.sub("�", written)


def valid_name(name: object) -> str:
    """Return ``name`` if it can name a metric.

    Raises:
        ConfigurationError: it is empty, no string, or holds a lone surrogate.
    """
    if not isinstance(name, str) or not name or _SURROGATE.search(name):
        raise ConfigurationError(
            "name",
            clean(repr(name)),
            "a metric name is non-empty UTF-8 text",
            "write it as noun_unit, such as jobs_total",
        )
    return name


def valid_labels(labels: Iterable[object], *, reserved: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the label names as a tuple, in the order given.

    Args:
        labels: the names.
        reserved: names this kind of metric writes itself, such as ``le`` on histograms.

    Raises:
        ConfigurationError: a name is empty, no string, repeated or reserved, starts with ``__``
            or holds a lone surrogate.
    """
    if isinstance(labels, str):
        raise ConfigurationError("labels", labels, "labels is a sequence of names", f"write labels=({labels!r},)")
    names = tuple([_valid_label(name) for name in labels])
    for name in reserved:
        if name in names:
            raise ConfigurationError("labels", name, "histograms write this label themselves", "rename the label")
    if len(set(names)) < len(names):
        raise ConfigurationError("labels", names, "each label name appears once", "remove the repeated name")
    return names


def _valid_label(name: object) -> str:
    if not isinstance(name, str) or not name or name.startswith("__") or _SURROGATE.search(name):
        raise ConfigurationError(
            "labels",
            clean(repr(name)),
            "a label name is non-empty UTF-8 text that does not start with two underscores",
            "rename the label",
        )
    return name


@lru_cache(maxsize=4096)
def is_classic(name: str, *, label: bool = False) -> bool:
    """Return whether ``name`` needs no quoting in any version of the format; colons are for metric names only."""
    return (_CLASSIC_LABEL if label else _CLASSIC_METRIC).match(name) is not None


@lru_cache(maxsize=4096)
def escape_name(name: str, scheme: str, *, label: bool = False) -> str:
    """Return ``name`` as ``scheme`` writes it; under ``allow-utf-8`` a name of another alphabet is quoted."""
    classic = is_classic(name, label=label)
    if classic and scheme != DOTS:
        return name
    if scheme == ALLOW_UTF8:
        return f'"{name.translate(_VALUE_ESCAPES)}"'
    replace = _SCHEMES_BY_RUNE[scheme]
    start = "U__" if scheme == VALUES else ""
    return start + "".join(
        [rune if _keeps(rune, index, label=label) else replace(rune) for index, rune in enumerate(name)]
    )


def _keeps(rune: str, index: int, *, label: bool) -> bool:
    """Return whether a rune of the classic alphabet, which the underscore separates, stays as it is here."""
    if rune == ":":
        return not label
    return rune.isascii() and (rune.isalpha() or (rune.isdigit() and index > 0))


def escape_help(text: str, *, quotes: bool) -> str:
    """Return a help text on one line; OpenMetrics escapes quotes too (``quotes=True``)."""
    return clean(text).translate(_VALUE_ESCAPES if quotes else _HELP_ESCAPES)


def label_text(names: Iterable[str], values: Iterable[str], scheme: str = ALLOW_UTF8) -> str:
    """Return ``name="value"`` pairs joined by commas, sorted by name; values must already be clean."""
    pairs = sorted(zip(names, values, strict=True))
    return ",".join(
        [f'{escape_name(name, scheme, label=True)}="{value.translate(_VALUE_ESCAPES)}"' for name, value in pairs]
    )
