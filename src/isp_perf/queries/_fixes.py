"""The exact text to write for each kind of finding."""

from typing import Any

from sqlalchemy.inspection import inspect
from sqlalchemy.orm import Mapper

from isp_perf._core.query_findings import Kind
from isp_perf.queries._compat import Origin

__all__ = ["fix_for"]

_WORDS = 6


def fix_for(kind: Kind, origin: Origin | None, context: Any) -> tuple[str, str]:
    """Return the path of a finding and what to write against it."""
    if origin is not None and kind != "write_loop":
        return _relationship(origin) if origin.path else _columns(origin)
    model = _model(context)
    path = model or " ".join(context.statement.split()[:_WORDS])
    if kind == "repeated_read":
        return path, "keep the first result in a variable, or cache the function with @isp_perf.cached"
    return path, _all_rows(context, model) if kind == "write_loop" else _all_values(model)


def _all_values(model: str) -> str:
    what = f"select({model})" if model else "one select"
    return f"ask once, before the loop: {what} with .where(<column>.in_(<all values>))"


def _all_rows(context: Any, model: str) -> str:
    verb = "insert" if context.isinsert else "update" if context.isupdate else "delete"
    return f"write all rows at once: session.execute({verb}({model or 'table'}), rows)"


def _relationship(origin: Origin) -> tuple[str, str]:
    path = origin.path
    names = [part.key for part in path[1::2]]
    root = path[0].mapper.class_.__name__
    owner = path[-2].mapper.class_.__name__ if len(path) > 1 else root
    shown = f"{owner}.{names[-1]}"
    return shown, f'.options(*preload({root}, "{".".join(names)}"))'


def _columns(origin: Origin) -> tuple[str, str]:
    mapper: Mapper[Any] = origin.state.manager.mapper
    model = mapper.class_.__name__
    names = sorted(origin.columns)
    if origin.state.expired or not names or len(names) == len(mapper.column_attrs):
        key = mapper.get_property_by_column(mapper.primary_key[0]).key
        again = f"session.scalars(select({model}).where({model}.{key}.in_(ids))).all()"
        return f"{model} (expired)", f"load the rows again in one statement: {again}"
    shown = ", ".join(f"{model}.{name}" for name in names)
    if not _deferred_by_mapping(mapper, names):
        return shown, f"the query leaves it out: take {shown} out of defer(), or add it to load_only() and only="
    return shown, f".options({', '.join(f'undefer({model}.{name})' for name in names)})"


def _deferred_by_mapping(mapper: Mapper[Any], names: list[str]) -> bool:
    """Whether the mapping itself defers every column of ``names``."""
    return all(name in mapper.column_attrs and mapper.column_attrs[name].deferred for name in names)


def _model(context: Any) -> str:
    """Return the mapped class that a statement is about; empty if it is about none."""
    attributes: Any = getattr(context.invoked_statement, "_propagate_attrs", {})
    subject = attributes.get("plugin_subject")
    mapper = getattr(inspect(subject, raiseerr=False), "mapper", None) if subject is not None else None
    return mapper.class_.__name__ if mapper is not None else _table(context)


def _table(context: Any) -> str:
    table = getattr(context.invoked_statement, "table", None)
    return str(table.name) if table is not None and hasattr(table, "name") else ""
