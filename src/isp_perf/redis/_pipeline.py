"""redis-py's pipeline over the shared link: commands are staged as ever, and sent in one piece."""

import asyncio
from typing import Any, cast

from redis.asyncio.client import Pipeline

from isp_perf._core.ranges import one_of, whole
from isp_perf.redis._sender import Sender, Staged
from isp_perf.redis._staged import has_error, raise_lost, unit_commands, unit_replies
from isp_perf.redis._stream import in_chunks

__all__ = ["LinkPipeline", "PoolPipeline"]


# redis-py leaves these methods without annotations.
_EXECUTE = cast("Any", Pipeline).execute_command
_IMMEDIATE = cast("Any", Pipeline).immediate_execute_command
_RAISE_FIRST = cast("Any", Pipeline).raise_first_error
_RESET = cast("Any", Pipeline).reset


class LinkPipeline(Pipeline):
    """``redis.asyncio.client.Pipeline`` whose ``execute`` uses the shared link; with WATCH it has its own connection.

    Args:
        client: the client it was made by.
        transaction: wrap the commands in MULTI and EXEC (default, as in redis-py).
        shard_hint: ignored, as in redis-py.
    """

    command_stack: Any
    connection_pool: Any

    def __init__(self, client: Sender, transaction: Any = None, shard_hint: str | None = None) -> None:
        wrapped = transaction is None or bool(transaction)
        super().__init__(client.connection_pool, client.response_callbacks, wrapped, shard_hint)
        self._client = client

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Stage a command and return the pipeline; WATCH, and what follows it, runs at once, as in redis-py."""
        if self.watching or args[0] == "WATCH":
            return _EXECUTE(self, *args, **options)
        self.command_stack.append((args, options))
        return self

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Run WATCH, or a command after it, on the pipeline's own connection."""
        states = self._client.states
        await states.current()
        self.connection_pool = self._client.connection_pool
        async with states.translated(str(args[0])), asyncio.timeout(states.settings.timeout):
            return await _IMMEDIATE(self, *args, **options)

    async def execute(self, *args: Any, **options: Any) -> list[Any]:
        """Send everything staged and return the replies in order; arguments as in redis-py (``raise_on_error``).

        Raises:
            NotSentError: nothing was executed.
            MaybeExecutedError: sent, no answer; a transaction is executed completely or not at all.
            redis.exceptions.WatchError: a watched key changed.
            redis.exceptions.ResponseError: the first error reply, unless ``raise_on_error`` is false.
        """
        raise_on_error = bool(args[0] if args else options.get("raise_on_error", True))
        stack = cast("list[Staged]", self.command_stack)
        if self.watching or not self._shareable(stack):
            return await self._execute_alone(raise_on_error=raise_on_error)
        if not stack:
            return []
        try:
            await self._load_scripts()
            replies = await (self._execute_unit(stack) if self._is_unit else self._client.run(stack))
        finally:
            await _RESET(self)
        self._raise(stack, replies, server_errors=raise_on_error)
        return replies

    def _raise(self, stack: list[Staged], replies: list[Any], *, server_errors: bool) -> None:
        """Raise the first lost command, else, with ``server_errors``, the server's first error."""
        if has_error(replies):
            raise_lost(replies)
            if server_errors:
                _RAISE_FIRST(self, stack, replies)

    @property
    def _is_unit(self) -> bool:
        """Whether the commands stand or fall together."""
        return bool(self.is_transaction or self.explicit_transaction)

    def _shareable(self, stack: list[Any]) -> bool:
        """Return whether a shared link may carry every command; each is looked at, so that a refused one raises."""
        verdicts = [self._client.shareable(name) for name in {args[0] for args, _ in stack}]
        return all(verdicts)

    async def _execute_alone(self, *, raise_on_error: bool) -> list[Any]:
        states = self._client.states
        await states.current()
        self.connection_pool = self._client.connection_pool
        async with states.translated("MULTI"), asyncio.timeout(states.settings.timeout):
            replies: list[Any] = await super().execute(raise_on_error)
            return replies

    async def _load_scripts(self) -> None:
        scripts = list(self.scripts)
        if not scripts:
            return
        client = cast("Any", self._client)
        known = await client.script_exists(*(script.sha for script in scripts))
        for script, exists in zip(scripts, known, strict=True):
            if not exists:
                script.sha = await client.script_load(script.script)

    async def _execute_unit(self, stack: list[Staged]) -> list[Any]:
        """Send MULTI, the commands and EXEC as one unit and return shaped replies, errors in their places."""
        answers = await self._client.run_unit(unit_commands(stack))
        replies = unit_replies(stack, answers, self.annotate_exception)
        return await self._client.shape_all(stack, replies)


class PoolPipeline(LinkPipeline):
    """What ``RedisPool.pipeline()`` gives: commands queue up on it and are sent in chunks.

    ``execute`` sends what is queued and returns its results in order; leaving the ``async with`` block sends the rest,
    unless the block failed, in which case nothing more is sent.

    Args:
        client: the pool's client.
        limit: commands per chunk, 1-100,000 (default 256); at most four chunks are on their way.
        on_error: ``"raise"`` raises the first error after everything was answered; ``"collect"`` returns each error
            in its command's place.
        transaction: one MULTI ... EXEC block instead of chunks.

    Raises:
        ConfigurationError: ``limit`` or ``on_error`` outside the above.
    """

    command_stack: Any

    def __init__(self, client: Sender, *, limit: int, on_error: str, transaction: bool) -> None:
        whole("limit", limit, least=1, most=100_000)
        one_of("on_error", on_error, ("raise", "collect"))
        super().__init__(client, transaction)
        self._limit = limit
        self._collect = on_error == "collect"

    async def __aexit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        try:
            if kind is None:
                await self.execute()
        finally:
            await _RESET(self)

    async def execute(self, *args: Any, **options: Any) -> list[Any]:
        """Send what is queued and return its results in order; redis-py's ``raise_on_error`` overrides ``on_error``."""
        raise_on_error = bool(args[0] if args else options.get("raise_on_error", not self._collect))
        stack = cast("list[Staged]", self.command_stack)
        if self.watching or self._is_unit or self.scripts or not self._shareable(stack):
            return await super().execute(raise_on_error)
        self.command_stack = []
        replies = await self._execute_chunks(stack)
        if raise_on_error:
            self._raise(stack, replies, server_errors=True)
        return replies

    async def _execute_chunks(self, stack: list[Staged]) -> list[Any]:
        replies: list[Any] = []
        async for chunk in in_chunks(self._client, (args for args, _ in stack), limit=self._limit):
            replies += chunk
        return await self._client.shape_all(stack, replies)
