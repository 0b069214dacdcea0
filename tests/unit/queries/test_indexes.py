"""`composite_index`: what is declared, and what is refused."""

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from isp_perf.errors import ConfigurationError
from isp_perf.queries import composite_index


@pytest.fixture
def model():
    class Base(DeclarativeBase):
        pass

    class Conversa(Base):
        __tablename__ = "conversas"
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str]
        criada: Mapped[int] = mapped_column("criada_em")

    return Conversa


def test_it_is_created_with_the_tables(model):
    """Names, attributes and descending orders make one index; a condition makes it partial."""
    whole = composite_index(model, "status", model.criada.desc())
    part = composite_index(model, "criada", where=model.status == "aberta")
    assert (whole.name, part.name) == ("ix_conversas_status_criada_em", "ix_conversas_criada_em_part")
    engine = create_engine("sqlite://")
    model.metadata.create_all(engine)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE type = 'index' ORDER BY name").scalars()
        assert list(found) == [
            "CREATE INDEX ix_conversas_criada_em_part ON conversas (criada_em) WHERE status = 'aberta'",
            "CREATE INDEX ix_conversas_status_criada_em ON conversas (status, criada_em DESC)",
        ]
    assert len(inspect(engine).get_indexes("conversas")) == 2
    engine.dispose()


def test_what_helps_nobody_is_refused(model):
    """Unknown names, one column, and an index that is there already are errors that say so."""
    with pytest.raises(ConfigurationError, match="no such column"):
        composite_index(model, "estado", "id")
    with pytest.raises(ConfigurationError, match="two or more"):
        composite_index(model, "status")
    composite_index(model, "status", "criada")
    with pytest.raises(ConfigurationError, match="begins with the same"):
        composite_index(model, "status", "criada")
