"""Peer batching against plain lazy loading: any objects, any order of access, any changes in between."""

import asyncio
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    Table,
    and_,
    create_engine,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.inspection import inspect
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    attribute_keyed_dict,
    column_property,
    defer,
    foreign,
    mapped_column,
    relationship,
    remote,
    selectinload,
    sessionmaker,
    with_loader_criteria,
)
from sqlalchemy.pool import NullPool, StaticPool

from isp_perf.queries import install

TIMES = int(os.environ.get("TEST_QUERY_TIMES", "1"))  # the soak session tries more


class Base(DeclarativeBase):
    pass


tagged = Table(
    "tagged",
    Base.metadata,
    Column("no_id", ForeignKey("nos.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
    Column("posicao", Integer),
)
loose = Table("loose", Base.metadata, Column("no_id", ForeignKey("nos.id")), Column("tag_id", ForeignKey("tags.id")))


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    nome: Mapped[str]
    nos: Mapped[list["No"]] = relationship(secondary=tagged, viewonly=True, order_by="No.id")


class No(Base):
    """A parent of every kind of relationship; polymorphic."""

    __tablename__ = "nos"
    id: Mapped[int] = mapped_column(primary_key=True)
    tipo: Mapped[str]
    nome: Mapped[str]
    grande: Mapped[str] = mapped_column(deferred=True, default="g")
    acima_id: Mapped[int | None] = mapped_column(ForeignKey("nos.id"))
    dono_a: Mapped[int | None]
    dono_b: Mapped[int | None]
    acima: Mapped["No | None"] = relationship(back_populates="abaixo", remote_side="No.id", foreign_keys=[acima_id])
    abaixo: Mapped[list["No"]] = relationship(back_populates="acima", order_by="No.id", foreign_keys=[acima_id])
    dono: Mapped["Dono | None"] = relationship(back_populates="nos")
    itens: Mapped[list["Item"]] = relationship(back_populates="no", order_by="Item.id", cascade="all, delete-orphan")
    abertos: Mapped[list["Item"]] = relationship(
        primaryjoin=lambda: and_(No.id == foreign(Item.no_id), Item.peso > 1),
        order_by="Item.peso, Item.id",
        viewonly=True,
    )
    por_nome: Mapped[dict[int, "Item"]] = relationship(collection_class=attribute_keyed_dict("id"), viewonly=True)
    conjunto: Mapped[set["Item"]] = relationship(viewonly=True)
    tags: Mapped[list[Tag]] = relationship(secondary=tagged, order_by=[tagged.c.posicao, Tag.id])
    soltas: Mapped[list[Tag]] = relationship(secondary=loose, order_by=Tag.id, viewonly=True)
    ficha: Mapped["Ficha | None"] = relationship(back_populates="no")
    xara: Mapped[list["No"]] = relationship(
        primaryjoin=lambda: remote(foreign(No.nome)) == No.nome, order_by="No.id", viewonly=True
    )
    __mapper_args__ = {"polymorphic_on": "tipo", "polymorphic_identity": "no"}
    __table_args__ = (ForeignKeyConstraint(["dono_a", "dono_b"], ["donos.a", "donos.b"]),)


class Folha(No):
    __tablename__ = "folhas"
    id: Mapped[int] = mapped_column(ForeignKey("nos.id"), primary_key=True)
    cor: Mapped[str]
    marcas: Mapped[list["Marca"]] = relationship(order_by="Marca.id")
    __mapper_args__ = {"polymorphic_identity": "folha"}


class Marca(Base):
    __tablename__ = "marcas"
    id: Mapped[int] = mapped_column(primary_key=True)
    folha_id: Mapped[int | None] = mapped_column(ForeignKey("folhas.id"))


class Dono(Base):
    __tablename__ = "donos"
    a: Mapped[int] = mapped_column(primary_key=True)
    b: Mapped[int] = mapped_column(primary_key=True)
    nos: Mapped[list[No]] = relationship(back_populates="dono", order_by=No.id)


class Ficha(Base):
    __tablename__ = "fichas"
    id: Mapped[int] = mapped_column(primary_key=True)
    no_id: Mapped[int | None] = mapped_column(ForeignKey("nos.id"), unique=True)
    no: Mapped[No | None] = relationship(back_populates="ficha")


class Item(Base):
    __tablename__ = "itens"
    id: Mapped[int] = mapped_column(primary_key=True)
    peso: Mapped[int]
    no_id: Mapped[int | None] = mapped_column(ForeignKey("nos.id"))
    no: Mapped[No | None] = relationship(back_populates="itens")


numbered = select(Item, func.row_number().over(partition_by=Item.no_id, order_by=Item.id.desc()).label("n")).subquery()
Last = aliased(Item, numbered)
No.ultimos = relationship(
    Last, primaryjoin=lambda: and_(No.id == Last.no_id, numbered.c.n <= 2), order_by=Last.id, viewonly=True
)
No.quantos = column_property(
    select(func.count(Item.id)).where(Item.no_id == No.id).correlate_except(Item).scalar_subquery(), deferred=True
)

NAMES = (
    "nome",
    "grande",
    "quantos",
    "acima",
    "abaixo",
    "dono",
    "itens",
    "abertos",
    "por_nome",
    "conjunto",
    "tags",
    "soltas",
    "ficha",
    "xara",
    "ultimos",
    "cor",
    "marcas",
    "no",
    "nos",
    "peso",
    "id",
    "acima_id",
    "tipo",
)
small = st.integers(1, 6)
maybe = st.none() | small
rows = st.fixed_dictionaries(
    {
        "nos": st.lists(
            st.tuples(st.booleans(), st.sampled_from("xy"), maybe, st.integers(0, 2)), min_size=2, max_size=6
        ),
        "itens": st.lists(st.tuples(maybe, st.integers(0, 3)), max_size=10),
        "tagged": st.sets(st.tuples(small, small), max_size=8),
        "loose": st.lists(st.tuples(small, small), max_size=6),
        "fichas": st.sets(small, max_size=4),
        "marcas": st.lists(small, max_size=5),
    }
)
index = st.integers(0, 30)
step = st.one_of(
    st.tuples(st.just("read"), index, st.sampled_from(NAMES)),
    st.tuples(st.just("read"), index, st.sampled_from(NAMES)),
    st.tuples(st.just("walk"), st.sampled_from(NAMES)),
    st.tuples(st.just("query"), st.integers(0, 6)),
    st.tuples(st.just("expire"), index),
    st.tuples(st.just("commit")),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("delete"), index),
    st.tuples(st.just("sql"), st.integers(0, 3), small),
    st.tuples(st.just("append"), index, small),
    st.tuples(st.just("move"), index, maybe),
    st.tuples(st.just("refresh"), index),
)
QUERIES = (
    select(No).order_by(No.id),
    select(Item).order_by(Item.id),
    select(No).order_by(No.id).options(selectinload(No.itens)),
    select(Folha).order_by(Folha.id),
    select(No).order_by(No.id).options(defer(No.nome)),
    select(No).order_by(No.id).options(with_loader_criteria(Item, Item.peso > 0)),
    select(Dono).order_by(Dono.a, Dono.b),
)


def database(data: dict[str, Any]) -> Any:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        fill(connection, data)
    return engine


def fill(connection: Any, data: dict[str, Any]) -> None:
    Base.metadata.create_all(connection)
    count = len(data["nos"])
    tables = Base.metadata.tables

    def among(number):
        return None if number is None else 1 + number % count

    pairs = sorted({(among(no), tag) for no, tag in data["tagged"]})
    content: dict[str, list[dict[str, Any]]] = {
        "donos": [{"a": a, "b": 1} for a in (1, 2)],
        "tags": [{"id": k, "nome": f"t{k}"} for k in range(1, 7)],
        "nos": [
            {
                "id": k,
                "tipo": "folha" if leaf else "no",
                "nome": name,
                "grande": "g",
                "acima_id": above if (above := among(up)) and above < k else None,  # no circles: they cannot be flushed
                "dono_a": owner or None,
                "dono_b": 1 if owner else None,
            }
            for k, (leaf, name, up, owner) in enumerate(data["nos"], 1)
        ],
        "folhas": [{"id": k, "cor": "c"} for k, row in enumerate(data["nos"], 1) if row[0]],
        "itens": [{"id": k, "no_id": among(no), "peso": peso} for k, (no, peso) in enumerate(data["itens"], 1)],
        "tagged": [{"no_id": no, "tag_id": tag, "posicao": 7 - tag} for no, tag in pairs],
        "loose": [{"no_id": among(no), "tag_id": tag} for no, tag in data["loose"]],
        "fichas": [{"id": k, "no_id": no} for k, no in enumerate(sorted({among(n) for n in data["fichas"]}), 1)],
    }
    leaves = [row["id"] for row in content["folhas"]]
    content["marcas"] = [
        {"id": k, "folha_id": leaves[n % len(leaves)]} for k, n in enumerate(data["marcas"], 1) if leaves
    ]
    for name, values in content.items():
        if values:
            connection.execute(insert(tables[name]), values)


def told(value: Any) -> Any:
    """Return a value as plain data: objects by class and key, collections by what they hold."""
    if isinstance(value, dict):
        return {key: told(item) for key, item in value.items()}
    if isinstance(value, set):
        return sorted(map(told, value), key=repr)
    if isinstance(value, list):
        return [told(item) for item in value]
    state = inspect(value, raiseerr=False) if isinstance(value, Base) else None
    return value if state is None else (type(value).__name__, state.identity)


def replay(engine: Any, steps: list[Any], *, batched: bool) -> tuple[list[Any], int]:
    """Run the steps on a new session and return everything that was seen, and how many statements it took."""
    factory = sessionmaker(engine)
    handle = install(factory, batching="peers" if batched else "off")
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *call: sent.append(call[2]))
    with factory() as session:
        seen = follow(session, steps)
    handle.remove()
    engine.dispose()
    return seen, len(sent)


