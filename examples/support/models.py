"""Tables of the support service, and the database they live in: SQLite, or PostgreSQL where DATABASE_URL names one."""

import os
from datetime import datetime
from pathlib import Path

from sqlalchemy import ForeignKey, Identity, Index, MetaData, event
from sqlalchemy.ext.asyncio import AsyncAttrs, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

FOLDER = Path(os.environ.get("ISP_PERF_EXAMPLE_DIR") or Path(__file__).parent / ".data").absolute()
URL = os.environ.get("DATABASE_URL") or f"sqlite+aiosqlite:///{FOLDER / 'support.db'}"
POSTGRES = URL.startswith("postgres")
if POSTGRES:
    URL = f"postgresql+asyncpg://{URL.partition('://')[2]}"


class Base(AsyncAttrs, DeclarativeBase):
    metadata = MetaData(schema="suporte" if POSTGRES else None)  # others may use the server too


class Cliente(Base):
    __tablename__ = "cliente"
    id: Mapped[int] = mapped_column(primary_key=True)
    nome: Mapped[str]
    telefone: Mapped[str] = mapped_column(unique=True)
    plano: Mapped[str]
    bairro: Mapped[str]
    conversas: Mapped[list["Conversa"]] = relationship(order_by="Conversa.id.desc()", back_populates="cliente")


class Atendente(Base):
    __tablename__ = "atendente"
    id: Mapped[int] = mapped_column(primary_key=True)
    nome: Mapped[str]
    equipe: Mapped[str]


class Conversa(Base):
    __tablename__ = "conversa"
    __table_args__ = (Index("ix_conversa_inbox", "atendente_id", "ultima_em"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    cliente_id: Mapped[int] = mapped_column(ForeignKey(Cliente.id), index=True)
    atendente_id: Mapped[int] = mapped_column(ForeignKey(Atendente.id))
    assunto: Mapped[str]
    situacao: Mapped[str]  # aberta, encerrada
    ultima_em: Mapped[datetime]
    cliente: Mapped[Cliente] = relationship(back_populates="conversas")
    atendente: Mapped[Atendente] = relationship()
    mensagens: Mapped[list["Mensagem"]] = relationship(order_by="Mensagem.id.desc()")


class Mensagem(Base):
    __tablename__ = "mensagem"
    __table_args__ = (Index("ix_mensagem_conversa", "conversa_id", "id"),)
    id: Mapped[int] = mapped_column(Identity(start=1_000_001), primary_key=True)  # below: loaded, from there: written
    conversa_id: Mapped[int] = mapped_column(ForeignKey(Conversa.id))
    autor: Mapped[str]  # cliente, atendente
    texto: Mapped[str]
    enviada_em: Mapped[datetime]
    entregue: Mapped[bool]


engine = create_async_engine(URL)
Session = async_sessionmaker(engine, expire_on_commit=False)
queries = {"sent": 0}  # statements this process has sent to the database


@event.listens_for(engine.sync_engine, "after_cursor_execute")
def _count(*_):
    queries["sent"] += 1
