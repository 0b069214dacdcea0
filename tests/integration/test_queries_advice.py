"""Index advice on PostgreSQL: what the planner says, by both drivers."""

import pytest
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from isp_perf.queries import install, suggest_indexes


class Base(DeclarativeBase):
    pass


class Conversa(Base):
    __tablename__ = "conversas"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]
    criada: Mapped[int]
    nota: Mapped[int | None]


FILL = text(
    "INSERT INTO conversas (id, status, criada, nota) "
    "SELECT n, 's' || n % 50, n, CASE WHEN n % 100 > 0 THEN n END FROM generate_series(1, 20000) n"
)
LIST = select(Conversa).where(Conversa.status == "s1").order_by(Conversa.criada.desc()).limit(20)


async def test_the_planner_confirms_on_asyncpg(postgres_url):
    """Costs before and after are the planner's, DESC lists get an index read backwards, and nothing is left behind."""
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(FILL)
        await connection.exec_driver_sql("ANALYZE conversas")
    handle = install(engine, batching="off")
    async with AsyncSession(engine) as session:
        (await session.scalars(LIST)).all()
        (guess,) = await suggest_indexes(session)
        assert (guess.verified, guess.cost_after) == (False, None)
        assert guess.cost_before > 100
        (advice,) = await suggest_indexes(session, scratch=True)
        assert advice.ddl == "CREATE INDEX ix_conversas_status_criada ON conversas (status, criada)"
        assert advice.verified
        assert advice.cost_after < advice.cost_before / 5
        assert advice.cost_before == guess.cost_before
        names = await session.run_sync(lambda plain: inspect(plain.connection()).get_indexes("conversas"))
        assert names == []
    handle.remove()
    await engine.dispose()


def test_partial_and_covering_indexes_and_what_nothing_needs(postgres_url):
    """On psycopg, NULL conditions and few columns shape indexes where cheaper; idle and doubled ones are reported."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    engine = create_engine(postgres_url.replace("+asyncpg", "+psycopg"))
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(FILL)
        connection.exec_driver_sql("CREATE INDEX idle ON conversas (nota, id)")
        connection.exec_driver_sql("CREATE INDEX doubled ON conversas (nota)")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CHECKPOINT")
        connection.exec_driver_sql("VACUUM ANALYZE conversas")  # INCLUDE pays where pages are known to be all visible
    handle = install(engine, batching="off")
    with Session(engine) as session:
        session.execute(select(Conversa.nota).where(Conversa.status == "s1", Conversa.id % 7 == 3)).all()
        session.scalars(select(Conversa).where(Conversa.criada > 19_000, Conversa.nota.is_(None)).limit(5)).all()
        found = {each.ddl: each for each in suggest_indexes(session, scratch=True)}
        assert found["CREATE INDEX ix_conversas_status_with_nota_id ON conversas (status) INCLUDE (nota, id)"].verified
        assert "CREATE INDEX ix_conversas_criada_part ON conversas (criada) WHERE nota IS NULL" in found
        assert found["DROP INDEX doubled"].reason == "duplicate"
        assert "DROP INDEX idle" not in found
        for _ in range(100):
            session.execute(text("SELECT count(status) FROM conversas WHERE criada < 0"))
        session.execute(text("SELECT pg_stat_force_next_flush()"))
        session.commit()
        found = {each.ddl: each for each in suggest_indexes(session)}
        assert found["DROP INDEX idle"].reason == "unused"
    handle.remove()
    engine.dispose()


class Versao(Base):
    __tablename__ = "versoes"
    id: Mapped[int] = mapped_column(primary_key=True)
    transacao: Mapped[int]


class Taxa(Base):
    __tablename__ = "taxa de 100%"
    id: Mapped[int] = mapped_column(primary_key=True)
    grupo: Mapped[int] = mapped_column("% do grupo")


@pytest.fixture
def plain(postgres_url):
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    engine = create_engine(postgres_url.replace("+asyncpg", "+psycopg"))
    Base.metadata.create_all(engine)
    handle = install(engine, batching="off")
    yield engine
    handle.remove()
    engine.dispose()


def test_an_index_that_cannot_be_made_is_left_out(plain, caplog):
    """A type that no index can order gets no advice but a line in the log, and the transaction goes on."""
    with Session(plain) as session:
        session.execute(text("ALTER TABLE versoes ALTER transacao TYPE xid USING transacao::text::xid"))
        session.execute(select(Versao.id).where(Versao.transacao == 7)).all()
        assert suggest_indexes(session, scratch=True) == []
        assert "an index could not be tried (UndefinedObject): CREATE INDEX ix_versoes_transacao" in caplog.text
        (guess,) = suggest_indexes(session)
        assert (guess.ddl, guess.verified) == ("CREATE INDEX ix_versoes_transacao ON versoes (transacao)", False)
        assert session.scalar(text("SELECT 1")) == 1


def test_a_percent_sign_in_a_name_stays_one(plain):
    """What is tried, and printed, is what a console takes, though the driver wants the sign doubled."""
    with Session(plain) as session:
        session.execute(text('INSERT INTO "taxa de 100%" SELECT n, n FROM generate_series(1, 20000) n'))
        session.execute(select(Taxa.id).where(Taxa.grupo == 7)).all()
        (advice,) = suggest_indexes(session, scratch=True)
        assert advice.ddl == 'CREATE INDEX "ix_taxa de 100%_% do grupo" ON "taxa de 100%" ("% do grupo")'
        assert advice.verified
        assert advice.alembic == "op.create_index('ix_taxa de 100%_% do grupo', 'taxa de 100%', ['% do grupo'])"
        session.connection().exec_driver_sql(advice.ddl, execution_options={"no_parameters": True})
        assert inspect(session.connection()).get_indexes("taxa de 100%")[0]["column_names"] == ["% do grupo"]
