"""Any number of commands in constant memory: a few chunks are on their way while the next is drawn."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from itertools import islice
from typing import Any

from isp_perf.errors import ConfigurationError
from isp_perf.redis._sender import Sender

__all__ = ["in_chunks"]

_CHUNKS_AHEAD = 4


async def in_chunks(
    client: Sender, commands: Iterable[tuple[Any, ...]], *, limit: int
) -> AsyncGenerator[list[Any], None]:
    """Send commands in chunks of ``limit`` and yield the raw replies of each chunk, exceptions in their places.

    At most four chunks are held in memory. Chunks are written in order; only what is repeated after a lost link may
    run behind a later chunk.

    Raises:
        ConfigurationError: a command that cannot share a link.
    """
    source = iter(commands)
    ahead: deque[asyncio.Task[list[Any]]] = deque()
    try:
        while True:
            while len(ahead) < _CHUNKS_AHEAD and (chunk := list(islice(source, limit))):
                _check(client, chunk)
                ahead.append(asyncio.create_task(client.run_raw(chunk)))
            if not ahead:
                return
            yield await ahead.popleft()
    finally:
        for task in ahead:
            task.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)


def _check(client: Sender, chunk: list[tuple[Any, ...]]) -> None:
    for name in {args[0] for args in chunk}:
        if not client.shareable(name):
            rule = "needs a connection of its own, a stream shares one"
            raise ConfigurationError("commands", str(name), rule, "call it through client()")
