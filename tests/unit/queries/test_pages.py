"""`keyset_page`: what its cursors carry, and what it refuses."""

import datetime as dt
import enum
import uuid
from decimal import Decimal

import pytest
from sqlalchemy import Numeric, create_engine, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, joinedload, mapped_column, selectinload

from isp_perf.errors import ConfigurationError
from isp_perf.queries import count_queries, install, keyset_page


class Base(DeclarativeBase):
    pass


class Cor(enum.Enum):
    AZUL = 1
    VERDE = 2


class Linha(Base):
    __tablename__ = "linhas"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    dia: Mapped[dt.date]
    hora: Mapped[dt.datetime]
    relogio: Mapped[dt.time]
    valor: Mapped[Decimal] = mapped_column(Numeric(9, 2))
    dado: Mapped[bytes]
    cor: Mapped[Cor | None]
    real: Mapped[float]
    sim: Mapped[bool]


def linha(k):
    return Linha(
        id=uuid.UUID(int=k),
        dia=dt.date(2026, 1, 1 + k // 2),
        hora=dt.datetime.fromisoformat(f"2026-01-0{1 + k // 2}T10:00:00.5"),
        relogio=dt.time(k // 2),
        valor=Decimal(k // 2) / 4,
        dado=bytes([k // 2]),
        cor=(None, Cor.AZUL, Cor.VERDE)[k % 3],
        real=k / 7,
        sim=k % 2 == 0,
    )


@pytest.fixture
def linhas():
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(linha(k) for k in range(9))
        session.commit()
        yield session
    engine.dispose()


@pytest.mark.parametrize("name", ["dia", "hora", "relogio", "valor", "dado", "cor", "real", "sim", "id"])
def test_cursors_carry_every_usual_type(linhas, name):
    """Dates, times, numbers, bytes, enums and UUIDs go into a cursor and come back as they were."""
    for order in (getattr(Linha, name), getattr(Linha, name).desc()):
        statement = select(Linha).order_by(order)
        expected = list(linhas.scalars(statement.order_by(Linha.id)))
        found, cursor = [], None
        while not found or cursor is not None:
            page = keyset_page(linhas, statement, after=cursor, size=2)
            found += page.items
            cursor = page.next
        assert found == expected


def test_a_changed_cursor_is_refused(models, session):
    """Every single changed character, a cut and an addition are refused, and the message does not repeat the cursor."""
    statement = select(models.Mensagem).order_by(models.Mensagem.nota.desc())
    cursor = keyset_page(session, statement, size=3, secret="s").next
    assert len(keyset_page(session, statement, after=cursor, size=3, secret=b"s").items) == 3
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    changed = [cursor[:n] + letters[letters.index(c) - 1] + cursor[n + 1 :] for n, c in enumerate(cursor)]
    for bad in [*changed, cursor[:-1], cursor + "A", cursor + "=", "", "ç", "AAAA"]:
        with pytest.raises(ConfigurationError, match="cursor") as caught:
            keyset_page(session, statement, after=bad, size=3, secret="s")
        assert cursor not in str(caught.value)


def test_a_cursor_belongs_to_one_query_and_secret(models, session, monkeypatch):
    """Another order, another filter, another model or another secret makes a cursor worthless."""
    statement = select(models.Mensagem).order_by(models.Mensagem.nota)
    monkeypatch.setenv("ISP_PERF_SECRET", "of the environment")
    cursor = keyset_page(session, statement, size=3).next
    others = [
        select(models.Mensagem).order_by(models.Mensagem.nota.desc()),
        select(models.Mensagem).order_by(models.Mensagem.nota).where(models.Mensagem.id > 0),
        select(models.Conversa).order_by(models.Conversa.status),
    ]
    for other in others:
        with pytest.raises(ConfigurationError, match="cursor"):
            keyset_page(session, other, after=cursor, size=3)
    assert keyset_page(session, statement, after=cursor, size=3, secret="of the environment").items
    monkeypatch.delenv("ISP_PERF_SECRET")
    with pytest.raises(ConfigurationError, match="cursor"):
        keyset_page(session, statement, after=cursor, size=3)
    own = keyset_page(session, statement, size=3).next
    assert keyset_page(session, statement, after=own, size=3).items


def test_expressions_labels_and_loader_options(models, session, statements):
    """Rows may be ordered by expressions, and come with what loader options ask for, in the statements of these."""
    length = func.length(models.Mensagem.texto).label("tamanho")
    statement = select(models.Mensagem).order_by(length.desc(), models.Mensagem.nota.nulls_last())
    statement = statement.options(selectinload(models.Mensagem.conversa))
    seen, cursor = [], None
    while not seen or cursor is not None:
        page = keyset_page(session, statement, after=cursor, size=5)
        seen += [m.id for m in page.items]
        assert all(m.conversa is not None for m in page.items)
        cursor = page.next
    assert seen == [m.id for m in session.scalars(statement.order_by(models.Mensagem.id))]


def test_empty_pages_lead_back(models, session):
    """When the rows of a page are gone, its page is empty and still knows the way to the others."""
    statement = select(models.Mensagem).order_by(models.Mensagem.id.desc())
    first = keyset_page(session, statement, size=12)
    session.execute(text("DELETE FROM mensagens WHERE id <= 4"))
    empty = keyset_page(session, statement, after=first.next, size=12)
    assert (empty.items, empty.next) == ([], None)
    back = keyset_page(session, statement, after=empty.previous, size=12)
    assert [m.id for m in back.items] == [m.id for m in first.items]
    assert keyset_page(session, select(models.Rascunho)).items == []


def test_pages_in_a_loop_are_no_finding(engine, models):
    """A walk over pages is one statement each, and no N+1."""
    handle = install(engine)
    with Session(engine) as session, count_queries() as queries:
        cursor, turns = None, 0
        while not turns or cursor is not None:
            cursor = keyset_page(session, select(models.Mensagem), after=cursor, size=2).next
            turns += 1
    handle.remove()
    assert queries.count == turns == 8
    assert queries.findings == []


async def test_async_sessions_await_pages(models, tmp_path):
    """An AsyncSession gets an awaitable of the same page."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    async with engine.begin() as connection:
        await connection.run_sync(models.Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        session.add_all(models.Plano(nome=f"p{k}") for k in range(3))
        await session.flush()
        page = await keyset_page(session, select(models.Plano).order_by(models.Plano.nome.desc()), size=2)
        assert [p.nome for p in page.items] == ["p2", "p1"]
        page = await keyset_page(session, select(models.Plano).order_by(models.Plano.nome.desc()), after=page.next)
        assert [p.nome for p in page.items] == ["p0"]
    await engine.dispose()


def test_what_cannot_be_paged_is_refused(models, session):
    """Statements with limits, columns, text orders or repeated rows, and sizes below 1, are named."""
    conversas = select(models.Conversa)
    for statement, match in (
        (conversas.limit(3), "limit"),
        (conversas.offset(3), "limit"),
        (select(models.Conversa.id), "select\\(Model\\)"),
        (text("SELECT 1"), "select\\(Model\\)"),
        (conversas.order_by(text("id")), "order_by"),
        (conversas.options(joinedload(models.Conversa.mensagens)), "selectinload"),
        (conversas.join(models.Conversa.mensagens), "exists"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            keyset_page(session, statement)
    for size in (0, -1, True, 1.5):
        with pytest.raises(ConfigurationError, match="size"):
            keyset_page(session, conversas, size=size)
    with pytest.raises(ConfigurationError, match="secret"):
        keyset_page(session, conversas, secret="")
