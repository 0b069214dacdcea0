"""Bars of `read_records`: ratios within one run, interleaved rounds, medians.

Run with `python benchmarks/test_queries_records.py [URL ...]`; without a URL on SQLite. A database behind a URL is
emptied. The floor is the driver itself: the same two statements, executed and fetched, and nothing made of the rows.
"""

import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from isp_perf.queries import read_records


class ClienteLido(msgspec.Struct):
    id: int
    nome: str


class MensagemLida(msgspec.Struct):
    id: int
    texto: str


class ConversaLida(msgspec.Struct):
    id: int
    cliente: ClienteLido
    atendente: ClienteLido
    mensagens: list[MensagemLida]


ROOT = (
    "SELECT c.id, k.id, k.nome, a.id, a.nome FROM conversas c LEFT JOIN clientes k ON k.id = c.cliente_id"
    " LEFT JOIN atendentes a ON a.id = c.atendente_id WHERE c.id <= {} ORDER BY c.id"
)
LISTS = {
    "sqlite": "SELECT conversa_id, id, texto FROM mensagens WHERE conversa_id IN (SELECT value FROM json_each(?))"
    " ORDER BY conversa_id, id",
    "postgresql": "SELECT conversa_id, id, texto FROM mensagens WHERE conversa_id = ANY(CAST(%s AS INTEGER[]))"
    " ORDER BY conversa_id, id",
}
PATHS = ("cliente", "atendente", "mensagens")


def base():
    """Return the module of the other bars of queries, with the models and the data."""
    spec = spec_from_file_location("bars_of_queries", Path(__file__).with_name("test_queries.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reading(bars, engine, size):
    with Session(engine) as session:
        driver = session.connection().connection.driver_connection
        texts = (ROOT.format(size), LISTS[engine.dialect.name])
        numbers = ",".join(map(str, range(1, size + 1)))
        keys = (f"[{numbers}]",) if engine.dialect.name == "sqlite" else (f"{{{numbers}}}",)
        wanted = select(bars.Conversa).where(bars.Conversa.id <= size).order_by(bars.Conversa.id)
        eager = wanted.options(*(selectinload(getattr(bars.Conversa, name)) for name in PATHS))

        def raw():
            found = []
            for text, parameters in zip(texts, ((), keys), strict=True):
                cursor = driver.cursor()
                cursor.execute(text, parameters)
                found.append(cursor.fetchall())
                cursor.close()
            return found

        def records():
            return read_records(session, wanted, into=ConversaLida, preload=PATHS)

        def objects():
            with Session(engine) as other:
                return other.scalars(eager).all()

        def record(conversa):
            cliente = ClienteLido(conversa.cliente.id, conversa.cliente.nome)
            atendente = ClienteLido(conversa.atendente.id, conversa.atendente.nome)
            return ConversaLida(
                conversa.id, cliente, atendente, [MensagemLida(m.id, m.texto) for m in conversa.mensagens]
            )

        def orm_bytes():
            with Session(engine) as other:
                return msgspec.json.encode([record(conversa) for conversa in other.scalars(eager)])

        assert msgspec.json.encode(records()) == orm_bytes()
        times = bars.interleaved(
            raw=raw, records=records, objects=objects, text=lambda: msgspec.json.encode(records()), orm=orm_bytes
        )
    least, fewest = (4, 5) if size == 100 else (6, 8)
    where = f"{engine.dialect.name}, {size} conversations"
    bars.bar(f"records / driver, {where}", times["records"] / times["raw"], "<= 1.35")
    bars.bar(f"selectinload / records, {where}", times["objects"] / times["records"], f">= {least}")
    bars.bar(f"to JSON: ORM + msgspec / records, {where}", times["orm"] / times["text"], f">= {fewest}")


@pytest.mark.soak
def test_bars():
    """Print every bar beside its limit; nothing is asserted, because the machine may be busy."""
    main([])


def main(urls):
    bars = base()
    with tempfile.TemporaryDirectory() as folder:
        for url in urls or [f"sqlite:///{folder}/bars.db"]:
            engine = bars.filled(url)
            for size in (100, 1000):
                reading(bars, engine, size)
            engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1:])
