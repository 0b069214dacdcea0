"""`preload_into`: the same plans for objects that are already loaded."""

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from isp_perf.errors import ConfigurationError
from isp_perf.queries import preload_into


def test_relationships_come_onto_loaded_objects(models, session, statements):
    """The objects keep their identity, and what was preloaded is read without a statement."""
    found = session.scalars(select(models.Conversa)).all()
    statements.take()
    preload_into(session, found, "cliente", "mensagens")
    assert statements.take() == 2
    assert sum(len(c.mensagens) for c in found) == 16
    assert {c.cliente.nome for c in found} == {"c1", "c2", "c3", "c4"}
    assert statements.take() == 0


def test_what_is_there_already_is_kept(models, session):
    """A changed or appended attribute is not overwritten by preloading."""
    first, second = session.scalars(select(models.Conversa).where(models.Conversa.id < 3).order_by(models.Conversa.id))
    with session.no_autoflush:
        first.mensagens = []
        new = models.Mensagem(texto="nova", tipo="texto", conversa=second)
        preload_into(session, [first, second], "mensagens")
        assert first.mensagens == []
        assert second.mensagens[-1] is new
        assert len(second.mensagens) == 8


def test_nothing_to_do_costs_nothing(models, session, statements):
    """No objects, or no paths, send no statement."""
    found = session.scalars(select(models.Conversa)).all()
    statements.take()
    preload_into(session, [], "cliente")
    preload_into(session, found)
    assert statements.take() == 0


def test_objects_of_several_classes(models, session, statements):
    """Each class gets its own plan; a path must exist in every one of them."""
    found = session.scalars(select(models.Mensagem)).all()
    statements.take()
    preload_into(session, found, "conversa")
    assert statements.take() == 2
    assert {m.conversa.id for m in found} == {1, 2, 4}
    with pytest.raises(ConfigurationError, match="trechos"):
        preload_into(session, found, "trechos")


def test_foreign_objects_are_refused(models, session, engine):
    """Objects that are new, detached or of another session, and things that are no objects, are refused."""
    with Session(engine) as other:
        stranger = other.get(models.Conversa, 1)
        for item in (stranger, models.Conversa(), 5, None):
            with pytest.raises(ConfigurationError, match="persistent in the session"):
                preload_into(session, [item], "cliente")


def test_a_scoped_session_is_a_session_and_a_factory_is_not(models, engine):
    """The registry of sessions works; a sessionmaker or an engine is refused by name."""
    registry = scoped_session(sessionmaker(engine))
    found = registry.scalars(select(models.Conversa)).all()
    preload_into(registry, found, "cliente")
    assert "cliente" in vars(found[0])
    registry.remove()
    with pytest.raises(ConfigurationError, match=r"Engine.*preload_into works on"):
        preload_into(engine, [], "cliente")


async def test_an_async_session_gets_an_awaitable(models):
    """On an AsyncSession the call is awaited, and plain access afterwards needs no greenlet."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    async with engine.begin() as connection:
        await connection.run_sync(models.Base.metadata.create_all)
    async with AsyncSession(engine, expire_on_commit=False) as session:
        session.add(models.Conversa(id=1, status="x", cliente=models.Cliente(id=1, nome="c")))
        await session.commit()
        session.expunge_all()
        found = (await session.scalars(select(models.Conversa))).all()
        await preload_into(session, found, "cliente", "mensagens")
        assert (found[0].cliente.nome, found[0].mensagens) == ("c", [])
    await engine.dispose()
