"""Another process with the same query cache: does one thing per line of input, and answers with a line of JSON.

`python query_cache_process.py DATABASE_URL REDIS_URL` says `"ready"`; then `read` gives the rows, `insert 3 bia` a row
in the open transaction, `commit` and `rollback` end it, and `statements` says how many reached the driver.
"""

import asyncio
import json
import sys

from sqlalchemy import Integer, String, column, event, select, table
from sqlalchemy import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from isp_perf import CacheManager
from isp_perf.queries import cached_query
from isp_perf.redis import RedisPool, RedisSettings

CLIENTES = table("clientes", column("id", Integer), column("nome", String))


def answer(what):
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


class Process:
    """One engine, one cache over Redis, one session to write with."""

    def __init__(self, database, redis):
        self.engine = create_async_engine(database)
        self.redis = RedisPool(RedisSettings(url=redis))
        self.cache = CacheManager("queries", redis=self.redis)
        self.writer = AsyncSession(self.engine)
        self.sent = []
        event.listen(self.engine.sync_engine, "before_cursor_execute", lambda *call: self.sent.append(call[2]))

        @cached_query(self.cache, ttl=600)
        def names():
            return select(CLIENTES.c.nome).order_by(CLIENTES.c.id)

        self.names = names

    async def do(self, verb, *words):
        if verb == "read":
            async with AsyncSession(self.engine) as session:
                return [row.nome for row in await self.names(session)]
        if verb == "insert":
            await self.writer.execute(insert_into(CLIENTES).values(id=int(words[0]), nome=words[1]))
        elif verb == "statements":
            return sum("SELECT" in text and "clientes" in text for text in self.sent)
        else:
            await getattr(self.writer, verb)()
        return verb

    async def serve(self):
        answer("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer(await self.do(*line.split()))
        await self.writer.close()
        await self.engine.dispose()
        await self.cache.aclose()
        await self.redis.aclose()


if __name__ == "__main__":
    asyncio.run(Process(*sys.argv[1:]).serve())
