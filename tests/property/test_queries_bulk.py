"""Bulk statements against the unit of work: any rows, any types, the same table afterwards."""

import datetime as dt
import enum
import os
import uuid
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import JSON, Numeric, String, TypeDecorator, create_engine, func, insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from isp_perf.queries import bulk_delete, bulk_insert, bulk_update, bulk_upsert

TIMES = int(os.environ.get("TEST_QUERY_TIMES", "1"))  # the soak session tries more


class Cor(enum.Enum):
    AZUL = "azul"
    VERDE = "verde"


class Invertido(TypeDecorator[str]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[::-1]

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value[::-1]


class Base(DeclarativeBase):
    pass


class Tudo(Base):
    __tablename__ = "tudo"
    id: Mapped[int] = mapped_column(primary_key=True)
    texto: Mapped[str | None]
    numero: Mapped[int | None] = mapped_column(default=7)
    valor: Mapped[Decimal | None] = mapped_column(Numeric(12, 2), onupdate=lambda: Decimal("1.50"))
    real: Mapped[float | None]
    sim: Mapped[bool | None] = mapped_column(server_default="1")
    dia: Mapped[dt.date | None]
    hora: Mapped[dt.datetime | None]
    dado: Mapped[bytes | None]
    json: Mapped[Any] = mapped_column(JSON, nullable=True)
    cor: Mapped[Cor | None] = mapped_column(default=Cor.VERDE)
    chave: Mapped[uuid.UUID | None]
    virado: Mapped[str | None] = mapped_column(Invertido)
    sql: Mapped[int | None] = mapped_column(default=func.abs(-3), onupdate=func.abs(-4))


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
VALUES = {
    "texto": text,
    "numero": st.integers(-(2**31), 2**31 - 1),
    "valor": st.decimals(-999999, 999999, places=2),
    "real": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "sim": st.booleans(),
    "dia": st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31)),
    "hora": st.datetimes(),
    "dado": st.binary(max_size=6),
    "json": st.dictionaries(text, st.integers(0, 9), max_size=2) | st.lists(st.booleans(), max_size=2),
    "cor": st.sampled_from(Cor),
    "chave": st.uuids(),
    "virado": text,
}
row = st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in VALUES.items()})
rows = st.lists(row, min_size=1, max_size=8)


def content(session: Session) -> list[Any]:
    session.expire_all()
    names = [column.key for column in Tudo.__table__.columns]
    return [tuple(getattr(item, name) for name in names) for item in session.scalars(select(Tudo).order_by(Tudo.id))]


def without_key(session: Session) -> list[Any]:
    return [row[1:] for row in content(session)]


def pair() -> tuple[Any, Any]:
    engines = tuple(create_engine("sqlite://", poolclass=StaticPool) for _ in range(2))
    for engine in engines:
        Base.metadata.create_all(engine)
    return engines


@settings(max_examples=15 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(added=rows, repeat=st.sampled_from([1, 4]), chunk=st.integers(1, 9))
def test_inserts_store_what_a_flush_stores(added, repeat, chunk):
    """Types, decorators, defaults and None give the same row as adding objects."""
    added *= repeat
    one, other = pair()
    with Session(one) as bulk, Session(other) as plain:
        bulk_insert(bulk, Tudo, added, chunk=chunk)
        for values in added:
            plain.add(Tudo(**values))
            plain.flush()
        # Keys that the database counts are given group by group: rows that name the same attributes are one group.
        assert sorted(map(repr, without_key(bulk))) == sorted(map(repr, without_key(plain)))
    one.dispose()
    other.dispose()


@settings(max_examples=15 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(added=rows, changed=st.lists(st.tuples(st.integers(1, 12), row), max_size=8), gone=st.sets(st.integers(1, 12)))
def test_changes_are_those_of_objects(added, changed, gone):
    """Updates, upserts and deletes leave the table as changing, adding and deleting objects one by one does."""
    one, other = pair()
    changes = {key: values for key, values in changed if values}
    with Session(one) as bulk, Session(other) as plain:
        for session in (bulk, plain):
            bulk_insert(session, Tudo, added)
        bulk_update(bulk, Tudo, [{"id": key, **values} for key, values in changes.items()])
        for key, values in changes.items():
            plain.execute(update(Tudo).where(Tudo.id == key).values(**values))
        assert content(bulk) == content(plain)
        upserts = {key: {"texto": "t", "numero": 1, "cor": None} for key in changes}
        bulk_upsert(bulk, Tudo, [{"id": key, **values} for key, values in upserts.items()])
        for key, values in upserts.items():
            if not plain.execute(update(Tudo).where(Tudo.id == key).values(**values)).rowcount:
                plain.execute(insert(Tudo).values(id=key, **values))
        assert content(bulk) == content(plain)
        bulk_delete(bulk, Tudo, [{"id": key} for key in gone])
        for key in gone:
            if (item := plain.get(Tudo, key)) is not None:
                plain.delete(item)
        plain.flush()
        assert [r[0] for r in content(bulk)] == [r[0] for r in content(plain)]
    one.dispose()
    other.dispose()
