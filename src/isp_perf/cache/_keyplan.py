"""How one function's arguments become a key: by value for the local level, as text for everything else.

A *slot* is the key inside a store. Arguments of the common scalar types are their own slot, so that the hit path needs
no encoding; everything else has the one-element tuple of its logical key. Values that Python calls equal meet in a slot
exactly if they share the logical key: where types count, they are part of the slot or guarded by the wrapper.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from math import isnan
from typing import Any, Final, get_args, get_type_hints

from isp_perf._core.keys import HASH, Field, Template, field_value
from isp_perf._core.kinds import is_uuid_kind

__all__ = ["KeyPlan", "Slot", "annotated_types", "is_scalar"]

Slot = Any
_SCALARS: Final = frozenset({str, int, bool, float, bytes, type(None)})
_EVERYTHING: Final = frozenset({Field(HASH)})
_PACKED: Final = {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}


def is_scalar(kind: type) -> bool:
    """Return whether a value of exactly this type is its own slot."""
    return kind in _SCALARS or is_uuid_kind(kind)


def annotated_types(function: Callable[..., Any], names: Sequence[str]) -> dict[str, type]:
    """Return the plain annotated type of each parameter that has one; ``X | None`` counts as ``X``."""
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        hints = dict(getattr(function, "__annotations__", {}))
    found: dict[str, type] = {}
    for name in names:
        options = [kind for kind in get_args(hints.get(name)) if kind is not type(None)]
        hint = options[0] if len(options) == 1 else hints.get(name)
        if isinstance(hint, type):
            found[name] = hint
    return found


class KeyPlan:
    """Slots and keys of one decorated function.

    Args:
        template: the parsed key template.
        parameters: the function's parameters.
        types: their annotated types.
        typed: keep types apart in the template's fields.
        owner: the name of a first parameter that is the class (``cls``) or an instance without a value of its own
            (``self``): of a class its name is the key, an instance has a store of its own.
        secret: gives the key of the digests.
    """

    apart: bool
    names: list[str]
    native: bool
    owner: str | None
    parts: list[Field]
    template: Template

    def __init__(
        self,
        template: Template,
        parameters: Sequence[Parameter],
        *,
        types: Mapping[str, type],
        typed: bool,
        owner: str | None,
        secret: Callable[[], bytes],
    ) -> None:
        self.template = template
        self.names = [parameter.name for parameter in parameters]
        self.owner = owner
        self._pattern: re.Pattern[str] | None = None
        self._types = types
        self._typed = typed
        self._secret = secret
        self._index = {name: index for index, name in enumerate(self.names)}
        named = list(dict.fromkeys(template.fields))
        self._hashed = frozenset[Field]() if HASH in self._index else _EVERYTHING.intersection(named)
        self.parts = self._all_values() if self._hashed else named
        self.apart = typed or bool(self._hashed)
        self.native = self._by_name(parameters, mixed=len(named) > 1)

    def _all_values(self) -> list[Field]:
        return [Field(name) for name in self.names if name != self.owner]

    def _by_name(self, parameters: Sequence[Parameter], *, mixed: bool) -> bool:
        """Return whether the wrapper can name the slot: no packed arguments, no digest beside fields, no class."""
        packed = any(parameter.kind in _PACKED for parameter in parameters)
        special = self._hashed and (mixed or self.owner == "cls")
        return bool(self.parts) and not (packed or special)

    @property
    def guard(self) -> type | None:
        """The one type whose values are slots by themselves, although types count."""
        if not self.apart or len(self.parts) != 1 or self.parts[0].path:
            return None
        kind = self._types.get(self.parts[0].name)
        return kind if kind is not None and is_scalar(kind) else None

    def expression(self) -> str:
        """Return the slot as source, in the terms of ``specialize``."""
        values = [".".join((f"$param_{self._index[part.name]}", *part.path)) for part in self.parts]
        if self.apart and self.guard is None:
            values += [f"{value}.__class__" for value in values]
        return values[0] if len(values) == 1 else f"({', '.join(values)})"

    def slot(self, values: tuple[Any, ...], token: str) -> tuple[Slot, bool]:
        """Return the slot of a call and whether it is by value."""
        if self.native:
            given = [self._value(part, values) for part in self.parts]
            if not self.apart:
                given = [value if is_scalar(value.__class__) else _plain(value) for value in given]
            if self._by_value(given):
                return self._join(given), True
        return (self.key(values, token),), False

    def _by_value(self, given: list[Any]) -> bool:
        for value in given:
            if not is_scalar(value.__class__) or (value.__class__ is float and isnan(value)):
                return False
        guard = self.guard
        return guard is None or given[0].__class__ is guard

    def _join(self, given: list[Any]) -> Slot:
        if self.apart and self.guard is None:
            given = given + [value.__class__ for value in given]
        return given[0] if len(given) == 1 else tuple(given)

    def _value(self, part: Field, values: tuple[Any, ...]) -> Any:
        value = values[self._index[part.name]]
        for name in part.path:
            value = getattr(value, name)
        return value

    def key(self, values: tuple[Any, ...], token: str) -> str:
        """Return the logical key of a call; ``token`` tells instances apart.

        Raises:
            TypeError: an argument that cannot be part of a key; names the parameter, not the value.
        """
        bound = dict(zip(self.names, values, strict=True))
        if self.owner is not None and isinstance(bound[self.owner], type):
            bound[self.owner] = f"{bound[self.owner].__module__}:{bound[self.owner].__qualname__}"
        return self.template.join([self._text(field, bound, token) for field in self.template.fields])

    def tag(self, template: Template, values: tuple[Any, ...]) -> str:
        """Return the tag of a call."""
        bound = dict(zip(self.names, values, strict=True))
        texts = [self._field(field, field_value(field, bound), template) for field in template.fields]
        return template.join(texts)

    def key_of(self, slot: Slot, token: str) -> str:
        """Return the logical key of the entry in ``slot``."""
        parts = slot if slot.__class__ is tuple else (slot,)
        if len(parts) == 1 and parts is slot:
            return str(parts[0])
        values = parts[: len(self.parts)]
        given = dict(zip(self.parts, values, strict=True))
        if self._hashed:
            text = self._digest({part.name: value for part, value in given.items()})
            return self.template.join([token + text for _ in self.template.fields])
        return self.template.join([self._field(part, given[part]) for part in self.template.fields])

    def texts(self, key: str) -> dict[Field, str] | None:
        """Return the texts of the fields in ``key``; ``None`` if it is no key of this template, or a shortened one."""
        if not key.startswith(self.template.literals[0]):
            return None
        if self._pattern is None:
            self._pattern = self.template.pattern()
        match = self._pattern.fullmatch(key)
        if match is None:
            return None
        found: dict[Field, str] = {}
        for field, text in zip(self.template.fields, match.groups(), strict=True):
            if found.setdefault(field, text) != text:
                return None
        return found

    def tag_of_texts(self, template: Template, texts: Mapping[Field, str]) -> str | None:
        """Return the tag of a key with these texts; ``None`` if it names a field that the key does not have."""
        if not texts.keys() >= set(template.fields):
            return None
        return template.join([self.template.text_for(template, texts[field]) for field in template.fields])

    def arguments(self, slot: Slot) -> dict[str, Any] | None:
        """Return the arguments that ``slot`` stands for; ``None`` if it holds a text, an instance or attributes."""
        parts = slot if slot.__class__ is tuple else (slot,)
        by_text = len(parts) == 1 and parts is slot
        if by_text or self.owner is not None or any(part.path for part in self.parts):
            return None
        return {part.name: value for part, value in zip(self.parts, parts, strict=False)}

    def _text(self, field: Field, bound: Mapping[str, Any], token: str) -> str:
        if field in self._hashed:
            return token + self._digest({name: value for name, value in bound.items() if name != "self" or not token})
        return self._field(field, field_value(field, bound))

    def _field(self, field: Field, value: Any, template: Template | None = None) -> str:
        from isp_perf._core.field_text import field_text

        bare = None if field.path else self._types.get(field.name)
        escaped = (template or self.template).escaped
        try:
            return field_text(value, bare=bare, typed=self._typed, secret=self._secret(), escaped=escaped)
        except TypeError as error:
            raise _refused(field.name, error) from None

    def _digest(self, bound: Mapping[str, Any]) -> str:
        from isp_perf._core.canonical import canonical, digest

        pieces: list[bytes] = []
        for name, value in bound.items():
            try:
                pieces.append(canonical(value, typed=True))
            except TypeError as error:
                raise _refused(name, error) from None
        return digest(b"".join(pieces), key=self._secret())


def _plain(value: Any) -> Any:
    from isp_perf._core.canonical import plain_scalar

    return plain_scalar(value)


def _refused(parameter: str, error: TypeError) -> TypeError:
    return TypeError(f"argument {parameter!r}: {error}; name fields of it in the key template, or pass plain values")
