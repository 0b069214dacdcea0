"""A cached query against committed rows, under commits, rollbacks, savepoints, bulk, text and overtaken loads."""

import os
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from isp_perf import CacheManager
from isp_perf.queries import bulk_insert, cached_query

KEYS = st.integers(1, 4)
TIMES = int(os.environ.get("TEST_QUERY_TIMES", "1"))  # the soak session tries more


class Base(DeclarativeBase):
    pass


class Linha(Base):
    __tablename__ = "linhas"
    id: Mapped[int] = mapped_column(primary_key=True)
    valor: Mapped[int]


class CachedQuery(RuleBasedStateMachine):
    """One writer at a time, as SQLite has it; readers of their own; and a reader that keeps its transaction."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "a.db"
        self.engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)

        @event.listens_for(self.engine, "connect")
        def plain(connection, _):
            connection.isolation_level = None
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")

        @event.listens_for(self.engine, "begin")
        def begin(connection):
            connection.exec_driver_sql("BEGIN")

        Base.metadata.create_all(self.engine)
        self.meanwhile = []

        @event.listens_for(self.engine, "after_cursor_execute")
        def overtake(connection, cursor, statement, *_):
            if statement.startswith("SELECT") and self.meanwhile:
                self.meanwhile.pop()()

        self.manager = CacheManager()

        @cached_query(self.manager, ttl=600)
        def rows(least):
            return select(Linha.id, Linha.valor).where(Linha.id >= least).order_by(Linha.id)

        self.rows = rows
        self.committed = {}
        self.writer = Session(self.engine)
        self.old = Session(self.engine)
        self.seen = None
        self.mine = {}
        self.savepoints = []
        self.dirty = False

    def see(self, session, least=1):
        return dict(map(tuple, self.rows(session, least)))

    @rule(key=KEYS, value=st.integers(0, 99), how=st.sampled_from(["flush", "text", "core", "driver", "bulk"]))
    def write(self, key, value, how):
        """Set one row in the writer's transaction."""
        self.dirty = True
        writer = self.writer
        sql = f"INSERT OR REPLACE INTO linhas VALUES ({key}, {value})"
        if how == "flush":
            writer.merge(Linha(id=key, valor=value))
        elif how == "text":
            writer.execute(text(sql))
        elif how == "driver":
            writer.connection().exec_driver_sql(sql)
        elif how == "bulk":
            writer.execute(text(f"DELETE FROM linhas WHERE id = {key}"))
            bulk_insert(writer, Linha, [{"id": key, "valor": value}])
        else:
            writer.flush()
            writer.execute(Linha.__table__.delete().where(Linha.id == key))
            writer.execute(Linha.__table__.insert().values(id=key, valor=value))
        writer.flush()
        writer.expire_all()
        self.mine[key] = value

    @rule(key=KEYS)
    def remove(self, key):
        """Delete one row by a bulk statement of the ORM."""
        self.dirty = True
        self.writer.query(Linha).filter(Linha.id == key).delete()
        self.mine.pop(key, None)

    @precondition(lambda self: len(self.savepoints) < 3)
    @rule()
    def savepoint(self):
        """Begin a nested transaction."""
        self.savepoints.append((self.writer.begin_nested(), dict(self.mine)))

    @precondition(lambda self: self.savepoints)
    @rule(release=st.booleans())
    def end_savepoint(self, release):
        """End the innermost one."""
        nested, before = self.savepoints.pop()
        if release:
            nested.commit()
        else:
            nested.rollback()
            self.mine = before

    @rule()
    def commit(self):
        """Commit the writer's transaction."""
        self.writer.commit()
        self.savepoints.clear()
        self.committed = dict(self.mine)
        self.dirty = False

    @rule()
    def rollback(self):
        """Roll the writer's transaction back."""
        self.writer.rollback()
        self.savepoints.clear()
        self.mine = dict(self.committed)
        self.dirty = False

    @rule(least=KEYS)
    def read_as_writer(self, least):
        """The writer sees its own rows."""
        assert self.see(self.writer, least) == {k: v for k, v in self.mine.items() if k >= least}
        if not self.dirty and not self.savepoints:
            self.writer.rollback()

    @rule()
    def begin_old(self):
        """Begin a transaction that keeps its view of the rows."""
        self.old.rollback()
        self.seen = dict(map(tuple, self.old.execute(select(Linha.id, Linha.valor))))

    @precondition(lambda self: self.seen is not None)
    @rule(least=KEYS)
    def read_as_old(self, least):
        """It sees what it saw."""
        assert self.see(self.old, least) == {k: v for k, v in self.seen.items() if k >= least}

    @precondition(lambda self: self.dirty and not self.savepoints)
    @rule(least=KEYS)
    def overtaken(self, least):
        """A commit ends between a reader's statement and the keeping of its rows."""
        before = dict(self.committed)
        self.meanwhile.append(self.commit)
        with Session(self.engine) as session:
            found = self.see(session, least)
        self.meanwhile.clear()
        allowed = [{k: v for k, v in state.items() if k >= least} for state in (before, self.committed)]
        assert found in allowed

    @invariant()
    def readers_see_what_is_committed(self):
        """A new reader gets exactly the committed rows, from wherever."""
        for least in (1, 3):
            with Session(self.engine) as session:
                assert self.see(session, least) == {k: v for k, v in self.committed.items() if k >= least}

    def teardown(self):
        """Close everything."""
        self.writer.close()
        self.old.close()
        self.engine.dispose()
        self.folder.cleanup()


TestCachedQuery = CachedQuery.TestCase
TestCachedQuery.settings = settings(max_examples=15 * TIMES, stateful_step_count=30, deadline=None)
