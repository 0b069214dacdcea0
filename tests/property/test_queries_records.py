"""Plain records against the ORM: any rows, every kind of relationship, the same values in the same order."""

import os
from typing import Any, NamedTuple, Optional

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Integer, Table, and_, create_engine, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, foreign, mapped_column, relationship, remote
from sqlalchemy.pool import StaticPool

from isp_perf.queries import read_records

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
friends = Table("friends", Base.metadata, Column("a", ForeignKey("nos.id")), Column("b", ForeignKey("nos.id")))


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)


class No(Base):
    __tablename__ = "nos"
    id: Mapped[int] = mapped_column(primary_key=True)
    tipo: Mapped[str]
    nome: Mapped[str]
    acima_id: Mapped[int | None] = mapped_column(ForeignKey("nos.id"))
    dono_a: Mapped[int | None]
    dono_b: Mapped[int | None]
    acima: Mapped["No | None"] = relationship(remote_side="No.id", foreign_keys=[acima_id])
    abaixo: Mapped[list["No"]] = relationship(order_by="No.id", foreign_keys=[acima_id], viewonly=True)
    dono: Mapped["Dono | None"] = relationship(back_populates="nos")
    itens: Mapped[list["Item"]] = relationship(back_populates="no", order_by="Item.peso, Item.id")
    abertos: Mapped[list["Item"]] = relationship(
        primaryjoin=lambda: and_(No.id == foreign(Item.no_id), Item.peso > 1),
        order_by="Item.peso, Item.id",
        viewonly=True,
    )
    tags: Mapped[list[Tag]] = relationship(secondary=tagged, order_by=[tagged.c.posicao, Tag.id])
    soltas: Mapped[list[Tag]] = relationship(secondary=loose, order_by=Tag.id, viewonly=True)
    amigos: Mapped[list["No"]] = relationship(
        secondary=friends,
        primaryjoin=lambda: No.id == friends.c.a,
        secondaryjoin=lambda: No.id == friends.c.b,
        order_by="No.id",
        viewonly=True,
    )
    ficha: Mapped["Ficha | None"] = relationship()
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


class Item(Base):
    __tablename__ = "itens"
    id: Mapped[int] = mapped_column(primary_key=True)
    peso: Mapped[int]
    no_id: Mapped[int | None] = mapped_column(ForeignKey("nos.id"))
    no: Mapped[No | None] = relationship(back_populates="itens")


class RId(NamedTuple):
    id: int


class RDono(NamedTuple):
    a: int
    nos: tuple[RId, ...] = ()


class RItem(NamedTuple):
    id: int
    peso: int
    no: Optional["RNo"] = None


class RNo(NamedTuple):
    id: int
    nome: str
    acima: Optional["RNo"] = None
    abaixo: list["RNo"] = []
    dono: RDono | None = None
    itens: list[RItem] = []
    abertos: list[RItem] = []
    tags: list[RId] = []
    soltas: list[RId] = []
    amigos: list[RId] = []
    ficha: RId | None = None
    xara: list[RId] = []


class RFolha(NamedTuple):
    id: int
    cor: str
    marcas: list[RId] = []
    abaixo: list[RId] = []
    itens: list[RItem] = []


PATHS = (
    "acima",
    "acima.itens",
    "abaixo",
    "abaixo.dono",
    "abaixo.abaixo.tags",
    "dono",
    "dono.nos",
    "itens",
    "itens.no",
    "itens.no.ficha",
    "abertos",
    "tags",
    "soltas",
    "amigos",
    "ficha",
    "xara",
)
small = st.integers(1, 6)
maybe = st.none() | small
rows = st.fixed_dictionaries(
    {
        "nos": st.lists(
            st.tuples(st.booleans(), st.sampled_from("xy"), maybe, st.integers(0, 2)), min_size=1, max_size=6
        ),
        "itens": st.lists(st.tuples(maybe, st.integers(0, 3)), max_size=10),
        "tagged": st.sets(st.tuples(small, small), max_size=8),
        "loose": st.lists(st.tuples(small, small), max_size=6),
        "friends": st.lists(st.tuples(small, small), max_size=6),
        "fichas": st.sets(small, max_size=4),
        "marcas": st.lists(small, max_size=5),
    }
)


