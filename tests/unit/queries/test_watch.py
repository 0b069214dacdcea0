"""`install`, `count_queries`, `query_budget`: what is counted, reported and refused."""

import asyncio
import contextlib
import logging
import threading
import warnings

import pytest
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from isp_perf.errors import ConfigurationError, NPlusOneError, QueryBudgetError
from isp_perf.queries import NPlusOneWarning, count_queries, install, preload, query_budget


@pytest.fixture
def installed(engine):
    handle = install(engine, batching="off")
    yield handle
    handle.remove()


def loop(session, models):
    for conversa in session.scalars(select(models.Conversa)):
        list(conversa.mensagens)


# ---- counting --------------------------------------------------------------------------------------------------------


def test_every_statement_is_counted(installed, engine, session, models):
    """ORM, Core, text, driver SQL and many rows at once count; BEGIN, COMMIT and savepoints do not."""
    with count_queries() as queries:
        session.scalars(select(models.Plano)).all()
        session.execute(text("SELECT 1"))
        session.connection().exec_driver_sql("SELECT 2")
        session.connection().exec_driver_sql("INSERT INTO planos VALUES (?, ?)", [(7, "a"), (8, "b")])
        with session.begin_nested():
            session.connection().exec_driver_sql("SAVEPOINT mine")
        session.commit()
    assert queries.count == 4
    assert [entry.count for entry in queries.statements] == [1, 1, 1, 1]
    assert queries.statements[1].text == "SELECT 1"
    assert queries.statements[1].site.startswith(f"{__file__}:")
    assert queries.seconds > 0


def test_a_failed_statement_was_sent_too(installed, session):
    """A statement that the database refused is counted, and its error is the database's own."""
    with count_queries() as queries, pytest.raises(IntegrityError):
        session.execute(text("INSERT INTO planos (id, nome) VALUES (1, 'x')"))
    assert queries.count == 1


def test_scopes_nest(installed, session):
    """An inner block counts for the outer one, and nothing is counted outside."""
    with count_queries() as outer:
        session.execute(text("SELECT 1"))
        with count_queries() as inner:
            session.execute(text("SELECT 1"))
    session.execute(text("SELECT 1"))
    assert (outer.count, inner.count) == (2, 1)


def test_the_first_connect_is_not_counted():
    """What a dialect asks when it first connects is no statement of the user's."""
    engine = create_engine("sqlite://")
    handle = install(engine)
    with count_queries() as queries, engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    assert queries.count == 1
    handle.remove()
    engine.dispose()


async def test_tasks_and_threads_started_inside_are_counted(installed, engine):
    """Tasks, and threads that got the context, count for the block they were started in; others do not."""

    def ask():
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    async def ask_in_a_task():
        ask()

    with count_queries() as queries:
        await asyncio.gather(asyncio.create_task(ask_in_a_task()), ask_in_a_task())
        await asyncio.to_thread(ask)
        stranger = threading.Thread(target=ask)
        stranger.start()
        stranger.join()
    assert queries.count == 3


def test_two_tasks_count_apart(installed, engine):
    """Blocks of concurrent tasks do not see each other's statements."""

    async def ask(times):
        with count_queries() as queries:
            for _ in range(times):
                with engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
                await asyncio.sleep(0)
        return queries.count

    async def main():
        return await asyncio.gather(ask(1), ask(2), ask(3))

    assert asyncio.run(main()) == [1, 2, 3]


def test_counting_nothing_by_mistake_is_an_error():
    """Without an installed engine a count would always be 0, so it is refused; errors of the block come first."""
    with pytest.raises(ConfigurationError, match="install"), count_queries():
        pass
    with pytest.raises(ZeroDivisionError), count_queries():
        raise ZeroDivisionError


def test_a_count_is_entered_once(installed):
    """The same count cannot be entered a second time."""
    queries = count_queries()
    with queries:
        pass
    with pytest.raises(ConfigurationError, match="entered twice"):
        queries.__enter__()


@pytest.mark.parametrize("name", ["do_execute", "do_execute_no_params", "do_executemany"])
@pytest.mark.parametrize("first", [True, False])
def test_listeners_of_others_still_run(engine, name, first):
    """Somebody else's listener on the same event is asked, and may still execute the statement itself."""
    calls = []

    def mine(*call):
        calls.append(call[1])

    def instead(cursor, statement, *rest):
        cursor.execute("SELECT 42")
        return True

    listeners = [(engine, name, mine), (engine, "do_execute_no_params", instead)]
    if first:
        for listener in listeners:
            event.listen(*listener)
    handle = install(engine)
    if not first:
        for listener in listeners:
            event.listen(*listener)
    with count_queries() as queries, engine.connect() as connection:
        connection.execute(text("SELECT :x"), {"x": 1})
        connection.exec_driver_sql("INSERT INTO planos VALUES (?, ?)", [(7, "a"), (8, "b")])
        answer = connection.execution_options(no_parameters=True).exec_driver_sql("SELECT 1").scalar()
    assert (answer, queries.count) == (42, 3)
    assert len(calls) == 1
    handle.remove()


