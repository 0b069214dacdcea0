"""`stream`: windows of objects with their relationships."""

import gc
import weakref

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from isp_perf.errors import ConfigurationError
from isp_perf.queries import count_queries, install, stream


def test_windows_hold_every_object_once(models, session, statements):
    """Windows of the asked size follow the statement's order, and bring along what is preloaded, per window."""
    statement = select(models.Conversa).order_by(models.Conversa.id)
    windows = []
    for window in stream(session, statement, window=4, preload=("mensagens", "cliente")):
        windows.append([(c.id, len(c.mensagens), c.cliente.nome) for c in window])
    assert [len(window) for window in windows] == [4, 2]
    assert [row[0] for window in windows for row in window] == [1, 2, 3, 4, 5, 6]
    assert statements.take() == 3


def test_windows_are_let_go(models, session):
    """An object of a window before is gone once nobody holds it."""
    alive = []
    for window in stream(session, select(models.Conversa), window=2, preload="cliente"):
        alive.append(weakref.ref(window[0]))
        del window
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 1


def test_forgotten_relationships_are_loaded_by_window(models, engine):
    """Peers of an object are the objects of its window."""
    handle = install(engine)
    with Session(engine) as session, count_queries() as queries:
        for window in stream(session, select(models.Conversa), window=3):
            assert sum(len(c.mensagens) for c in window) >= 0
    handle.remove()
    assert queries.count == 3


async def test_async_sessions_stream_as_well(models, tmp_path):
    """An AsyncSession gives an async iterator of the same windows."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    async with engine.begin() as connection:
        await connection.run_sync(models.Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        session.add_all(models.Cliente(nome=f"c{k}", plano=models.Plano(nome=f"p{k}")) for k in range(5))
        await session.commit()
        statement = select(models.Cliente).order_by(models.Cliente.id)
        found = [[c.plano.nome for c in w] async for w in stream(session, statement, window=2, preload=["plano"])]
        assert found == [["p0", "p1"], ["p2", "p3"], ["p4"]]
    await engine.dispose()


def test_what_cannot_be_streamed_is_refused(models, session):
    """Columns are no objects, and a window has at least one."""
    with pytest.raises(ConfigurationError, match="select\\(Model\\)"):
        stream(session, select(models.Conversa.id, models.Conversa.status))
    for window in (0, True, 2.5):
        with pytest.raises(ConfigurationError, match="window"):
            stream(session, select(models.Conversa), window=window)