def follow(session: Any, steps: list[Any]) -> list[Any]:
    """Run the steps and return everything that was seen."""
    seen: list[Any] = []
    objects = list(session.scalars(QUERIES[0]))
    for kind, *details in steps:
        try:
            seen.append((kind, perform(session, objects, kind, details)))
        except SQLAlchemyError as error:
            seen.append((kind, type(error).__name__))
            session.rollback()
    return seen


async def replay_async(url: str, data: dict[str, Any], steps: list[Any], *, batched: bool) -> tuple[list[Any], int]:
    """Do the same through the asyncio layer, on a database that is emptied first."""
    engine = create_async_engine(url, poolclass=StaticPool if "sqlite" in url else NullPool)
    factory = async_sessionmaker(engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(fill, data)
    handle = install(factory, batching="peers" if batched else "off")
    sent: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *call: sent.append(call[2]))
    async with factory() as session:
        seen = await session.run_sync(follow, steps)
    handle.remove()
    await engine.dispose()
    return seen, len(sent)


def unordered(seen: Any) -> Any:
    """Sort every list: the order of one that no order was asked for is PostgreSQL's affair."""
    if isinstance(seen, list):
        return sorted(map(unordered, seen), key=repr)
    if isinstance(seen, dict):
        return {key: unordered(value) for key, value in seen.items()}
    return tuple(map(unordered, seen)) if isinstance(seen, tuple) else seen


