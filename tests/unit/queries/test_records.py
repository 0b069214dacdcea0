"""`read_records`: rows read straight into classes of the user's."""

import datetime as dt
import enum
import gc
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pytest
from sqlalchemy import ForeignKey, Numeric, String, TypeDecorator, create_engine, event, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    mapped_column,
    relationship,
    selectinload,
    sessionmaker,
    with_loader_criteria,
)
from sqlalchemy.pool import StaticPool

from isp_perf.errors import ConfigurationError
from isp_perf.queries import count_queries, install, read_records


@dataclass
class Plano:
    nome: str


class Cliente(NamedTuple):
    id: int
    nome: str
    plano: Plano | None = None


class Mensagem(msgspec.Struct):
    id: int
    texto: str
    nota: int | None


class Etiqueta(msgspec.Struct, frozen=True):
    nome: str


@dataclass
class Conversa:
    id: int
    cliente: Cliente
    mensagens: list[Mensagem]
    status: str = ""
    etiquetas: frozenset[Etiqueta] = frozenset()
    anterior: "Conversa | None" = None
    seguintes: tuple["Resumo", ...] = ()


@dataclass(kw_only=True)
class Resumo:
    id: int
    extra: list[int] = field(default_factory=list)


def test_records_hold_what_the_objects_hold(models, session, statements):
    """Columns, to-one and to-many paths of any depth come out as in the ORM, in two statements and one per list."""
    expected = [
        Conversa(
            c.id,
            Cliente(c.cliente.id, c.cliente.nome, c.cliente.plano and Plano(c.cliente.plano.nome)),
            [Mensagem(m.id, m.texto, m.nota) for m in c.mensagens],
            c.status,
            frozenset(Etiqueta(e.nome) for e in c.etiquetas),
            None,
            tuple(Resumo(id=s.id) for s in c.seguintes),
        )
        for c in session.scalars(select(models.Conversa).order_by(models.Conversa.id))
    ]
    for _ in range(3):
        statements.take()
        paths = ("cliente.plano", models.Conversa.mensagens, "etiquetas", "seguintes")
        statement = select(models.Conversa).order_by(models.Conversa.id)
        assert read_records(session, statement, into=Conversa, preload=paths) == expected
        assert statements.take() == 4


def test_values_of_each_call_are_its_own(models, session):
    """A statement that is known already is run with the values of this call, IN lists of any length included."""

    class Only(NamedTuple):
        id: int

    for wanted in ([1, 2, 3], [4], [], [6, 2]):
        statement = select(models.Conversa).where(models.Conversa.id.in_(wanted)).order_by(models.Conversa.id)
        assert [r.id for r in read_records(session, statement, into=Only)] == sorted(wanted)
    for limit in (2, 4):
        statement = select(models.Conversa).order_by(models.Conversa.id).limit(limit)
        assert len(read_records(session, statement, into=Only)) == limit


def test_a_self_reference_to_the_parent(models, session):
    """A to-one within one table gets a statement of its own, and None where the key is NULL."""

    class Um(NamedTuple):
        id: int
        anterior: Resumo | None

    found = read_records(session, select(models.Conversa), into=Um, preload="anterior")
    assert {r.id: r.anterior and r.anterior.id for r in found} == {
        c.id: c.anterior and c.anterior.id for c in session.scalars(select(models.Conversa))
    }


def test_columns_without_a_model(models, session):
    """A select() of columns fills fields by the columns' names."""

    class Contagem(NamedTuple):
        status: str
        quantas: int

    statement = select(models.Conversa.status, func.count().label("quantas")).group_by(models.Conversa.status)
    assert read_records(session, statement, into=Contagem) == [Contagem("aberta", 6)]
    with pytest.raises(ConfigurationError, match="quantas"):
        read_records(session, select(models.Conversa.status), into=Contagem)


def test_aliases_joins_and_grouping(models, session):
    """Statements on an alias, with joins of their own, grouped or distinct, are read as they are."""
    alias = aliased(models.Conversa)
    plain = select(models.Conversa).join(models.Conversa.cliente).where(models.Cliente.nome == "c2")
    grouped = select(alias).join(alias.mensagens).group_by(alias.id).order_by(alias.id)
    distinct = select(alias).join(alias.mensagens).distinct().order_by(alias.id)

    class Um(NamedTuple):
        id: int
        cliente: Cliente

    for statement in (plain, grouped, distinct):
        expected = [(c.id, c.cliente.nome) for c in session.scalars(statement)]
        assert expected
        found = read_records(session, statement, into=Um, preload=["cliente"])
        assert [(r.id, r.cliente.nome) for r in found] == expected


