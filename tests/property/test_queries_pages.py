"""Keyset pages against a sorted list: any rows, any order, forwards and back, while rows come and go."""

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from isp_perf.queries import keyset_page

TIMES = int(os.environ.get("TEST_QUERY_TIMES", "1"))  # the soak session tries more


class Base(DeclarativeBase):
    pass


class Linha(Base):
    __tablename__ = "linhas"
    a: Mapped[int] = mapped_column(primary_key=True)
    b: Mapped[int] = mapped_column(primary_key=True)
    nota: Mapped[int | None]
    nome: Mapped[str | None]
    peso: Mapped[int]


def forms(column):
    return [column, column.asc(), column.desc(), column.desc().nulls_last(), column.asc().nulls_last(), -column]


ORDERS = [*forms(Linha.nota), *forms(Linha.peso), Linha.nome, Linha.nome.desc(), Linha.b.desc(), Linha.a.desc()]
small = st.integers(0, 3)
rows = st.lists(
    st.tuples(st.integers(0, 9), small, st.none() | small, st.none() | st.sampled_from("xyz"), small),
    max_size=14,
    unique_by=lambda row: row[:2],
)
orders = st.lists(st.sampled_from(range(len(ORDERS))), max_size=3, unique=True)


def walk(session: Session, statement: Any, size: int, *, start: str | None = None, back: bool = False) -> list[Any]:
    found: list[Any] = []
    cursor = start
    while True:
        page = keyset_page(session, statement, after=cursor, size=size)
        items = [(item.a, item.b) for item in page.items]
        found = items + found if back else found + items
        cursor = page.previous if back else page.next
        if cursor is None:
            return found


@settings(max_examples=40 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=rows, order=orders, size=st.integers(1, 5), gone=st.sets(st.integers(0, 13)), late=rows)
def test_pages_are_the_sorted_list(data, order, size, gone, late):
    """Pages visit every row exactly once in both directions, and rows that come or go move no other."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    names = ("a", "b", "nota", "nome", "peso")
    with Session(engine) as session:
        if data:
            session.execute(insert(Linha), [dict(zip(names, row, strict=True)) for row in data])
        statement = select(Linha).order_by(*(ORDERS[n] for n in order))
        total = statement.order_by(Linha.a, Linha.b)
        expected = [(item.a, item.b) for item in session.scalars(total)]
        assert walk(session, statement, size) == expected
        first = keyset_page(session, statement, size=size)
        assert first.previous is None
        if first.next is not None:
            second = keyset_page(session, statement, after=first.next, size=size)
            end = [(item.a, item.b) for item in second.items][-1]
            assert walk(session, statement, size, start=second.previous, back=True) == expected[:size]
            last = keyset_page(session, statement, after=first.next, size=100)
            assert walk(session, statement, size, start=last.previous, back=True) == expected[:size]
            assert end in expected
        change(session, data, gone, late)
        after = [(item.a, item.b) for item in session.scalars(total)]
        if first.next is not None:
            seen = [(item.a, item.b) for item in first.items] + walk(session, statement, size, start=first.next)
            stayed = [key for key in expected if key in set(after)]
            assert [key for key in seen if key in set(stayed)] == stayed
            assert len(seen) == len(set(seen))
    engine.dispose()


def change(session: Session, data: list[Any], gone: set[int], late: list[Any]) -> None:
    """Remove some rows and add others that were not there."""
    for place in gone:
        if place < len(data):
            session.execute(delete(Linha).where(Linha.a == data[place][0], Linha.b == data[place][1]))
    known = {row[:2] for row in data}
    new = [row for row in late if row[:2] not in known]
    if new:
        session.execute(insert(Linha), [dict(zip(("a", "b", "nota", "nome", "peso"), row, strict=True)) for row in new])
