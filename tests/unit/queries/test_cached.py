"""`cached_query`: what is kept, when it is dropped, who goes past it, and what is refused."""

import asyncio
import threading
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import (
    JSON,
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    column,
    create_engine,
    delete,
    event,
    func,
    insert,
    literal_column,
    select,
    table,
    text,
    union,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    scoped_session,
    selectinload,
    sessionmaker,
)

from isp_perf import CacheManager
from isp_perf.errors import ConfigurationError
from isp_perf.queries import bulk_insert, cached_query, count_queries, install


class Base(DeclarativeBase):
    pass


class Cliente(Base):
    __tablename__ = "clientes"
    id: Mapped[int] = mapped_column(primary_key=True)
    nome: Mapped[str]
    extra: Mapped[dict] = mapped_column(JSON, default=dict)
    conversas: Mapped[list["Conversa"]] = relationship(passive_deletes=True)


class Conversa(Base):
    __tablename__ = "conversas"
    id: Mapped[int] = mapped_column(primary_key=True)
    cliente_id: Mapped[int] = mapped_column(ForeignKey("clientes.id", ondelete="CASCADE"))


class Outra(Base):
    __tablename__ = "outras"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def engine(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/a.db")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Cliente(id=1, nome="ana"), Conversa(id=1, cliente_id=1)])
        session.commit()
    yield engine
    engine.dispose()


@pytest.fixture
def manager():
    return CacheManager()


@pytest.fixture
def names(manager):
    """A cached function: the names of the clients from an id on."""

    @cached_query(manager, ttl=60)
    def names(first=1):
        return select(Cliente.nome).where(Cliente.id >= first).order_by(Cliente.id)

    return lambda session, *args: [row.nome for row in names(session, *args)]


def put(engine, *names):
    with Session(engine) as session:
        session.add_all([Cliente(nome=name) for name in names])
        session.commit()


@pytest.fixture
def asked(engine):
    """The texts of all SELECTs."""
    texts = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(connection, cursor, statement, *_):
        if statement.startswith("SELECT"):
            texts.append(statement)

    return texts


def test_a_hit_asks_nothing(engine, manager, names, asked):
    """The second call of either form, with the same arguments, sends no statement."""
    with Session(engine) as session:
        assert names(session) == names(session) == ["ana"]
    assert len(asked) == 1
    for _ in range(3):
        with Session(engine) as session:
            rows = cached_query(manager, session, select(Cliente).where(Cliente.id == 1), ttl=60)
            assert (rows[0].id, rows[0].nome, type(rows)) == (1, "ana", tuple)
    assert len(asked) == 2
    with Session(engine) as session:
        assert cached_query(manager, session, select(Cliente).where(Cliente.id == 2), ttl=60) == ()
    assert len(asked) == 3


def test_each_argument_is_a_key(engine, names, asked):
    """Other arguments are other rows."""
    with Session(engine) as session:
        assert (names(session, 1), names(session, 2), names(session, 1)) == (["ana"], [], ["ana"])
    assert len(asked) == 2


WRITES = {
    "flush": lambda s: s.add(Cliente(nome="bia")),
    "orm insert": lambda s: s.execute(insert(Cliente), [{"nome": "bia", "extra": {}}]),
    "core": lambda s: s.execute(Cliente.__table__.insert().values(nome="bia", extra={})),
    "text": lambda s: s.execute(text("INSERT INTO clientes (nome, extra) VALUES ('bia', '{}')")),
    "driver": lambda s: s.connection().exec_driver_sql("insert into main.\"clientes\"(nome, extra) values('bia','{}')"),
    "bulk": lambda s: bulk_insert(s, Cliente, [{"nome": "bia"}]),
    "with": lambda s: s.execute(
        text("WITH x AS (SELECT 'bia' AS n) INSERT INTO clientes (nome, extra) SELECT n, '{}' FROM x")
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_commit_drops_the_rows(engine, names, write):
    """However a row is written, who asks after the commit gets it, the writer before; others see the old state."""
    with Session(engine) as session, Session(engine) as other:
        assert names(session) == ["ana"]
        session.rollback()
        write(session)
        assert names(session) == ["ana", "bia"]
        assert names(other) == ["ana"]
        other.rollback()
        session.commit()
        assert names(session) == names(other) == ["ana", "bia"]


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_rollback_drops_nothing(engine, names, asked, write):
    """What was rolled back was never written: the rows are still there, and they are the old ones."""
    with Session(engine) as session:
        names(session)
        write(session)
        assert names(session) == ["ana", "bia"]
        session.rollback()
        before = len(asked)
        assert names(session) == ["ana"]
        assert len(asked) == before


@pytest.mark.parametrize(
    "write",
    [
        lambda s: s.execute(update(Cliente).values(nome="z")),
        lambda s: s.execute(delete(Cliente)),
        lambda s: s.delete(s.get(Cliente, 1)),
        lambda s: setattr(s.get(Cliente, 1), "nome", "z"),
    ],
)
def test_updates_and_deletes_count(engine, names, write):
    """Changed and deleted rows are dropped like added ones."""
    with Session(engine) as session:
        assert names(session) == ["ana"]
        write(session)
        session.commit()
        assert names(session) in ([], ["z"])


def test_savepoints(engine, names, asked):
    """What is rolled back to is forgotten; what is released counts with the commit around it."""
    engine_begin(engine)
    with Session(engine) as session:
        names(session)
        session.rollback()
        with session.begin_nested() as inner:
            session.add(Cliente(nome="bia"))
            session.flush()
            inner.rollback()
        session.commit()
        before = len(asked)
        assert names(session) == ["ana"]
        assert len(asked) == before
        session.rollback()
        with session.begin_nested():
            session.add(Cliente(nome="bia"))
        session.commit()
        assert names(session) == ["ana", "bia"]
        session.rollback()
        session.add(Cliente(nome="caio"))
        session.flush()
        with session.begin_nested() as inner:  # which begins with its first statement
            session.add(Outra(id=9))
            session.flush()
            inner.rollback()
        session.commit()
        assert names(session) == ["ana", "bia", "caio"]


def engine_begin(engine):
    """Have SQLite begin transactions when SQLAlchemy says so, as savepoints need it."""

    @event.listens_for(engine, "connect")
    def quiet(connection, _):
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")

    engine.dispose()


def test_an_old_snapshot_is_not_kept(tmp_path, engine, names):
    """A transaction that began before a commit neither fills the cache with what it sees, nor reads from it."""
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    engine_begin(engine)
    with Session(engine) as old, Session(engine) as new:
        assert len(old.scalars(select(Outra)).all()) == 0
        put(engine, "bia")
        assert names(old) == ["ana"]
        assert names(new) == ["ana", "bia"]
        assert names(old) == ["ana"]


def test_a_load_that_a_commit_overtook_is_not_kept(engine, names, manager):
    """Rows read before a commit and delivered after it are returned to who asked, and forgotten."""
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    overtaken = []

    @event.listens_for(engine, "after_cursor_execute")
    def overtake(connection, cursor, statement, *_):
        if statement.startswith("SELECT clientes.nome") and not overtaken:
            overtaken.append(cursor.connection)
            put(engine, "bia")

    with Session(engine) as session:
        names(session)
    assert overtaken
    with Session(engine) as session:
        assert names(session) == ["ana", "bia"]
    assert manager.stats().loads == 2


def test_cascades_count(engine, manager):
    """Rows that a foreign key deletes are dropped with those they belong to."""
    with Session(engine) as session:
        assert len(cached_query(manager, session, select(Conversa.id), ttl=60)) == 1
        session.rollback()
        session.connection().exec_driver_sql("PRAGMA foreign_keys=ON")
        session.execute(text("DELETE FROM clientes"))
        session.commit()
        assert cached_query(manager, session, select(Conversa.id), ttl=60) == ()


def test_tables_that_only_have_a_name_count(engine, manager):
    """Rows of a lightweight table() are dropped by commits that write it, through a join and a subquery too."""
    clientes = table("clientes", column("id", Integer), column("nome", String))
    newest = select(func.max(clientes.c.id)).scalar_subquery()
    with Session(engine) as session, Session(engine) as writer:
        statement = select(Conversa.id, clientes.c.nome).join(clientes, clientes.c.id == newest)
        assert cached_query(manager, session, statement, ttl=60) == ((1, "ana"),)
        session.rollback()
        writer.add(Cliente(id=2, nome="bia"))
        writer.commit()
        assert cached_query(manager, session, statement, ttl=60) == ((1, "bia"),)


def test_other_tables_do_not_matter(engine, names, asked):
    """A write to a table that is not read drops nothing."""
    with Session(engine) as session:
        names(session)
        session.add(Outra(id=1))
        session.commit()
        before = len(asked)
        assert names(session) == ["ana"]
        assert len(asked) == before


def test_core_transactions_and_autocommit_count(engine, names):
    """A connection without a session drops rows too, at once where every statement commits."""
    with Session(engine) as session:
        names(session)
        with engine.begin() as connection:
            connection.execute(insert(Cliente.__table__).values(nome="bia", extra={}))
        session.rollback()
        assert names(session) == ["ana", "bia"]
        session.rollback()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("DELETE FROM clientes WHERE nome = 'ana'")
            assert names(session) == ["bia"]


def test_a_transaction_older_than_the_watch_counts(tmp_path, manager):
    """A transaction that was open when the first query was cached may have written anything."""
    engine = create_engine(f"sqlite:///{tmp_path}/b.db")
    Base.metadata.create_all(engine)
    with Session(engine) as writer, Session(engine) as reader:
        writer.add(Cliente(nome="ana"))
        writer.flush()
        assert cached_query(manager, reader, select(Cliente.nome), ttl=60) == ()
        assert cached_query(manager, writer, select(Cliente.nome), ttl=60) == (("ana",),)
        reader.rollback()
        writer.commit()
        assert cached_query(manager, reader, select(Cliente.nome), ttl=60) == (("ana",),)
    engine.dispose()


@pytest.mark.parametrize(("end", "expected"), [("do_commit_twophase", 1), ("do_rollback_twophase", 0)])
def test_two_phases(engine, names, manager, end, expected):
    """What was prepared is dropped when the second phase commits, and not when it is rolled back."""
    with Session(engine) as session:
        names(session)
    with engine.connect() as connection:
        connection.execute(insert(Cliente.__table__).values(nome="bia", extra={}))
        writes = vars(engine.dialect)["isp_perf_writes"]
        done = []
        getattr(writes, end)(lambda *_, **__: done.append(True), connection, "xid", is_prepared=True)
        assert done
        assert manager.stats().invalidations == expected


def test_many_statements_are_understood(engine, manager):
    """Joins, sub-queries, EXISTS, unions and counts are dropped by each table they read."""
    statements = [
        select(Cliente.nome).join(Cliente.conversas),
        select(Cliente.nome).where(Cliente.conversas.any()),
        select(func.count()).select_from(select(Conversa).subquery()),
        union(select(Cliente.id), select(Conversa.id)),
        select(Cliente.id, select(func.count(Conversa.id)).scalar_subquery()),
    ]
    for number, statement in enumerate(statements, 10):
        with Session(engine) as session:
            first = cached_query(manager, session, statement, ttl=60)
            session.rollback()
            session.add(Cliente(id=number, nome=f"c{number}", conversas=[Conversa(id=number)]))
            session.commit()
            rows = cached_query(manager, session, statement, ttl=60)
            assert rows != first
            assert rows == tuple(map(tuple, session.execute(statement)))


def test_a_function_may_change_its_tables(engine, manager):
    """A table that only some arguments read counts for them."""

    @cached_query(manager, ttl=60)
    def rows(which):
        return select(Cliente.id) if which == "clientes" else select(Outra.id)

    with Session(engine) as session:
        assert (len(rows(session, "clientes")), len(rows(session, "outras"))) == (1, 0)
        assert len(rows(session, "outras")) == 0
        session.rollback()
        session.add(Outra(id=7))
        session.commit()
        assert len(rows(session, "outras")) == 1


def test_own_tags(engine, manager, asked):
    """With tags of the user's own, only these drop rows; text is allowed then."""

    @cached_query(manager, ttl=60, tags=("cliente:{number}",))
    def one(number):
        return select(Cliente.nome).where(text("id = (SELECT :n)").bindparams(n=number))

    with Session(engine) as session:
        one(session, 1)
        session.rollback()
        put(engine, "bia")
        before = len(asked)
        one(session, 1)
        assert len(asked) == before
        manager.sync.invalidate_tags("cliente:1")
        one(session, 1)
        assert len(asked) == before + 1


def test_rows_are_immutable_and_keep_their_types(engine, manager):
    """Lists come as tuples and dicts as read-only mappings, whoever else holds the row."""
    with Session(engine) as session:
        session.get(Cliente, 1).extra = {"a": [1, {"b": 2}]}
        session.commit()
        (row,) = cached_query(manager, session, select(Cliente), ttl=60)
        assert row.extra["a"] == (1, {"b": 2})
        with pytest.raises(TypeError):
            row.extra["a"] = 3


def test_rows_survive_the_remote_level():
    """What becomes bytes comes back equal, with its types; what cannot is named by its type."""
    from isp_perf.errors import CodecError
    from isp_perf.queries._rowcodec import RowCodec, rows_from

    moment = datetime(2026, 11, 23, 1, 2, 3, 4, tzinfo=UTC)
    values = (None, True, 1, 1.5, "é\ud800", b"\x00\xff", Decimal("1.10"), moment, moment.date(), moment.timetz())
    values += (UUID(int=5), [1, (2,)], {"a": {1, 2}, 3: "b"}, moment - datetime(2020, 1, 1, tzinfo=UTC))
    rows = rows_from([f"c{n}" for n in range(len(values))], [values])
    codec = RowCodec()
    back = codec.decode(codec.encode(rows))
    assert back == rows
    assert [type(each) for each in back[0]] == [type(each) for each in rows[0]]
    assert codec.decode(codec.encode(())) == ()
    with pytest.raises(CodecError, match="complex"):
        codec.encode(rows_from(["x"], [(1j,)]))


def test_locking_reads_are_never_cached(engine, manager, asked):
    """FOR UPDATE asks the database each time."""
    with Session(engine) as session:
        for _ in range(2):
            cached_query(manager, session, select(Cliente.id).with_for_update(), ttl=60)
    assert len(asked) == 2


BAD = {
    "no select": (lambda: update(Cliente).values(nome="x"), "select"),
    "text": (lambda: text("SELECT 1"), "select"),
    "hidden table": (lambda: select(Cliente.id).where(text("id IN (SELECT id FROM x)")), "tags"),
    "hidden in a column": (lambda: select(literal_column("(SELECT 1)")), "tags"),
    "options": (lambda: select(Cliente).options(selectinload(Cliente.conversas)), "loader options"),
    "now": (lambda: select(func.now(), Cliente.id), "volatile"),
    "random": (lambda: select(Cliente.id).order_by(func.random()), "random"),
    "the time of SQLite": (lambda: select(func.datetime("now"), Cliente.id), "datetime"),
    "temporary": (lambda: select(Table("t", MetaData(), Column("a", Integer), prefixes=["TEMPORARY"])), "temporary"),
}


@pytest.mark.parametrize(("make", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_cached_is_refused(engine, manager, make, said):
    """Statements whose rows would be wrong or useless raise an error that says why."""
    with Session(engine) as session, pytest.raises(ConfigurationError, match=said):
        cached_query(manager, session, make(), ttl=60)


def test_volatile_on_purpose(engine, manager, asked):
    """With ``volatile=True`` the moment is kept as well."""
    with Session(engine) as session:
        first, second = (cached_query(manager, session, select(func.random()), ttl=60, volatile=True) for _ in "ab")
    assert first == second


def test_arguments_are_checked(manager):
    """A ttl is positive; the parameters of a cached function are named, and none is called session."""
    with pytest.raises(ConfigurationError, match="ttl"):
        cached_query(manager, ttl=0)
    with pytest.raises(ConfigurationError, match="name each"):
        cached_query(manager, ttl=1)(lambda *ids: select(Cliente.id))
    with pytest.raises(ConfigurationError, match="session"):
        cached_query(manager, ttl=1)(lambda session: select(Cliente.id))


def test_text_that_writes_an_unknown_table(engine, names):
    """The table is named in an error before anything is written; declared tables are dropped at commit."""
    with Session(engine) as session:
        names(session)
        with pytest.raises(ConfigurationError, match="clientes_2026"):
            session.execute(text("INSERT INTO clientes_2026 VALUES (1)"))
        session.execute(text("CREATE VIEW v AS SELECT * FROM clientes"))
        session.execute(
            text("CREATE TRIGGER t INSTEAD OF DELETE ON v BEGIN DELETE FROM clientes WHERE id = OLD.id; END")
        )
        session.commit()
        assert names(session) == ["ana"]
        session.rollback()
        session.execute(text("DELETE FROM v").execution_options(isp_tables=("clientes",)))
        session.commit()
        assert names(session) == []


def test_databases_and_tenants_are_kept_apart(engine, tmp_path, manager, names):
    """Another database, and another tenant, has rows of its own."""
    other = create_engine(f"sqlite:///{tmp_path}/c.db")
    Base.metadata.create_all(other)
    memory = [create_engine("sqlite://") for _ in "ab"]
    for each in memory:
        Base.metadata.create_all(each)
    put(memory[0], "mem")
    with Session(engine) as one, Session(other) as two, Session(memory[0]) as three, Session(memory[1]) as four:
        assert [names(each) for each in (one, two, three, four)] == [["ana"], [], ["mem"], []]
    with Session(engine) as session:
        for tenant in ("a", "b"):
            cached_query(manager, session, select(Cliente.id), ttl=60, tenant=tenant)
        assert manager.stats().misses == 6
    for each in (other, *memory):
        each.dispose()


def test_listeners_that_may_add_conditions(engine, manager, asked):
    """A session whose statements may be changed goes past the cache, unless it says whose rows these are."""
    make = sessionmaker(engine)

    @event.listens_for(make, "do_orm_execute")
    def hide(state):
        state.statement = state.statement.where(Cliente.id > 5)

    def rows(session, tenant=None):
        return cached_query(manager, session, select(Cliente.id), ttl=60, tenant=tenant)

    with Session(engine) as session:
        assert len(rows(session)) == 1
    with make() as session:
        assert rows(session) == rows(session) == ()
        assert len(asked) == 3
        assert rows(session, "five") == rows(session, lambda _: "five") == ()
        assert len(asked) == 4


def test_sessions_of_every_kind(engine, names, asked):
    """Scoped sessions, sessions on a connection and sessions with peer batching are answered too."""
    handle = install(engine)
    scoped = scoped_session(sessionmaker(engine))
    with engine.connect() as connection, Session(connection) as bound, Session(engine) as session:
        assert names(scoped) == names(session) == names(bound) == ["ana"]
        session.rollback()
        bound.add(Cliente(nome="bia"))
        bound.flush()
        assert (names(bound), names(session)) == (["ana", "bia"], ["ana"])
        session.rollback()
        bound.commit()
        assert names(session) == ["ana", "bia"]
    scoped.remove()
    handle.remove()


def test_counting_goes_on(engine, names):
    """A hit is no statement; a miss is one, and writes are counted beside the watch of writes."""
    handle = install(engine, batching="off")
    with Session(engine) as session, count_queries() as queries:
        names(session)
        names(session)
        session.rollback()
        session.execute(insert(Outra).values(id=1))
        session.commit()
    assert queries.count == 2
    handle.remove()


def test_threads_share_one_load(engine, manager):
    """Threads that ask at once, each with its own session, send one statement between them."""
    started, count = threading.Barrier(4), []

    @cached_query(manager, ttl=60)
    def slow():
        return select(func.count(Cliente.id))

    @event.listens_for(engine, "before_cursor_execute")
    def note(connection, cursor, statement, *_):
        if "count" in statement:
            count.append(statement)
            threading.Event().wait(0.05)

    def ask():
        with Session(engine) as session:
            started.wait()
            assert slow(session)[0][0] == 1

    threads = [threading.Thread(target=ask) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(count) == 1


@pytest.fixture
async def aengine(engine, tmp_path):
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    yield engine
    await engine.dispose()


async def test_async_sessions(aengine, manager):
    """An AsyncSession gets an awaitable, of the same rows, dropped by the same commits."""

    @cached_query(manager, ttl=60)
    def names(*, first=1):
        return select(Cliente.nome).where(Cliente.id >= first).order_by(Cliente.id)

    async with AsyncSession(aengine) as session:
        assert await names(session, first=1) == await names(session) == (("ana",),)
        assert await cached_query(manager, session, select(Cliente.nome), ttl=60) == (("ana",),)
        assert manager.stats().loads == 2
        await session.rollback()
        session.add(Cliente(nome="bia"))
        assert len(await names(session)) == 2
        await session.rollback()
        assert await names(session) == (("ana",),)
        session.add(Cliente(nome="bia"))
        await session.commit()
        assert len(await names(session)) == len(await cached_query(manager, session, select(Cliente.nome), ttl=9)) == 2


async def test_a_lock_by_argument(aengine, manager):
    """Where an argument makes the statement lock its rows, an AsyncSession that had hits before asks the database."""

    @cached_query(manager, ttl=60)
    def names(lock):
        statement = select(Cliente.nome)
        return statement.with_for_update() if lock else statement

    handle = install(aengine, batching="off")
    async with AsyncSession(aengine) as session:
        for lock in (False, False, True, True):
            with count_queries() as queries:
                assert await names(session, lock) == (("ana",),)
            assert lock is False or queries.count == 1
            await session.rollback()
    handle.remove()


async def test_gathered_sessions_share_one_load(aengine, manager):
    """Tasks that ask at once, each with its own session, share a load; a cancelled leader harms nobody."""

    @cached_query(manager, ttl=60)
    def names():
        return select(Cliente.nome)

    async def ask():
        async with AsyncSession(aengine) as session:
            return await names(session)

    assert await asyncio.gather(*(ask() for _ in range(5))) == [(("ana",),)] * 5
    assert manager.stats().loads == 1
    await manager.invalidate_tags("table:clientes")
    tasks = [asyncio.create_task(ask()) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [(("ana",),)] * 4