def perform(session: Any, objects: list[Any], kind: str, details: list[Any]) -> Any:
    """Do one step. Changes are made to a session that has nothing loaded, as after a commit.

    Peers are loaded together, so what changes between two first touches is seen by the second one only if nothing was
    loaded yet; that is the nature of loading early, and no difference to look for.
    """
    if kind in {"append", "move", "delete", "sql"}:
        session.flush()
        session.expire_all()
    chosen = objects[details[0] % len(objects)] if kind not in {"walk", "query", "commit", "rollback", "sql"} else None
    if kind == "read":
        return told(getattr(chosen, details[1], None))
    if kind == "walk":
        return [told(getattr(item, details[0], None)) for item in objects]
    if kind == "query":
        found = list(session.scalars(QUERIES[details[0]]))
        objects.extend(item for item in found if item not in objects)
        return told(found)
    if kind == "sql":
        table, number = ("itens", "fichas", "tagged", "loose")[details[0]], details[1]
        column = "id" if table in {"itens", "fichas"} else "tag_id"
        return session.connection().exec_driver_sql(f"DELETE FROM {table} WHERE {column} = {number}").rowcount
    return change(session, chosen, kind, details)


def change(session: Any, chosen: Any, kind: str, details: list[Any]) -> Any:
    if kind in {"commit", "rollback"}:
        return getattr(session, kind)()
    if kind in {"expire", "refresh"}:
        return getattr(session, kind)(chosen)
    if kind == "delete":
        session.delete(chosen)
        session.flush()  # at once, because when a session flushes by itself depends on what it still has to load
    if kind == "append" and isinstance(chosen, No):
        session.add(Item(peso=details[1], no=chosen))
    if kind == "move" and isinstance(chosen, Item):
        chosen.no_id = details[1]
    return None


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of deleting what is deleted, in both runs
@settings(max_examples=40 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=rows, steps=st.lists(step, max_size=15))
def test_peers_see_what_lazy_loading_sees(data, steps):
    """Every value, object, order and error is that of plain lazy loading, in no more statements while objects live."""
    plain, lazily = replay(database(data), steps, batched=False)
    peers, batched = replay(database(data), steps, batched=True)
    assert peers == plain
    assert batched <= lazily or "delete" in {kind for kind, *_ in steps}


def compared(url: str, data: dict[str, Any], steps: list[Any]) -> None:
    plain, lazily = asyncio.run(replay_async(url, data, steps, batched=False))
    peers, batched = asyncio.run(replay_async(url, data, steps, batched=True))
    assert [unordered(item) for item in peers] == [unordered(item) for item in plain]
    assert batched <= lazily or "delete" in {kind for kind, *_ in steps}


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of deleting what is deleted, in both runs
@settings(max_examples=8 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=rows, steps=st.lists(step, max_size=12))
def test_peers_under_asyncio_see_what_lazy_loading_sees(data, steps):
    """The same holds for sessions of the asyncio layer."""
    compared("sqlite+aiosqlite://", data, steps)


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of deleting what is deleted, in both runs
@settings(max_examples=4 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=rows, steps=st.lists(step, min_size=4, max_size=12))
def test_peers_on_postgresql_see_what_lazy_loading_sees(postgres_url, data, steps):
    """The same holds on PostgreSQL, whose transactions end with the first error."""
    compared(postgres_url, data, steps)
