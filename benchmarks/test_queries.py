"""Bars of `isp_perf.queries`: ratios within one run, interleaved rounds, medians.

Run with `python benchmarks/test_queries.py`.

Sizes: 5,000 conversations, 4,000 clients, 50 agents, 50,000 messages, on SQLite; with a URL as the argument
(`postgresql+psycopg://...`, a database that may be emptied) on PostgreSQL.
"""

import gc
import statistics
import sys
import tempfile
from time import perf_counter

import pytest
from sqlalchemy import ForeignKey, Index, create_engine, event, func, insert, literal, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload, sessionmaker

from isp_perf.queries import count_queries, install, preload

ROUNDS = 9


class Base(DeclarativeBase):
    pass


class Cliente(Base):
    __tablename__ = "clientes"
    id: Mapped[int] = mapped_column(primary_key=True)
    nome: Mapped[str]


class Atendente(Base):
    __tablename__ = "atendentes"
    id: Mapped[int] = mapped_column(primary_key=True)
    nome: Mapped[str]


class Conversa(Base):
    __tablename__ = "conversas"
    id: Mapped[int] = mapped_column(primary_key=True)
    cliente_id: Mapped[int] = mapped_column(ForeignKey("clientes.id"))
    atendente_id: Mapped[int] = mapped_column(ForeignKey("atendentes.id"))
    cliente: Mapped[Cliente] = relationship()
    atendente: Mapped[Atendente] = relationship()
    mensagens: Mapped[list["Mensagem"]] = relationship(order_by="Mensagem.id")
    todas: Mapped[list["Mensagem"]] = relationship(order_by="Mensagem.id", viewonly=True)


class Mensagem(Base):
    __tablename__ = "mensagens"
    __table_args__ = (Index("ix_mensagens", "conversa_id", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    texto: Mapped[str]
    conversa_id: Mapped[int] = mapped_column(ForeignKey("conversas.id"))


def filled(url):
    """Return an engine on a database with the data of the bars; the last 100 conversations have 500 messages each."""
    engine = create_engine(url)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Cliente), [{"id": k, "nome": f"c{k}"} for k in range(1, 4001)])
        connection.execute(insert(Atendente), [{"id": k, "nome": f"a{k}"} for k in range(1, 51)])
        rows = [{"id": k, "cliente_id": 1 + k * 7 % 4000, "atendente_id": 1 + k % 50} for k in range(1, 5101)]
        connection.execute(insert(Conversa), rows)
        messages = [{"texto": "x" * 40, "conversa_id": 1 + k % 5000} for k in range(50_000)]
        messages += [{"texto": "x" * 40, "conversa_id": 5001 + k % 100} for k in range(50_000)]
        connection.execute(insert(Mensagem), messages)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    return engine


def interleaved(**variants):
    """Return the median seconds of each variant, taken in turns within one process."""
    times = {name: [] for name in variants}
    for number in range(ROUNDS + 1):
        for name, variant in variants.items():
            gc.collect()
            started = perf_counter()
            variant()
            if number:
                times[name].append(perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def walk(session, statement):
    for conversa in session.scalars(statement):
        conversa.cliente.nome, conversa.atendente.nome, [m.texto for m in conversa.mensagens]


def bar(name, measured, limit):
    print(f"{name:<72} {measured:8.2f}   bar {limit}")


def preloading(engine):
    by_hand = [selectinload(getattr(Conversa, name)) for name in ("cliente", "atendente", "mensagens")]
    base = select(Conversa).where(Conversa.id <= 1000).order_by(Conversa.id)
    plan = preload(Conversa, "cliente", "atendente", "mensagens")

    def run(statement):
        with Session(engine) as session:
            walk(session, statement)

    times = interleaved(hand=lambda: run(base.options(*by_hand)), plan=lambda: run(base.options(*plan)))
    bar("preload / selectinload x3, 1,000 conversations", times["plan"] / times["hand"], "<= 0.80")


def limits(engine):
    some = select(Conversa).where(Conversa.id > 5000)
    plan = preload(Conversa, "todas", limit=-20)
    number = func.row_number().over(partition_by=Mensagem.conversa_id, order_by=Mensagem.id.desc()).label("n")
    numbered = select(Mensagem, number).where(Mensagem.conversa_id.in_(range(5001, 5101))).subquery()
    sent = []

    def note(*call):
        sent.append(call[2:4])

    event.listen(engine, "before_cursor_execute", note)
    with Session(engine) as session:
        _ = [c.todas for c in session.scalars(some.options(*plan))]
        limited = sent[-1]
        session.execute(select(numbered).where(numbered.c.n <= 20)).all()
        window = sent[-1]
        event.remove(engine, "before_cursor_execute", note)
        driver = session.connection().connection.driver_connection

        def run(statement):
            cursor = driver.cursor()
            cursor.execute(*statement)
            assert len(cursor.fetchall()) == 2000
            cursor.close()

        times = interleaved(plan=lambda: run(limited), window=lambda: run(window))
    bar("row_number / preload limit=-20, both as SQL, 100 parents of 500", times["window"] / times["plan"], ">= 15")


def peers(engine):
    base = select(Conversa).where(Conversa.id <= 1000).order_by(Conversa.id)
    options = [selectinload(getattr(Conversa, name)) for name in ("cliente", "atendente", "mensagens")]
    factory, plain = sessionmaker(engine), sessionmaker(engine)
    handle = install(factory)

    def run(make, statement):
        with make() as session:
            walk(session, statement)

    def no_need(make):
        with make() as session:
            for number in range(1, 301):
                session.scalars(base.where(Conversa.id == number)).all()

    eager = base.options(*options)
    times = interleaved(peers=lambda: run(factory, base), eager=lambda: run(plain, eager))
    bar("peers / selectinload x3, 1,000 conversations", times["peers"] / times["eager"], "<= 1.10")
    with count_queries() as queries:
        run(factory, base)
    bar("peers: statements for 3 relationships of 1,000 objects", queries.count, "4")
    times = interleaved(on=lambda: no_need(factory), off=lambda: no_need(plain))
    bar("hook on queries that need no batching", times["on"] / times["off"], "<= 1.03")
    handle.remove()


def detector():
    watched, plain = create_engine("sqlite://"), create_engine("sqlite://")
    handle = install(watched, batching="off")
    statement = select(literal(1))
    many = 3000

    def run(engine):
        with engine.connect() as connection:
            for _ in range(many):
                connection.execute(statement)

    def counted():
        with count_queries():
            run(watched)

    times = interleaved(plain=lambda: run(plain), idle=lambda: run(watched), counted=counted)
    for name in ("idle", "counted"):
        bar(f"detector, {name}: microseconds a statement", (times[name] - times["plain"]) / many * 1e6, "<= 2.5")
    handle.remove()


@pytest.mark.soak
def test_bars():
    """Print every bar beside its limit; nothing is asserted, because the machine may be busy."""
    main(None)


def main(url):
    with tempfile.TemporaryDirectory() as folder:
        engine = filled(url or f"sqlite:///{folder}/bars.db")
        for measure in (preloading, limits, peers):
            measure(engine)
        detector()
        engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
