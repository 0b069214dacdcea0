"""redis-py's pipeline for threads over the shared connection: staged as ever, sent in chunks."""

from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import islice
from typing import Any, Protocol, cast

from redis.client import Pipeline

from isp_perf._core.ranges import one_of, whole
from isp_perf.errors import ConfigurationError
from isp_perf.redis._sender import Staged
from isp_perf.redis._staged import has_error, raise_lost, unit_commands, unit_replies

__all__ = ["BlockingPipeline", "BlockingSender", "LeavingPipeline", "stream"]

_CHUNK = 1024  # commands that one thread sends before another has its turn

# redis-py leaves these methods without annotations.
_EXECUTE = cast("Any", Pipeline).execute
_EXECUTE_COMMAND = cast("Any", Pipeline).execute_command
_IMMEDIATE = cast("Any", Pipeline).immediate_execute_command
_INIT = cast("Any", Pipeline).__init__
_RAISE_FIRST = cast("Any", Pipeline).raise_first_error


class BlockingSender(Protocol):
    """A blocking client over the shared connection."""

    connection_pool: Any
    response_callbacks: Any

    def run_raw(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands as one batch; the server's own replies in order, an exception for each failure."""
        ...

    def run_unit(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands that stand or fall together; their raw replies."""
        ...

    def shape_all(self, commands: Sequence[Staged], replies: list[Any]) -> list[Any]:
        """Put raw replies into redis-py's shape, in place; exceptions stay as they are."""
        ...

    def shareable(self, name: Any) -> bool:
        """Return whether a command may run on the shared connection."""
        ...

    def translated(self, name: str, call: Callable[[], Any]) -> Any:
        """Call something of redis-py's, and say by type what its failure means."""
        ...


class BlockingPipeline(Pipeline):
    """``redis.client.Pipeline`` whose ``execute`` uses the shared connection; with WATCH it has its own.

    Args:
        client: the client it was made by.
        transaction: wrap the commands in MULTI and EXEC (default, as in redis-py).
        shard_hint: ignored, as in redis-py.
        collect: return errors in their places instead of raising the first one, unless ``execute`` is told otherwise.
        limit: commands per chunk, 1-100,000.
    """

    command_stack: Any
    explicit_transaction: Any

    def __init__(
        self,
        client: BlockingSender,
        transaction: Any = None,
        shard_hint: str | None = None,
        *,
        collect: bool = False,
        limit: int = _CHUNK,
    ) -> None:
        whole("limit", limit, least=1, most=100_000)
        self._wrapped = transaction is None or bool(transaction)
        _INIT(self, client.connection_pool, client.response_callbacks, self._wrapped, shard_hint)
        self._client = client
        self._collect = collect
        self._limit = limit

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        self.reset()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Stage a command and return the pipeline; WATCH, and what follows it, runs at once, as in redis-py."""
        if self.watching or args[0] == "WATCH":
            return _EXECUTE_COMMAND(self, *args, **options)
        self.command_stack.append((args, options))
        return self

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Run WATCH, or a command after it, on the pipeline's own connection."""
        return self._client.translated(str(args[0]), lambda: _IMMEDIATE(self, *args, **options))

    def execute(self, *args: Any, **options: Any) -> list[Any]:
        """Send everything staged and return the replies in order; arguments as in redis-py (``raise_on_error``).

        Raises:
            NotSentError: nothing was executed.
            MaybeExecutedError: sent, no answer; a transaction is executed completely or not at all.
            redis.exceptions.WatchError: a watched key changed.
            redis.exceptions.ResponseError: the first error reply, unless ``raise_on_error`` is false.
        """
        raise_on_error = bool(args[0] if args else options.get("raise_on_error", not self._collect))
        stack = list(cast("list[Staged]", self.command_stack))
        if self.watching or not self._shareable(stack):
            replies: list[Any] = self._client.translated("MULTI", lambda: _EXECUTE(self, raise_on_error))
            return replies
        try:
            replies = self._send(stack)
        finally:
            self.reset()
        if raise_on_error and has_error(replies):
            raise_lost(replies)
            _RAISE_FIRST(self, stack, replies)
        return replies

    def _shareable(self, stack: list[Staged]) -> bool:
        """Return whether the shared connection may carry every command; a refused one raises."""
        verdicts = [self._client.shareable(name) for name in {args[0] for args, _ in stack}]
        return not self.scripts and all(verdicts)

    def _send(self, stack: list[Staged]) -> list[Any]:
        if not stack:
            return []
        if self._wrapped or self.explicit_transaction:
            answers = self._client.run_unit(unit_commands(stack))
            return self._client.shape_all(stack, unit_replies(stack, answers, cast("Any", self).annotate_exception))
        replies: list[Any] = []
        for start in range(0, len(stack), self._limit):
            replies += self._client.run_raw([args for args, _ in stack[start : start + self._limit]])
        return self._client.shape_all(stack, replies)


class LeavingPipeline(BlockingPipeline):
    """A pipeline that sends what is still staged when its block is left, unless the block failed."""

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        try:
            if kind is None:
                self.execute()
        finally:
            self.reset()


def stream(
    client: BlockingSender, commands: Iterable[tuple[Any, ...]], *, limit: int, on_error: str
) -> Generator[Any, None, None]:
    """Yield the server's own replies to any number of commands, in order; one chunk is held in memory.

    Raises:
        ConfigurationError: a setting outside its range, or a command that cannot share a connection.
    """
    whole("limit", limit, least=1, most=100_000)
    one_of("on_error", on_error, ("raise", "collect"))
    source = iter(commands)
    while chunk := list(islice(source, limit)):
        for name in {args[0] for args in chunk}:
            if not client.shareable(name):
                rule = "needs a connection of its own, a stream shares one"
                raise ConfigurationError("commands", str(name), rule, "call it through sync()")
        for reply in client.run_raw(chunk):
            if isinstance(reply, Exception) and on_error == "raise":
                raise reply
            yield reply
