"""`suggest_indexes` on SQLite: what is advised, and what is not."""

import gc

import pytest
from sqlalchemy import ForeignKey, Index, create_engine, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.schema import CreateTable

from isp_perf.errors import ConfigurationError
from isp_perf.queries import install, suggest_indexes
from isp_perf.queries._watch import WATCHES


class Base(DeclarativeBase):
    pass


class Conversa(Base):
    __tablename__ = "conversas"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]
    criada: Mapped[int]
    nota: Mapped[int | None]
    codigo: Mapped[str] = mapped_column(unique=True)


class Mensagem(Base):
    __tablename__ = "mensagens"
    __table_args__ = (Index("ix_a", "autor"), Index("ix_b", "autor", "lida"))
    id: Mapped[int] = mapped_column(primary_key=True)
    conversa_id: Mapped[int] = mapped_column(ForeignKey("conversas.id"))
    autor: Mapped[str]
    lida: Mapped[int]


@pytest.fixture
def session():
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    handle = install(engine, batching="off")
    with Session(engine) as session:
        yield session
    handle.remove()
    engine.dispose()


LIST = select(Conversa).where(Conversa.status == "aberta").order_by(Conversa.criada.desc()).limit(20)


def test_equality_then_order_is_tried_and_taken_back(session):
    """A list with a limit gets one index over both columns, which the planner used and which is gone again."""
    session.scalars(LIST).all()
    session.scalars(select(Conversa).where(Conversa.status == "x")).all()
    (advice,) = suggest_indexes(session, scratch=True)
    assert advice.ddl == "CREATE INDEX ix_conversas_status_criada ON conversas (status, criada)"
    assert advice.alembic == "op.create_index('ix_conversas_status_criada', 'conversas', ['status', 'criada'])"
    assert (advice.verified, advice.reason, len(advice.statements)) == (True, "missing", 2)
    assert "x" not in advice.statements[1].split()
    assert inspect(session.connection()).get_indexes("conversas") == []


@pytest.mark.parametrize("scratch", [False, True])
def test_what_an_index_serves_is_not_advised(session, scratch):
    """Primary keys, unique columns, prefixes of indexes, backwards order and advice that was followed ask for none."""
    session.get(Conversa, 1)
    session.scalars(select(Conversa).where(Conversa.codigo == "a", Conversa.nota > 1)).all()
    session.scalars(select(Conversa).order_by(Conversa.id.desc()).limit(3)).all()
    session.scalars(select(Mensagem).where(Mensagem.autor == "a").order_by(Mensagem.lida.desc()).limit(3)).all()
    assert [each.reason for each in suggest_indexes(session, scratch=scratch)] == ["duplicate"]
    session.scalars(LIST).all()
    followed = suggest_indexes(session, scratch=scratch)[0]
    session.connection().exec_driver_sql(followed.ddl)
    assert [each.reason for each in suggest_indexes(session, scratch=scratch)] == ["duplicate"]


def test_an_index_that_begins_as_another_goes_is_a_duplicate(session):
    """The shorter of two indexes is reported with the text that drops it."""
    session.scalars(select(Mensagem.id)).all()
    (advice,) = suggest_indexes(session)
    assert (advice.ddl, advice.reason) == ("DROP INDEX ix_a", "duplicate")
    assert advice.alembic == "op.drop_index('ix_a', table_name='mensagens')"


def test_joins_ranges_and_partial_indexes(session):
    """Foreign keys of joins, ranges after equalities and conditions on NULL each shape an index."""
    session.scalars(select(Mensagem).join(Conversa).where(Conversa.id == 3)).all()
    session.scalars(select(Conversa).where(Conversa.status == "a", Conversa.criada > 7)).all()
    session.scalars(select(Conversa).where(Conversa.codigo.in_(["a", "b"]), Conversa.nota.is_(None))).all()
    session.scalars(select(Conversa).where(Conversa.criada == 7, Conversa.nota.is_(None))).all()
    made = {each.ddl for each in suggest_indexes(session, scratch=True) if each.reason == "missing"}
    assert made == {
        "CREATE INDEX ix_mensagens_conversa_id ON mensagens (conversa_id)",
        "CREATE INDEX ix_conversas_status_criada ON conversas (status, criada)",
        "CREATE INDEX ix_conversas_criada_part ON conversas (criada) WHERE nota IS NULL",
    }


def test_without_scratch_nothing_is_verified(session):
    """The best guess is named, no index is made, and the advice says that it was not tried."""
    session.scalars(LIST).all()
    (advice,) = suggest_indexes(session)
    assert (advice.verified, advice.cost_after) == (False, None)
    assert "status, criada" in advice.ddl


async def test_an_async_session_is_awaited():
    """The same advice comes from an AsyncSession, and an engine that is not watched is refused."""
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        with pytest.raises(ConfigurationError, match="install"):
            await suggest_indexes(session)
        handle = install(engine, batching="off")
        (await session.scalars(LIST)).all()
        (advice,) = await suggest_indexes(session, scratch=True)
        assert advice.verified
    handle.remove()
    await engine.dispose()


def test_what_was_seen_is_kept_without_values(session):
    """Of each statement its text and the names it asks an index for are kept, nothing that was bound; and no DDL."""
    session.scalars(LIST.where(Conversa.codigo == "a secret")).all()
    session.execute(CreateTable(Conversa.__table__, if_not_exists=True))
    (watch,) = (watch for watch in WATCHES if watch.engine is session.get_bind())
    ((sent, needs),) = watch.observed.values()
    assert "conversas.codigo = ?" in sent
    assert [(need.table, need.equal) for need in needs] == [((None, "conversas"), ("status", "codigo"))]
    assert "secret" not in repr(watch.observed)
    assert {type(each) for each in gc.get_referents(needs[0])} <= {tuple, str, bool, type(None), type}