def content(data: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    count = len(data["nos"])

    def among(number):
        return None if number is None else 1 + number % count

    leaves = [k for k, row in enumerate(data["nos"], 1) if row[0]]
    pairs = sorted({(among(no), tag) for no, tag in data["tagged"]})
    return {
        "donos": [{"a": a, "b": 1} for a in (1, 2)],
        "tags": [{"id": k} for k in range(1, 7)],
        "nos": [
            {
                "id": k,
                "tipo": "folha" if leaf else "no",
                "nome": name,
                "acima_id": among(up),
                "dono_a": owner or None,
                "dono_b": 1 if owner else None,
            }
            for k, (leaf, name, up, owner) in enumerate(data["nos"], 1)
        ],
        "folhas": [{"id": k, "cor": "c"} for k in leaves],
        "itens": [{"id": k, "no_id": among(no), "peso": peso} for k, (no, peso) in enumerate(data["itens"], 1)],
        "tagged": [{"no_id": no, "tag_id": tag, "posicao": 7 - tag} for no, tag in pairs],
        "loose": [{"no_id": among(no), "tag_id": tag} for no, tag in data["loose"]],
        "friends": [{"a": among(a), "b": among(b)} for a, b in data["friends"]],
        "fichas": [{"id": k, "no_id": no} for k, no in enumerate(sorted({among(n) for n in data["fichas"]}), 1)],
        "marcas": [{"id": k, "folha_id": leaves[n % len(leaves)]} for k, n in enumerate(data["marcas"], 1) if leaves],
    }


def told(into: Any, value: Any, paths: list[tuple[str, ...]]) -> Any:
    """Return what a record of ``value`` must hold: its columns, and the relationships among ``paths``."""
    if value is None:
        return None
    kinds = {"acima": RNo, "abaixo": RNo, "dono": RDono, "itens": RItem, "abertos": RItem, "no": RNo}
    given: dict[str, Any] = {}
    for name in into._fields:
        below = [path[1:] for path in paths if path[0] == name and len(path) > 1]
        if any(path[0] == name for path in paths):
            kind = RId if into in {RFolha, RDono} and name in {"abaixo", "nos"} else kinds.get(name, RId)
            found = getattr(value, name)
            given[name] = (
                [told(kind, item, below) for item in found] if isinstance(found, list) else told(kind, found, below)
            )
            if into is RDono:
                given[name] = tuple(given[name])
        elif name not in into._field_defaults:
            given[name] = getattr(value, name)
    return into(**given)


@settings(max_examples=25 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=rows, paths=st.lists(st.sampled_from(PATHS), max_size=6, unique=True), least=st.integers(0, 3))
def test_records_are_what_the_objects_are(data, paths, least):
    """Whatever rows there are and whichever paths are read: the records hold what the objects hold, in their order."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        for name, values in content(data).items():
            if values:
                connection.execute(insert(Base.metadata.tables[name]), values)
    split = [tuple(path.split(".")) for path in paths]
    with Session(engine) as session:
        for _ in range(2):
            statement = select(No).where(No.id > least).order_by(No.id)
            expected = [told(RNo, no, split) for no in session.scalars(statement)]
            assert read_records(session, statement, into=RNo, preload=paths) == expected
        leaves = select(Folha).order_by(Folha.nome, Folha.id)
        split = [("marcas",), ("abaixo",), ("itens",)]
        expected = [told(RFolha, leaf, split) for leaf in session.scalars(leaves)]
        assert read_records(session, leaves, into=RFolha, preload=("marcas", "abaixo", "itens")) == expected
    engine.dispose()
