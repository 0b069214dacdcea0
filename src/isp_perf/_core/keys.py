"""Cache keys: templates and the wire key; ``field_text`` has the text of a field.

The grammar of a key is such that unequal fields never meet. Everything a field may not contain is written as ``%XX``
(two hexadecimal digits); a ``%`` before any other character is ours: ``%n42`` a number, ``%s42`` a string that reads
like one, ``%z`` None, ``%u`` a UUID, ``%t`` a date or time, ``%k`` the digest of anything else, ``%.`` a border
between two fields that the template does not separate, ``%~`` the digest that ends a shortened key.
"""

import re
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Final, NamedTuple

from isp_perf.errors import ConfigurationError

__all__ = ["HASH", "RESERVED", "Field", "Template", "field_value", "parse_template", "shorten", "wire_key"]

HASH: Final = "hash"
_LONGEST_BYTES: Final = 200
_HEAD_BYTES: Final = 64
RESERVED: Final = ":{}*?[]%\\ \x7f" + "".join(map(chr, range(32)))
_UNWRITTEN: Final = RESERVED.replace("%", "")  # what no field text contains; "%" begins an escape
_SEPARATORS: Final = "-_./,;|=&@+~!$()#'\"<>^`"


class Field(NamedTuple):
    """One field of a template.

    Attributes:
        name: the parameter; ``"hash"`` with an empty path stands for all of them.
        path: attribute names to follow from the argument.
    """

    name: str
    path: tuple[str, ...] = ()


class Template(NamedTuple):
    """A parsed key template: ``literals[0] field[0] literals[1] field[1] ... literals[-1]``.

    Attributes:
        text: the template as written.
        literals: the texts around the fields, borders included; one more than there are fields.
        fields: the fields in order of appearance.
        escaped: characters that field texts must escape besides the reserved ones.
    """

    text: str
    literals: tuple[str, ...]
    fields: tuple[Field, ...]
    escaped: str

    def join(self, texts: Sequence[str]) -> str:
        """Return the key in which ``texts`` stand for the fields, shortened if it is over 200 bytes."""
        parts = [self.literals[0]]
        for text, literal in zip(texts, self.literals[1:], strict=True):
            parts += (text, literal)
        return shorten("".join(parts))

    def pattern(self) -> re.Pattern[str]:
        """Return what matches the keys of this template, with a group for each field."""
        text = f"([^{re.escape(_UNWRITTEN + self.escaped)}]*)"
        parts = [re.escape(self.literals[0])]
        for literal in self.literals[1:]:
            parts += (text, re.escape(literal))
        return re.compile("".join(parts))

    def text_for(self, other: "Template", text: str) -> str:
        """Return a field's text of this template as ``other`` writes it; the two may escape different separators."""
        for character in set(other.escaped) - set(self.escaped):
            text = text.replace(character, f"%{ord(character):02X}")
        for character in set(self.escaped) - set(other.escaped):
            text = text.replace(f"%{ord(character):02X}", character)
        return text


def parse_template(text: str, parameters: Sequence[str], *, setting: str = "key") -> Template:
    """Return the parsed template.

    Args:
        text: such as ``"user:{user_id}"``; ``{{`` and ``}}`` write literal braces.
        parameters: names of the function's parameters.
        setting: ``"key"``, or ``"tags"``: a tag may be a constant, and has no ``{hash}``.

    Raises:
        ConfigurationError: unbalanced braces, a field that is no parameter, a conversion or format, or no field at all
            for a function that has parameters.
    """
    try:
        parsed = list(Formatter().parse(text))
    except ValueError:
        raise ConfigurationError(
            "key", text, "braces come in pairs", "write {name} for a field and {{ }} for literal braces"
        ) from None
    literals, fields = [""], list[Field]()
    for literal, name, form, conversion in parsed:
        literals[-1] += literal
        if name is not None:
            fields.append(
                _parse_field(text, name + (f"!{conversion}" if conversion else "") + (form or ""), parameters)
            )
            literals.append("")
    _check_fields(text, fields, parameters, setting=setting)
    return Template(text, *_with_borders(literals, fields))


def _check_fields(text: str, fields: Sequence[Field], parameters: Sequence[str], *, setting: str) -> None:
    if setting == "tags":
        if Field(HASH) in fields:
            raise ConfigurationError(
                "tags", text, "a tag names fields, not {hash}", "name the parameters it depends on"
            )
    elif parameters and not fields:
        raise ConfigurationError(
            "key", text, "a template without a field gives every call one key", f"add {{{parameters[0]}}} or {{hash}}"
        )


def _parse_field(text: str, name: str, parameters: Sequence[str]) -> Field:
    head, *path = name.split(".")
    if not all(part.isidentifier() for part in (head, *path)):
        raise ConfigurationError(
            "key", text, "a field is a parameter or an attribute of one", "write {name} or {name.attribute}, no format"
        )
    if head not in parameters and (head != HASH or path):
        known = ", ".join(f"{{{parameter}}}" for parameter in parameters)
        raise ConfigurationError(
            "key", text, f"{{{name}}} names no parameter", f"use one of {known or 'none'}, {{hash}}"
        )
    return Field(head, tuple(path))


def _with_borders(literals: list[str], fields: list[Field]) -> tuple[tuple[str, ...], tuple[Field, ...], str]:
    """Make every two neighbouring fields tell apart: by a reserved separator, an escaped one, or a border mark."""
    escaped = ""
    for index in range(1, len(fields)):
        between = literals[index]
        if any(character in RESERVED for character in between):
            continue
        separator = next((character for character in between if character in _SEPARATORS), None)
        if separator is None:
            literals[index] = "%." + between
        else:
            escaped += separator
    return tuple(literals), tuple(fields), escaped


def shorten(key: str) -> str:
    """Return ``key``, or for more than 200 bytes its readable head and the 128-bit digest of the whole."""
    data = key.encode("utf-8", "surrogatepass")
    if len(data) <= _LONGEST_BYTES:
        return key
    from isp_perf._core.canonical import digest

    return data[:_HEAD_BYTES].decode("utf-8", "ignore") + "%~" + digest(data, key=b"isp_perf.long")


def wire_key(prefix: str, key: str) -> str:
    """Return the key under which the remote level stores the logical ``key``."""
    return prefix + key


def field_value(field: Field, values: Mapping[str, object]) -> object:
    """Return what ``field`` stands for among the bound ``values``."""
    value = values[field.name]
    for name in field.path:
        value = getattr(value, name)
    return value
