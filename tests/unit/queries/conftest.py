"""A support service's models, one of each kind of relationship, with a counting SQLite engine."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from sqlalchemy import Column, Engine, ForeignKey, Index, Table, create_engine, event, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import StaticPool


class Base(DeclarativeBase):
    pass


etiquetas_da_conversa = Table(
    "etiquetas_da_conversa",
    Base.metadata,
    Column("conversa_id", ForeignKey("conversas.id"), primary_key=True),
    Column("etiqueta_id", ForeignKey("etiquetas.id"), primary_key=True),
)


class Plano(Base):
    __tablename__ = "planos"
    id: Mapped[int] = mapped_column(primary_key=True)
    nome: Mapped[str]


class Cliente(Base):
    __tablename__ = "clientes"
    id: Mapped[int] = mapped_column(primary_key=True)
    nome: Mapped[str]
    plano_id: Mapped[int | None] = mapped_column(ForeignKey("planos.id"))
    plano: Mapped[Plano | None] = relationship()
    ficha: Mapped["Ficha | None"] = relationship(back_populates="cliente")
    rascunho: Mapped["Rascunho | None"] = relationship()


class Ficha(Base):
    """One-to-one: the table says so."""

    __tablename__ = "fichas"
    id: Mapped[int] = mapped_column(primary_key=True)
    cliente_id: Mapped[int] = mapped_column(ForeignKey("clientes.id"), unique=True)
    cliente: Mapped[Cliente] = relationship(back_populates="ficha")


class Rascunho(Base):
    """One-to-one by hope only: nothing keeps a second row away."""

    __tablename__ = "rascunhos"
    id: Mapped[int] = mapped_column(primary_key=True)
    cliente_id: Mapped[int] = mapped_column(ForeignKey("clientes.id"), index=True)


class Etiqueta(Base):
    __tablename__ = "etiquetas"
    id: Mapped[int] = mapped_column(primary_key=True)
    nome: Mapped[str]


class Conversa(Base):
    __tablename__ = "conversas"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]
    resumo: Mapped[str] = mapped_column(deferred=True, default="")
    cliente_id: Mapped[int] = mapped_column(ForeignKey("clientes.id"))
    anterior_id: Mapped[int | None] = mapped_column(ForeignKey("conversas.id"), index=True)
    cliente: Mapped[Cliente] = relationship()
    anterior: Mapped["Conversa | None"] = relationship(remote_side="Conversa.id", back_populates="seguintes")
    seguintes: Mapped[list["Conversa"]] = relationship(back_populates="anterior", order_by="Conversa.id")
    mensagens: Mapped[list["Mensagem"]] = relationship(back_populates="conversa", order_by="Mensagem.id")
    recentes: Mapped[list["Mensagem"]] = relationship(
        viewonly=True, order_by="[Mensagem.nota.desc().nulls_last(), Mensagem.id]"
    )
    soltas: Mapped[list["Mensagem"]] = relationship(viewonly=True)
    etiquetas: Mapped[list[Etiqueta]] = relationship(secondary=etiquetas_da_conversa, order_by=Etiqueta.id)
    notas: Mapped[list["Nota"]] = relationship(cascade="all, delete-orphan", order_by="Nota.id")
    fluxo: Mapped[list["Mensagem"]] = relationship(lazy="write_only", viewonly=True)


class Mensagem(Base):
    __tablename__ = "mensagens"
    __table_args__ = (
        Index("ix_mensagens_conversa", "conversa_id", "id"),
        Index("ix_mensagens_nota", "conversa_id", "nota", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    texto: Mapped[str]
    nota: Mapped[int | None]
    conversa_id: Mapped[int] = mapped_column(ForeignKey("conversas.id"))
    tipo: Mapped[str]
    conversa: Mapped[Conversa] = relationship(back_populates="mensagens")
    __mapper_args__ = {"polymorphic_on": "tipo", "polymorphic_identity": "texto"}


class Audio(Mensagem):
    __tablename__ = "audios"
    id: Mapped[int] = mapped_column(ForeignKey("mensagens.id"), primary_key=True)
    segundos: Mapped[int]
    trechos: Mapped[list["Trecho"]] = relationship(order_by="Trecho.id")
    __mapper_args__ = {"polymorphic_identity": "audio"}


class Trecho(Base):
    __tablename__ = "trechos"
    id: Mapped[int] = mapped_column(primary_key=True)
    audio_id: Mapped[int] = mapped_column(ForeignKey("audios.id"), index=True)


class Nota(Base):
    __tablename__ = "notas"
    id: Mapped[int] = mapped_column(primary_key=True)
    conversa_id: Mapped[int] = mapped_column(ForeignKey("conversas.id"))


MODELS = SimpleNamespace(
    Base=Base,
    Plano=Plano,
    Cliente=Cliente,
    Ficha=Ficha,
    Rascunho=Rascunho,
    Etiqueta=Etiqueta,
    Conversa=Conversa,
    Mensagem=Mensagem,
    Audio=Audio,
    Trecho=Trecho,
    Nota=Nota,
    etiquetas_da_conversa=etiquetas_da_conversa,
)


class Statements:
    """Every statement the engine was asked for, in order."""

    def __init__(self, engine: Engine) -> None:
        self.texts: list[str] = []
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, connection, cursor, statement, parameters, context, executemany):
        self.texts.append(statement)

    def take(self) -> int:
        """Return how many there were since the last call."""
        count = len(self.texts)
        self.texts.clear()
        return count


def fill(engine: Engine) -> None:
    """Write six conversations: dangling and missing keys, ties and NULLs in the order, empty lists."""
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Plano), [{"id": 1, "nome": "fibra"}])
        connection.execute(
            insert(Cliente), [{"id": i, "nome": f"c{i}", "plano_id": 1 if i % 2 else None} for i in range(1, 5)]
        )
        connection.execute(insert(Ficha), [{"id": 1, "cliente_id": 1}, {"id": 2, "cliente_id": 3}])
        connection.execute(insert(Etiqueta), [{"id": i, "nome": f"e{i}"} for i in (1, 2, 3)])
        connection.execute(
            insert(Conversa),
            [
                {"id": i, "status": "aberta", "cliente_id": 1 + i % 4, "anterior_id": i - 1 if i % 3 else None}
                for i in range(1, 7)
            ],
        )
        notes = [5, None, 5, 3, None, 9, 3]
        connection.execute(
            insert(Mensagem.__table__),
            [
                {"texto": f"m{k}", "nota": note, "conversa_id": c, "tipo": "audio" if k == 1 else "texto"}
                for c in (1, 2, 4)
                for k, note in enumerate(notes[: 7 if c < 4 else 2])
            ],
        )
        connection.exec_driver_sql("INSERT INTO audios SELECT id, 7 FROM mensagens WHERE tipo = 'audio'")
        connection.exec_driver_sql(
            "INSERT INTO trechos (audio_id) SELECT id FROM audios UNION ALL SELECT id FROM audios"
        )
        connection.execute(
            insert(etiquetas_da_conversa),
            [{"conversa_id": c, "etiqueta_id": e} for c, e in ((1, 1), (1, 2), (2, 1), (5, 3))],
        )


@pytest.fixture
def models() -> SimpleNamespace:
    """The mapped classes."""
    return MODELS


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A filled database in memory, one connection for all threads."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    fill(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture
def statements(engine: Engine) -> Statements:
    return Statements(engine)
