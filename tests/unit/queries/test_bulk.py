"""`bulk_insert`, `bulk_upsert`, `bulk_update`, `bulk_delete` on SQLite, where they are executemany."""

import tracemalloc
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import pytest
from sqlalchemy import ForeignKey, UniqueConstraint, create_engine, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from isp_perf.errors import ConfigurationError
from isp_perf.queries import bulk_delete, bulk_insert, bulk_update, bulk_upsert, count_queries, install


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "itens"
    __table_args__ = (UniqueConstraint("loja", "codigo"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    loja: Mapped[int] = mapped_column(default=1)
    codigo: Mapped[str]
    preco: Mapped[int | None]
    estado: Mapped[str] = mapped_column(default=lambda: "novo", onupdate=lambda: "mudado")
    dobro: Mapped[int | None] = mapped_column(
        default=lambda context: (context.get_current_parameters().get("preco") or 0) * 2
    )
    criado: Mapped[str] = mapped_column(server_default="sempre")
    sql: Mapped[int] = mapped_column("sql_col", default=func.abs(-5), onupdate=func.abs(-6))


class Filho(Item):
    __tablename__ = "filhos"
    id: Mapped[int] = mapped_column(ForeignKey("itens.id"), primary_key=True)


@pytest.fixture
def session():
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


def stored(session):
    columns = (Item.id, Item.loja, Item.codigo, Item.preco, Item.estado, Item.dobro, Item.criado, Item.sql)
    return session.execute(select(*columns).order_by(Item.id)).all()


@dataclass
class Registro:
    codigo: str
    preco: int


class Tupla(NamedTuple):
    codigo: str
    preco: int


class Estrutura(msgspec.Struct):
    codigo: str
    preco: int


@pytest.mark.parametrize("size", [1, 3, 30])
def test_inserts_fill_defaults(session, size):
    """Python, SQL and server defaults apply to what a row does not name, whatever the number of rows."""
    result = bulk_insert(session, Item, [{"codigo": f"c{k}", "preco": k} for k in range(size)])
    assert (result.rowcount, result.inserted, result.updated, result.rows) == (size, size, 0, [])
    assert stored(session) == [(k + 1, 1, f"c{k}", k, "novo", 2 * k, "sempre", 5) for k in range(size)]


def test_rows_of_every_shape(session):
    """Mappings, objects, dataclasses, named tuples and structs may be mixed, each with its own set of attributes."""
    rows = [
        {"codigo": "a", "preco": 1},
        Item(codigo="b", preco=2, estado="x"),
        Registro("c", 3),
        Tupla("d", 4),
        Estrutura("e", 5),
        {"preco": None, "codigo": "f", "estado": None, "id": None},
    ]
    result = bulk_insert(session, Item, iter(rows), returning=(Item.codigo, "preco", "estado"))
    assert result.rows == [
        ("a", 1, "novo"),
        ("b", 2, "x"),
        ("c", 3, "novo"),
        ("d", 4, "novo"),
        ("e", 5, "novo"),
        ("f", None, "novo"),
    ]
    assert result.rows[0].codigo == "a"


def test_returning_is_in_input_order(session):
    """Rows come back in the order they were given, over all chunks."""
    codes = [f"c{k * 7919 % 1000:03}" for k in range(1000)]
    result = bulk_insert(session, Item, [{"codigo": code} for code in codes], returning="codigo", chunk=300)
    assert [row.codigo for row in result.rows] == codes


@pytest.mark.parametrize("size", [4, 40])
def test_upsert_adds_and_changes(session, size):
    """Rows that are there are changed, the others added, and the last one of a repeated key wins."""
    bulk_insert(session, Item, [{"codigo": f"c{k}", "preco": 0} for k in range(size // 2)])
    rows = [{"loja": 1, "codigo": f"c{k}", "preco": k} for k in range(size)] + [
        {"loja": 1, "codigo": "c0", "preco": 99}
    ]
    result = bulk_upsert(session, Item, rows, key=("loja", "codigo"), returning=("codigo", "preco", "estado"))
    assert (result.inserted, result.updated, result.rowcount) == (size - size // 2, size // 2, size)
    assert result.rows[0] == result.rows[-1] == ("c0", 99, "mudado")
    assert result.rows[size - 1] == (f"c{size - 1}", size - 1, "novo")
    assert [row.sql for row in stored(session)] == [6] * (size // 2) + [5] * (size - size // 2)


def test_upsert_of_keys_alone(session):
    """A row that names nothing but its key is added if it is not there, and left alone if it is."""
    result = bulk_upsert(session, Par, [{"a": 1, "b": 2}, {"a": 1, "b": 2}, {"a": 1, "b": 3}])
    assert (result.inserted, result.updated) == (2, 0)
    result = bulk_upsert(session, Par, [{"a": 1, "b": 2}])
    assert (result.inserted, result.updated) == (0, 0)
    assert session.scalar(select(func.count()).select_from(Par)) == 2


class Par(Base):
    __tablename__ = "pares"
    a: Mapped[int] = mapped_column(primary_key=True)
    b: Mapped[int] = mapped_column(primary_key=True)


@pytest.mark.parametrize("size", [2, 40])
def test_update_sets_what_rows_name(session, size):
    """Only what a row names is changed, and what every change sets; objects in the session are read again."""
    bulk_insert(session, Item, [{"codigo": f"c{k}", "preco": k} for k in range(size)])
    loaded = session.get(Item, 1)
    rows = [{"id": k + 1, "preco": -k - 1} for k in range(size)] + [{"id": 999, "preco": 0}]
    result = bulk_update(session, Item, rows, returning="preco")
    assert (result.rowcount, result.updated, result.inserted) == (size, size, 0)
    assert result.rows == [(-k - 1,) for k in range(size)] + [None]
    assert (loaded.preco, loaded.estado, loaded.sql) == (-1, "mudado", 6)
    assert bulk_update(session, Item, [{"codigo": "c1", "preco": 5}], key="codigo").rowcount == 1
    assert session.get(Item, 2).preco == 5


@pytest.mark.parametrize("size", [2, 40])
def test_delete_by_key(session, size):
    """Rows go by their keys, single or composite, and come back as they were."""
    bulk_insert(session, Item, [{"codigo": f"c{k}"} for k in range(size)])
    result = bulk_delete(session, Item, [{"id": 1, "codigo": "whatever"}, {"id": 77}], returning="codigo")
    assert (result.rowcount, result.rows) == (1, [("c0",), None])
    bulk_insert(session, Par, [{"a": k, "b": k} for k in range(size)])
    assert bulk_delete(session, Par, [Par(a=k, b=k) for k in range(1, size)]).rowcount == size - 1


def test_progress_chunks_and_empty_input(session):
    """Progress comes after each chunk, and nothing at all is sent for no rows."""
    seen = []
    handle = install(session.get_bind())
    with count_queries() as queries:
        result = bulk_insert(session, Item, [], progress=lambda *call: seen.append(call), returning="id")
    assert (result.rowcount, result.rows, seen, queries.count) == (0, [], [], 0)
    rows = ({"codigo": str(k)} for k in range(7))
    with count_queries() as queries:
        bulk_insert(session, Item, rows, chunk=3, progress=lambda *call: seen.append(call))
    handle.remove()
    assert seen == [(3, None), (6, None), (7, None)]
    assert queries.count == 3
    assert queries.findings == []
    bulk_insert(session, Item, [{"codigo": "x"}], progress=lambda *call: seen.append(call))
    assert seen[-1] == (1, 1)


def test_memory_does_not_grow_with_the_rows(session):
    """A generator of many rows is read chunk by chunk."""
    bulk_insert(session, Par, ({"a": 0, "b": k} for k in range(1000)), chunk=500)
    traced = tracemalloc.is_tracing()
    tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    bulk_insert(session, Par, ({"a": 1, "b": k} for k in range(30_000)), chunk=500)
    _, most = tracemalloc.get_traced_memory()
    if not traced:
        tracemalloc.stop()
    assert most - before < 2_000_000
    assert session.scalar(select(func.count()).select_from(Par)) == 31_000


def test_a_failing_source_and_a_failing_chunk(session):
    """An error of the rows passes through, one of the database says among which rows it was; rollback undoes both."""

    def rows():
        yield from ({"codigo": str(k)} for k in range(10))
        raise LookupError("out of rows")

    with pytest.raises(LookupError, match="out of rows"):
        bulk_insert(session, Item, rows(), chunk=4)
    session.rollback()
    assert stored(session) == []
    with pytest.raises(IntegrityError) as caught:
        bulk_insert(session, Item, [{"id": k // 2, "codigo": str(k)} for k in range(9)], chunk=8)
    assert caught.value.__notes__ == ["bulk_insert: while writing rows 0 to 7"]
    session.rollback()
    assert stored(session) == []


def test_what_the_session_holds_is_written_first(session):
    """Pending objects are flushed before, so that rows may refer to them."""
    session.add(Item(id=1, codigo="a"))
    assert bulk_update(session, Item, [{"id": 1, "preco": 3}]).rowcount == 1


@pytest.mark.parametrize(
    ("verb", "rows", "settings", "match"),
    [
        (bulk_insert, [{"codigo": "a"}, {"codigu": "b"}], {}, "row 1 .*did you mean 'codigo'"),
        (bulk_insert, [{"preco": 1}], {}, "row 0 has no value .*'codigo'"),
        (bulk_insert, [3], {}, "row 0: int"),
        (bulk_insert, [], {"key": "id"}, "key"),
        (bulk_insert, [], {"chunk": 0}, "chunk"),
        (bulk_insert, [], {"returning": "x"}, "Item.x"),
        (bulk_update, [{"preco": 1}], {}, "row 0 lacks"),
        (bulk_update, [{"id": 1}], {}, "nothing but the key"),
        (bulk_upsert, [{"codigo": "a"}], {}, "'id'"),
        (bulk_delete, [{"codigo": "a"}], {}, "'id'"),
        (bulk_delete, [], {"key": ("id", "nada")}, "Item.nada"),
    ],
)
def test_bad_rows_are_named(session, verb, rows, settings, match):
    """A row or setting that cannot be right is refused, with its number and the nearest right name."""
    with pytest.raises(ConfigurationError, match=match):
        verb(session, Item, rows, **settings)


def test_models_of_several_tables_are_refused(session):
    """A joined subclass lies in two tables, which one statement cannot write."""
    with pytest.raises(ConfigurationError, match="Filho"):
        bulk_insert(session, Filho, [{"codigo": "a"}])


async def test_async_sessions_take_async_rows(tmp_path):
    """An AsyncSession takes plain and async iterables; a plain session refuses the latter."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")

    async def rows(start):
        for k in range(start, start + 25):
            yield {"id": k, "codigo": str(k)}

    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        assert (await bulk_insert(session, Item, rows(0), chunk=10)).inserted == 25
        assert (await bulk_insert(session, Item, [{"codigo": "x"}])).inserted == 1
        assert (await bulk_upsert(session, Item, rows(10))).updated == 16
        with pytest.raises(ConfigurationError, match="AsyncSession"):
            bulk_insert(session.sync_session, Item, rows(0))
    await engine.dispose()
