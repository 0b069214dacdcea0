"""`ReplicaRouter` with SQLite files in the place of servers: which statement goes where."""

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from isp_perf.errors import ConfigurationError
from isp_perf.queries import ReplicaRouter, bulk_insert, read_records


class Base(DeclarativeBase):
    pass


class Linha(Base):
    __tablename__ = "linhas"
    id: Mapped[int] = mapped_column(primary_key=True)
    onde: Mapped[str]


class Lida:
    def __init__(self, onde):
        self.onde = onde


def url(folder, name, driver=""):
    return f"sqlite{driver}:///{folder}/{name}.db"


@pytest.fixture
def engines(tmp_path):
    """A primary and two replicas, each with a row that tells its name."""
    engines = [create_engine(url(tmp_path, name)) for name in ("primary", "one", "two")]
    for engine, name in zip(engines, ("primary", "one", "two"), strict=True):
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO linhas VALUES (1, :name)"), {"name": name})
    yield engines
    for engine in engines:
        engine.dispose()


ONDE = select(Linha.onde).where(Linha.id == 1)


def test_reads_go_to_replicas_in_turn(engines):
    """A transaction that only reads stays on one replica; the next one goes to the next."""
    make = ReplicaRouter(engines[0], engines[1:]).sessions()
    seen = []
    for _ in range(4):
        with make() as session:
            seen.append({session.scalar(ONDE) for _ in range(3)})
            assert read_records(session, select(Linha), into=Lida)[0].onde in seen[-1]
    assert seen == [{"one"}, {"two"}, {"one"}, {"two"}]


@pytest.mark.parametrize("how", ["flush", "update", "text", "lock", "bulk"])
def test_a_write_moves_the_transaction_to_the_primary(engines, how):
    """With its first write the transaction goes on at the primary; a rollback leaves it there no longer."""
    with ReplicaRouter(engines[0], engines[1:]).sessions()() as session:
        assert session.scalar(ONDE) == "one"
        if how == "flush":
            session.add(Linha(id=2, onde="x"))
            session.flush()
        elif how == "update":
            session.execute(Linha.__table__.update().where(Linha.id == 9).values(onde="x"))
        elif how == "text":
            session.execute(text("SELECT 1"))
        elif how == "lock":
            session.execute(ONDE.with_for_update())
        else:
            bulk_insert(session, Linha, [{"id": 2, "onde": "x"}])
        assert session.scalar(ONDE) == "primary"
        session.rollback()
        assert session.scalar(ONDE) == "two"


def test_readers_see_what_they_wrote(engines):
    """After a commit that wrote, this session and this reader's sessions read from the primary; others do not."""
    make = ReplicaRouter(engines[0], engines[1:]).sessions()
    with make(info={"reader": "ana"}) as session:
        session.add(Linha(id=2, onde="x"))
        session.commit()
        assert session.get(Linha, 2).onde == "x"
        assert session.scalar(ONDE) == "primary"
    with make(info={"reader": "ana"}) as session:
        assert session.scalar(ONDE) == "primary"
    with make(info={"reader": "bia"}) as session:
        assert session.scalar(ONDE) in {"one", "two"}
    with make() as session:
        assert session.scalar(ONDE) in {"one", "two"}


def test_without_replicas_the_primary_serves_all(engines):
    """No replica is no error, and neither is a statement with a bind of its own."""
    with ReplicaRouter(engines[0]).sessions()() as session:
        assert session.scalar(ONDE) == "primary"
        assert session.scalar(ONDE, bind_arguments={"bind": engines[2]}) == "two"


async def test_async_engines(engines, tmp_path):
    """With async engines the sessions are AsyncSessions, routed the same way."""
    others = [create_async_engine(url(tmp_path, name, "+aiosqlite")) for name in ("primary", "one")]
    make = ReplicaRouter(others[0], others[1:]).sessions()
    async with make() as session:
        assert await session.scalar(ONDE) == "one"
        session.add(Linha(id=2, onde="x"))
        await session.commit()
        assert await session.scalar(ONDE) == "primary"
    for engine in others:
        await engine.dispose()


def test_arguments_are_checked(engines):
    """A time to wait is not negative, and a server is an engine."""
    with pytest.raises(ConfigurationError, match="wait"):
        ReplicaRouter(engines[0], wait=-1)
    with pytest.raises(ConfigurationError, match="engine"):
        ReplicaRouter("sqlite://")
