"""Every undocumented name of SQLAlchemy that statements and rows need on their way past the ORM.

Together with `_compat` the only module to read when a new SQLAlchemy is judged.
"""

from collections.abc import Generator
from contextlib import contextmanager
from operator import attrgetter, methodcaller
from typing import Any

from isp_perf.queries._compat import PEER_MARK

__all__ = [
    "before_execute_hooks",
    "cut_clauses",
    "driver_call",
    "driver_errors",
    "has_bind_expression",
    "is_joinable",
    "is_loading",
    "is_translated",
    "locks_rows",
    "many_call",
    "options_on",
    "order_clauses",
    "orm_hooks",
    "positions",
    "raw_result",
    "rows_of",
    "statement_key",
]

_result_processors = attrgetter("_metadata._processors")
_bind_processors = attrgetter("_bind_processors")


def statement_key(statement: Any) -> tuple[tuple[Any, ...], list[Any]] | None:
    """Return what makes statements the same but for their values, and the parameters that hold these.

    Returns:
        ``None`` where SQLAlchemy itself could not tell, or where values are kept in a third place.
    """
    found = methodcaller("_generate_cache_key")(statement)
    if found is None or getattr(found, "params", None):
        return None
    return found.key, list(found.bindparams)


def options_on(statement: Any) -> tuple[Any, ...]:
    """Return the options a statement carries, but for the mark of peers, which means nothing."""
    return tuple(option for option in attrgetter("_with_options")(statement) if option is not PEER_MARK)


def is_loading(option: Any) -> bool:
    """Whether an option says how attributes of objects are loaded."""
    return bool(getattr(option, "_is_strategy_option", False))


def is_joinable(statement: Any) -> bool:
    """Whether to-one joins may be added to a SELECT: it groups nothing, removes no repeats and locks no rows."""
    clauses = attrgetter("_group_by_clauses", "_having_criteria", "_distinct", "_for_update_arg")(statement)
    return not any(clauses)


def locks_rows(statement: Any) -> bool:
    """Whether a SELECT locks what it reads."""
    return attrgetter("_for_update_arg")(statement) is not None


def order_clauses(statement: Any) -> tuple[Any, ...]:
    """Return the elements of a statement's ORDER BY, out of the references to labels that SQLAlchemy puts them in."""
    clauses = attrgetter("_order_by_clauses")(statement)
    return tuple(clause.element if clause.__visit_name__ == "label_reference" else clause for clause in clauses)


def cut_clauses(statement: Any) -> bool:
    """Whether a statement has a limit or an offset."""
    return any(
        clause is not None for clause in attrgetter("_limit_clause", "_offset_clause", "_fetch_clause")(statement)
    )


def orm_hooks(session: Any) -> tuple[Any, ...]:
    """Return all that is called before an ORM statement of the session is compiled."""
    return tuple(session.dispatch.do_orm_execute)


def before_execute_hooks(connection: Any) -> tuple[Any, ...]:
    """Return all that may replace a statement of the connection before it is compiled."""
    return tuple(connection.dispatch.before_execute)


def raw_result(result: Any) -> tuple[Any, tuple[tuple[int, Any], ...], Any] | None:
    """Return the driver's rows, what turns raw values into Python's, by column, and the execution context.

    Returns:
        ``None`` if the result comes from somewhere else than a cursor.
    """
    raw = getattr(result, "raw", result)
    strategy = getattr(raw, "cursor_strategy", None)
    if strategy is None:
        return None
    processors = enumerate(_result_processors(raw))
    rows = strategy.fetchall(raw, raw.cursor)
    return rows, tuple((index, work) for index, work in processors if work is not None), raw.context


def is_translated(compiled: Any) -> bool:
    """Whether names in a compiled statement are still to be replaced, or its parameters cannot be exchanged."""
    return bool(compiled is None or compiled.cache_key is None or compiled.schema_translate_map)