def test_subclasses(models, session):
    """A joined subclass is read with the columns of both tables, and its own lists."""

    class Trecho(NamedTuple):
        id: int

    class Audio(NamedTuple):
        texto: str
        segundos: int
        trechos: list[Trecho]

    globals()["Trecho"] = Trecho
    found = read_records(session, select(models.Audio).order_by(models.Audio.id), into=Audio, preload="trechos")
    assert [(a.texto, a.segundos, len(a.trechos)) for a in found] == [("m1", 7, 2)] * len(found)
    assert found


class Dinheiro(TypeDecorator[Decimal]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else f"R${value}"

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else Decimal(value[2:])


class Cor(enum.Enum):
    AZUL = "azul"


class Base(DeclarativeBase):
    pass


class Fatura(Base):
    __tablename__ = "faturas"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    valor: Mapped[Decimal] = mapped_column(Dinheiro)
    taxa: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    cor: Mapped[Cor]
    dia: Mapped[dt.date]
    apagada: Mapped[bool] = mapped_column(default=False)
    itens: Mapped[list["Item"]] = relationship(order_by="Item.id")

    @hybrid_property
    def dobro(self) -> Any:
        return self.taxa * 2


class Item(Base):
    __tablename__ = "itens"
    id: Mapped[int] = mapped_column(primary_key=True)
    fatura_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("faturas.id"))
    apagada: Mapped[bool] = mapped_column(default=False)


class ItemLido(msgspec.Struct):
    id: int


class FaturaLida(msgspec.Struct):
    id: uuid.UUID
    valor: Decimal
    taxa: Decimal | None
    cor: Cor
    dia: dt.date
    itens: list[ItemLido] = []
    dobro: Decimal | None = None


@pytest.fixture
def faturas():
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        for k in range(3):
            session.add(
                Fatura(
                    id=uuid.UUID(int=k),
                    valor=Decimal(k),
                    taxa=Decimal("1.50") if k else None,
                    cor=Cor.AZUL,
                    dia=dt.date(2026, 1, 1 + k),
                    itens=[Item(apagada=n == 1) for n in range(k)],
                )
            )
        session.commit()
    yield engine
    engine.dispose()


def test_types_are_those_of_the_mapping(faturas):
    """Decorated types, enums, dates, UUID keys and hybrids come out as Python values, on each run."""
    with Session(faturas) as session:
        objects = session.scalars(select(Fatura).order_by(Fatura.id)).all()
        expected = [
            FaturaLida(f.id, f.valor, f.taxa, f.cor, f.dia, [ItemLido(i.id) for i in f.itens], f.taxa and f.taxa * 2)
            for f in objects
        ]
        for _ in range(3):
            statement = select(Fatura).where(Fatura.valor != Decimal(99)).order_by(Fatura.id)
            assert read_records(session, statement, into=FaturaLida, preload=(Fatura.itens,)) == expected
        assert [len(r.itens) for r in expected] == [0, 1, 2]


def test_criteria_hold_for_every_level(faturas):
    """Criteria of an option, or of a hook on the session, are applied as the ORM applies them."""
    criteria = with_loader_criteria(Item, Item.apagada.is_(False))
    with Session(faturas) as session:
        plain = select(Fatura).order_by(Fatura.id)
        read = {"into": FaturaLida, "preload": "itens"}
        assert [len(f.itens) for f in read_records(session, plain, **read)] == [0, 1, 2]
        assert [len(f.itens) for f in read_records(session, plain.options(criteria), **read)] == [0, 1, 1]

    factory = sessionmaker(faturas)
    event.listen(
        factory, "do_orm_execute", lambda state: setattr(state, "statement", state.statement.options(criteria))
    )
    with factory() as session:
        assert [len(f.itens) for f in read_records(session, plain, **read)] == [0, 1, 1]