# ---- install ---------------------------------------------------------------------------------------------------------


def test_installing_twice_is_installing_once(engine):
    """An engine, its factories and its sessions are one target: one handle, each statement counted once."""
    factory = sessionmaker(engine)
    handle = install(engine)
    others = [install(target) for target in (engine, factory, scoped_session(factory), factory(), engine.connect())]
    with count_queries() as queries, factory() as session:
        session.execute(text("SELECT 1"))
    assert all(other is handle for other in others)
    assert (queries.count, handle.stats().statements) == (1, 1)
    assert handle.engine is engine
    handle.remove()


def test_async_targets():
    """An async engine, its connections' and sessions' factories lead to the engine inside."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    factory = async_sessionmaker(engine)
    handle = install(engine)
    assert (install(factory), install(factory()), handle.engine) == (handle, handle, engine.sync_engine)
    handle.remove()


def test_removal_is_complete_and_may_be_repeated(engine, session):
    """After `remove` nothing is counted any more."""
    handle = install(engine)
    handle.remove()
    handle.remove()
    other = install(create_engine("sqlite://"))
    with count_queries() as queries:
        session.execute(text("SELECT 1"))
    assert queries.count == 0
    other.remove()


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ("engine", {}, "target='str'"),
        (sessionmaker(), {}, "with a bind"),
        (Session, {}, "target='Session'"),
        (None, {"detect": "maybe"}, "'off', 'warn' or 'raise'"),
        (None, {"budget": -1}, "whole number"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(engine, target, settings, message):
    """A target without an engine and settings out of range are named with what is right."""
    with pytest.raises(ConfigurationError, match=message):
        install(engine if target is None else target, **settings)


# ---- what is done about findings -------------------------------------------------------------------------------------


def test_warn_says_it_once_per_line(engine, models, caplog):
    """`detect="warn"` issues one warning at the user's line and one log line, however often it happens."""
    handle = install(engine, batching="off", detect="warn")
    with (
        warnings.catch_warnings(record=True) as caught,
        caplog.at_level(logging.INFO, "isp_perf.queries"),
    ):
        warnings.simplefilter("always")
        for _ in range(3):
            with Session(engine) as session:
                loop(session, models)
    (warning,) = caught
    assert warning.category is NPlusOneWarning
    assert (warning.filename, warning.lineno) == (__file__, loop.__code__.co_firstlineno + 2)
    assert '.options(*preload(Conversa, "mensagens"))' in str(warning.message)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert handle.stats().n_plus_one == 3
    handle.remove()


def test_raise_stops_before_the_third_statement(engine, models):
    """`detect="raise"` raises with the finding in place of the third statement; the transaction stays usable."""
    handle = install(engine, batching="off", detect="raise")
    with Session(engine) as session, count_queries() as queries:
        with pytest.raises(NPlusOneError, match=r"test_watch\.py:\d+: 3 x Conversa\.mensagens") as caught:
            loop(session, models)
        assert queries.count == 3
        session.execute(text("SELECT 1"))
    assert caught.value.findings[0].path == "Conversa.mensagens"
    handle.remove()


def test_a_repeated_read_is_no_error(engine, session, caplog):
    """The same question again is kept as a finding and logged, never raised or warned about."""
    handle = install(engine, batching="off", detect="raise")
    with caplog.at_level(logging.INFO, "isp_perf.queries"):
        for _ in range(4):
            session.execute(text("SELECT 1"))
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert handle.stats().as_dict()["repeated_read"] == 1
    handle.remove()


