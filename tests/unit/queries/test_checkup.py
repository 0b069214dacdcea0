"""Advice for every engine that is watched, by whoever it was made."""

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from isp_perf.queries import install
from isp_perf.queries._checkup import advise_watched

MEMORY = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
ORDERS = Table("pedido", MetaData(), Column("id", Integer, primary_key=True), Column("cliente", Integer))
ASKED = select(ORDERS.c.id).where(ORDERS.c.cliente == 7)


@pytest.fixture
def plain():
    """A watched engine that has answered a statement without an index."""
    engine = create_engine("sqlite://", **MEMORY)
    installed = install(engine, batching="off", detect="off")
    with engine.begin() as connection:
        ORDERS.create(connection)
        connection.execute(ASKED)
    yield engine
    installed.remove()
    engine.dispose()


@pytest.fixture
async def coroutine():
    """The same for an engine with an async driver."""
    engine = create_async_engine("sqlite+aiosqlite://", **MEMORY)
    installed = install(engine, batching="off", detect="off")
    async with engine.begin() as connection:
        await connection.run_sync(ORDERS.create)
        await connection.execute(ASKED)
    yield engine
    installed.remove()
    await engine.dispose()


def _names_it(advised):
    return [one.ddl for one in advised] == ["CREATE INDEX ix_pedido_cliente ON pedido (cliente)"]


async def test_an_engine_with_a_plain_driver_is_asked(plain):
    """The index that a statement of a sync engine lacks is named."""
    assert _names_it(await advise_watched())


async def test_an_engine_with_an_async_driver_is_asked(coroutine):
    """The index that a statement of an async engine lacks is named."""
    assert _names_it(await advise_watched())


async def test_nothing_watched_is_no_advice():
    """Without a watched engine nothing is advised."""
    assert await advise_watched() == []