def test_own_transaction_and_flush(models, session):
    """What the session has not yet written is flushed first and seen; a rollback takes it back."""

    class Um(NamedTuple):
        nome: str

    statement = select(models.Plano).order_by(models.Plano.id)
    for _ in range(2):
        assert read_records(session, statement, into=Um) == [Um("fibra")]
        session.add(models.Plano(nome="novo"))
        assert read_records(session, statement, into=Um) == [Um("fibra"), Um("novo")]
        session.rollback()


def test_errors_of_the_database_are_sqlalchemys(models, session):
    """A statement that fails on the short way raises what it raises elsewhere, and the session knows it."""

    class Um(NamedTuple):
        id: int

    statement = select(models.Ficha)
    for _ in range(2):
        read_records(session, statement, into=Um)
    session.execute(text("ALTER TABLE fichas RENAME TO gone"))
    with pytest.raises(OperationalError, match="fichas"):
        read_records(session, statement, into=Um)


def test_watched_engines_count_the_statements(engine, models):
    """Statements of records are seen by counting, and their lists are parts of one reading, never a loop."""
    handle = install(engine)
    with Session(engine) as session, count_queries() as queries:
        for _ in range(4):
            statement = select(models.Conversa).where(models.Conversa.id > 0)
            read_records(session, statement, into=Conversa, preload=("cliente", "mensagens"))
    handle.remove()
    assert queries.count == 8
    assert not [f for f in queries.findings if f.kind == "n_plus_one"]


def test_many_rows_pause_the_collector_and_start_it_again(models, session):
    """The cyclic collector runs again afterwards, and one that the user stopped stays stopped."""

    class Um(NamedTuple):
        id: int

    session.execute(
        text(
            "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 400)"
            " INSERT INTO etiquetas SELECT i, 'e' FROM n"
        )
    )
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            assert len(read_records(session, select(models.Etiqueta), into=Um)) == 394
            assert gc.isenabled() is enabled
        finally:
            gc.enable()


async def test_async_sessions_await_it(models, engine, tmp_path):
    """An AsyncSession gets an awaitable of the same records."""
    other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    async with other.begin() as connection:
        await connection.run_sync(models.Base.metadata.create_all)
    async with AsyncSession(other) as session:
        session.add(models.Cliente(nome="c", plano=models.Plano(nome="p")))
        await session.commit()
        for _ in range(2):
            found = await read_records(session, select(models.Cliente), into=Cliente, preload="plano")
            assert found == [Cliente(1, "c", Plano("p"))]
    await other.dispose()


class SemTipo(NamedTuple):
    id: int
    mensagens: list


class Errada(NamedTuple):
    id: int
    mensagens: Mensagem


class Solta(NamedTuple):
    statos: str


class ComLista(NamedTuple):
    id: int
    mensagens: list[Mensagem]


class Irresolvida(NamedTuple):
    id: int
    mensagens: "list[Inexistente]"  # noqa: F821


@pytest.mark.parametrize(
    ("into", "paths", "match"),
    [
        (Solta, (), "did you mean 'status'"),
        (ComLista, (), "add 'mensagens'"),
        (Etiqueta, ("cliente",), "no field|nome"),
        (Resumo, ("mensagens",), "Resumo has none"),
        (SemTipo, ("mensagens",), "list\\[Record\\]"),
        (Errada, ("mensagens",), "list\\[Record\\]"),
        (Irresolvida, ("mensagens",), "module level"),
        (ComLista, ("mensagem",), "did you mean 'mensagens'"),
        (3, (), "dataclass"),
        (int, (), "into"),
    ],
)
def test_what_does_not_fit_is_named(models, session, into, paths, match):
    """A field, path or annotation that fits nothing is refused, with what to write instead."""
    with pytest.raises(ConfigurationError, match=match):
        read_records(session, select(models.Conversa), into=into, preload=paths)


def test_statements_that_are_no_source(models, session):
    """Only a select() of one mapped class, or of columns without paths, can be read."""
    for statement in (select(models.Conversa, models.Cliente), text("SELECT 1"), select(models.Conversa.id)):
        with pytest.raises(ConfigurationError, match="select\\(Model\\)"):
            read_records(session, statement, into=Cliente, preload="plano")
    with pytest.raises(ConfigurationError, match="options"):
        read_records(session, select(models.Conversa).options(selectinload(models.Conversa.mensagens)), into=Resumo)