def test_values_never_show(engine, session, caplog):
    """Parameters are in no finding, statement, message or log line."""
    handle = install(engine, batching="off", detect="warn", budget=1)
    with caplog.at_level(logging.INFO, "isp_perf.queries"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(QueryBudgetError), query_budget(1) as queries:
            for number in range(4):
                session.execute(
                    text("SELECT nome FROM clientes WHERE nome = :name"), {"name": f"s3cr3t-{number}"}
                ).all()
        with pytest.raises(QueryBudgetError) as error, query_budget(0):
            session.execute(text("SELECT :name"), {"name": "s3cr3t"}).all()
    shown = [*queries.findings, *queries.statements, *caplog.messages, *(w.message for w in caught), error.value]
    assert len(shown) >= 5
    assert "s3cr3t" not in repr(shown) + "".join(map(str, shown))
    handle.remove()


def test_parameters_that_cannot_be_hashed(installed, engine):
    """Lists and dictionaries among the parameters are compared by what they say."""
    from isp_perf.queries._scopes import fingerprint_of

    assert fingerprint_of((1, [2])) == fingerprint_of((1, [2])) != fingerprint_of((1, [3]))
    assert fingerprint_of({"a": 1}) == fingerprint_of((1,))


# ---- budgets ---------------------------------------------------------------------------------------------------------


def test_a_budget_is_checked_on_leaving(installed, session, models):
    """A block that sent more raises with the findings that explain it; one that kept to it does not."""
    with query_budget(1):
        session.execute(text("SELECT 1"))
    with (
        pytest.raises(QueryBudgetError, match=r"7 statements, 2 allowed\n.*preload\(Conversa") as caught,
        query_budget(2),
    ):
        loop(session, models)
    assert caught.value.findings[0].count == 6


def test_a_budget_names_the_statements_when_nothing_repeats(installed, session):
    """Without findings the most frequent statements and their lines explain the excess."""
    with pytest.raises(QueryBudgetError, match=r"1 x SELECT 1 \(.*test_watch\.py:\d+\)"), query_budget(0):
        session.execute(text("SELECT 1"))


def test_a_budget_at_once(installed, session):
    """With `at_once` the statement too many is not sent."""
    with query_budget(1, at_once=True) as queries:
        session.execute(text("SELECT 1"))
        with pytest.raises(QueryBudgetError, match="2 statements, 1 allowed"):
            session.execute(text("SELECT 2"))
    assert queries.count == 1


def fail_after_a_statement(session):
    with query_budget(0):
        session.execute(text("SELECT 1"))
        raise ZeroDivisionError


def test_an_error_of_the_block_is_not_replaced(installed, session):
    """The block's own exception leaves it, over budget or not."""
    with pytest.raises(ZeroDivisionError):
        fail_after_a_statement(session)


def test_a_budget_without_a_scope_is_per_checkout(engine, caplog):
    """`install(budget=)` alone logs a checkout of a connection that sent more, and breaks nothing."""
    handle = install(engine, budget=1)
    for statements in (1, 3):
        with Session(engine) as session:
            for number in range(statements):
                session.execute(text(f"SELECT {number}"))
    assert len(caplog.records) == 1
    assert "3 statements in one checkout of a connection, 1 allowed" in caplog.text
    assert handle.stats().over_budget == 1
    handle.remove()


# ---- preloads that nobody reads --------------------------------------------------------------------------------------


def preloading(session, models, *, read):
    for conversa in session.scalars(select(models.Conversa).options(*preload(models.Conversa, "mensagens"))):
        if read:
            list(conversa.mensagens)


def test_a_preload_counts_as_unused_after_ten_scopes(installed, engine, models, caplog):
    """What no scope of ten read is counted and logged once, and only blocks that are asked say it before."""
    caplog.set_level(logging.INFO, "isp_perf.queries")
    install(engine, batching="off", detect="raise")
    for number in range(12):
        assert installed.stats().unused_preload == (number >= 10)
        with Session(engine) as session, count_queries() as queries, count_queries() as inner:
            preloading(session, models, read=False)
        assert [finding.kind for finding in queries.findings] == ["unused_preload"]
        assert inner.findings == queries.findings
    assert installed.stats().unused_preload == 1
    assert caplog.text.count('take "mensagens" out of preload(Conversa, ...)') == 1


def test_a_preload_that_was_read_once_is_used(installed, engine, models, caplog):
    """A preload that one scope read is not reported for those that did not; a scope that failed says nothing."""
    caplog.set_level(logging.INFO, "isp_perf.queries")
    for number in range(30):
        with contextlib.suppress(LookupError), Session(engine) as session, count_queries():
            preloading(session, models, read=number == 15)
            if number < 15:
                raise LookupError
    assert installed.stats().unused_preload == 0
    assert caplog.text == ""


def test_a_read_behind_an_inner_block_counts_for_the_outer(installed, engine, models):
    """What was preloaded within one block and read after it is used by the block around both."""
    with Session(engine) as session, count_queries() as outer:
        with count_queries() as inner:
            preloading(session, models, read=False)
        assert session.get(models.Conversa, 1).mensagens
    assert (outer.findings, [finding.path for finding in inner.findings]) == ([], ["Conversa.mensagens"])


def test_classes_are_left_as_they_were(engine, models):
    """While reads are noted, attributes are the same objects, and afterwards of the same class."""
    attribute, kind = models.Conversa.mensagens, type(models.Conversa.mensagens)
    handle = install(engine, batching="off")
    with Session(engine) as session, count_queries():
        preloading(session, models, read=True)
    assert models.Conversa.mensagens is attribute
    assert type(attribute) is not kind
    assert str(attribute.any()).startswith("EXISTS")
    handle.remove()
    assert type(attribute) is kind