def driver_call(compiled: Any, extracted: list[Any], values: Any) -> tuple[str, Any]:
    """Return text and parameters of a compiled statement as its driver takes them.

    Args:
        compiled: the statement.
        extracted: parameters in the place of those it was compiled with, in the order of its cache key.
        values: parameters by name.
    """
    found = compiled.construct_params(values, extracted_parameters=extracted, escape_names=False)
    text, places, processors = compiled.string, compiled.positiontup, _bind_processors(compiled)
    if compiled.literal_execute_params or compiled.post_compile_params:
        state = methodcaller("_process_parameters_for_postcompile", found)(compiled)
        text, places = state.statement, state.positiontup
        processors = {**processors, **state.processors}
        found = {**found, **state.additional_parameters}
    for name in processors.keys() & found.keys():
        found[name] = processors[name](found[name])
    if compiled.positional:
        return text, tuple([found[name] for name in places])
    return text, _renamed(found, compiled.escaped_bind_names)


def _renamed(values: dict[str, Any], names: Any) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()} if names else values


def rows_of(connection: Any, text: str, parameters: Any, *, part: bool) -> Any:
    """Execute a statement that is as its driver takes it, and return the driver's rows.

    Where nobody listens to the connection, the driver's cursor is used as it is: the execution context and the result
    that SQLAlchemy puts around it cost more than a small statement.

    Args:
        connection: the connection, in a transaction.
        text: the statement.
        parameters: its parameters.
        part: it is a part of a larger whole, and its repetition means nothing.
    """
    if not _is_unwatched(connection):
        result = connection.exec_driver_sql(text, parameters, {"isp_part": True} if part else {})
        try:
            return result.cursor.fetchall()
        finally:
            result.close()
    cursor = connection.connection.cursor()
    try:
        connection.dialect.do_execute(cursor, text, parameters, None)
        return cursor.fetchall()
    except BaseException as error:
        methodcaller("_handle_dbapi_exception", error, text, parameters, cursor, None)(connection)
        raise
    finally:
        cursor.close()


@contextmanager
def driver_errors(connection: Any, text: str) -> Generator[None]:
    """Let SQLAlchemy judge what a driver raises in the block: wrap it, and look after the connection.

    Args:
        connection: the connection that the block uses past SQLAlchemy.
        text: the statement.
    """
    try:
        with _translated(connection.connection.dbapi_connection):
            yield
    except BaseException as error:
        methodcaller("_handle_dbapi_exception", error, text, None, None, None)(connection)
        raise


@contextmanager
def _translated(adapted: Any) -> Generator[None]:
    """Turn errors of an async driver into those of the DBAPI that SQLAlchemy puts before it."""
    try:
        yield
    except Exception as error:
        if hasattr(adapted, "_handle_exception"):
            methodcaller("_handle_exception", error)(adapted)
        raise


def has_bind_expression(kind: Any) -> bool:
    """Whether values of a type are sent with SQL around them."""
    return bool(attrgetter("_has_bind_expression")(kind))


def many_call(compiled: Any, columns: Any) -> tuple[str, Any]:
    """Return the text of a compiled statement, and what gives the parameters of all its executions by position.

    Args:
        compiled: a statement for a driver with positional parameters.
        columns: the values of each parameter, by its name.
    """
    size = len(next(iter(columns.values())))
    constants, processors = compiled.params, _bind_processors(compiled)
    found: list[Any] = []
    for name in compiled.positiontup:
        values = columns[name] if name in columns else [constants[name]] * size
        found.append(map(processors[name], values) if name in processors else values)
    return compiled.string, list(zip(*found, strict=True))


def positions(compiled: Any) -> tuple[list[str], dict[str, Any]]:
    """Return the parameters of a compiled statement by position, and by name what converts those that need it."""
    return list(compiled.positiontup), dict(_bind_processors(compiled))


_watchers = attrgetter("_has_events", "engine._has_events", "dialect._has_events", "_echo", "_execution_options")
_transactions = attrgetter("_transaction", "_nested_transaction")


def _is_unwatched(connection: Any) -> bool:
    """Whether nobody sees a connection's statements, and its transaction takes further ones."""
    outer, nested = _transactions(connection)
    return not any(_watchers(connection)) and outer is not None and outer.is_active and (not nested or nested.is_active)
