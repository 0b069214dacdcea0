"""A realistic database, the same on every machine. The service loads it once; `python seeding.py` starts it afresh."""

import asyncio
import json
import random
import sqlite3
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

from models import FOLDER, POSTGRES, Atendente, Base, Cliente, Conversa, Mensagem, engine
from sqlalchemy import func, insert, select, text

from isp_perf.errors import ConfigurationError

CUSTOMERS, AGENTS, CONVERSATIONS, MESSAGES = 1_200, 40, 5_000, 50_000
PER = MESSAGES // CONVERSATIONS
END = datetime.fromisoformat("2026-06-30T18:00")
PREPARE = "CREATE SCHEMA IF NOT EXISTS suporte" if POSTGRES else "PRAGMA journal_mode = WAL"
WORDS = SimpleNamespace(**json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8")))


def tables():
    """Yield (table, rows) in an order that satisfies the foreign keys."""
    rng = random.Random(20260630)
    choice, first, last = rng.choice, WORDS.first, WORDS.last
    names = (f"{choice(first)} {choice(last)} {choice(last)}" for _ in range(AGENTS + CUSTOMERS))
    yield Atendente, [{"id": i, "nome": next(names), "equipe": choice(WORDS.teams)} for i in range(1, AGENTS + 1)]
    customers = [
        {"id": i, "nome": next(names), "telefone": f"+55119{phone}"}
        | {"plano": choice(WORDS.plans), "bairro": choice(WORDS.districts)}
        for i, phone in enumerate(rng.sample(range(10_000_000, 99_999_999), CUSTOMERS), 1)
    ]
    yield Cliente, customers
    ends = sorted(END - timedelta(minutes=rng.randrange(180 * 24 * 60)) for _ in range(CONVERSATIONS))
    owners = [*range(1, CUSTOMERS + 1), *rng.choices(range(1, CUSTOMERS + 1), k=CONVERSATIONS - CUSTOMERS)]
    conversations = [
        {"id": i, "cliente_id": owner, "atendente_id": rng.randint(1, AGENTS), "ultima_em": end}
        | {"assunto": choice(WORDS.subjects), "situacao": choice(WORDS.states)}
        for i, (owner, end) in enumerate(zip(owners, ends, strict=True), 1)
    ]
    yield Conversa, conversations
    for begin in range(0, CONVERSATIONS, 100):
        yield Mensagem, list(talk(rng, conversations[begin : begin + 100], customers))


def talk(rng: random.Random, conversations: list[dict], customers: list[dict]):
    """What customer and agent said in turn in each conversation."""
    for c in conversations:
        words = customers[c["cliente_id"] - 1] | {"dia": rng.choice(("tarde", "noite")), "n": rng.randint(1, 28)}
        words |= {"h": rng.randint(8, 13), "h2": rng.randint(14, 20), "protocolo": rng.randint(10**9, 10**10)}
        for i, author in enumerate(("cliente", "atendente") * (PER // 2)):
            said = rng.choice(getattr(WORDS, author)).format(**words)
            sent = c["ultima_em"] - timedelta(minutes=3 * (PER - 1 - i))
            entry = {"id": (c["id"] - 1) * PER + i + 1, "conversa_id": c["id"], "autor": author}
            yield entry | {"texto": said, "enviada_em": sent, "entregue": True}


def lock() -> sqlite3.Connection:
    """Wait for this host's file lock; it is let go when the connection closes, or its process is gone."""
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        held = sqlite3.connect(FOLDER / "lock.db", timeout=120, isolation_level=None)
        held.executescript("BEGIN EXCLUSIVE; PRAGMA user_version = 1")
    except (OSError, sqlite3.OperationalError) as error:
        rule = f"must be a folder this account may write to ({error})"
        raise ConfigurationError("ISP_PERF_EXAMPLE_DIR", str(FOLDER), rule, "name a folder that is") from None
    return held


async def load(*, fresh: bool = False) -> None:
    """Create and fill the tables, by one process, however many start at the same time; all rows or none."""
    held = lock()
    try:
        async with engine.begin() as connection:
            await connection.execute(text(PREPARE))
            if fresh:
                await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
            if await connection.scalar(select(func.count()).select_from(Mensagem)):
                return
            for table, rows in tables():
                await connection.execute(insert(table), rows)
    finally:
        held.close()


if __name__ == "__main__":
    try:
        asyncio.run(load(fresh=True))
    except ConfigurationError as error:
        sys.exit(str(error))
