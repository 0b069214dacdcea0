"""What a cluster's answers ask for: once more, elsewhere or a moment later. One flow for both colours.

MOVED and ASK are answered per command, never per batch: the other commands of a batch were executed, and would be
executed twice. Source: the Redis cluster specification.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple, cast

from redis.exceptions import AskError, MovedError, ResponseError, TryAgainError

from isp_perf._core.routing import Route
from isp_perf._core.slots import first_key, key_slot
from isp_perf.errors import ConfigurationError, MaybeExecutedError, NotSentError, RemoteError
from isp_perf.redis._cluster import Cluster, encoded_key
from isp_perf.redis._config import Address
from isp_perf.redis._errors import UNEXECUTED

__all__ = [
    "AGAIN_IF_HARMLESS",
    "Call",
    "Command",
    "Ways",
    "again",
    "groups",
    "is_everywhere",
    "joined",
    "one_key",
    "redirect",
    "rest",
    "together",
    "united",
]

_AGAIN: Final = (AskError, MovedError, NotSentError, *UNEXECUTED)
"""Answers after which a command was surely not executed, and may be elsewhere or later."""

AGAIN_IF_HARMLESS: Final = (*_AGAIN, MaybeExecutedError)
"""The same for commands that only read, or that the caller declared idempotent."""

Command = tuple[Any, ...]
_PAUSE: Final = 0.02  # seconds between two attempts while the cluster decides
# Commands without a key that concern every primary: the first reply stands for all, or they are joined.
_EVERYWHERE: Final = {
    "DBSIZE",
    "FLUSHALL",
    "FLUSHDB",
    "KEYS",
    "SCRIPT LOAD",
    "SCRIPT FLUSH",
    "SCRIPT EXISTS",
    "FUNCTION LOAD",
    "FUNCTION DELETE",
    "FUNCTION FLUSH",
    "CONFIG SET",
}


class Ways(NamedTuple):
    """How a client of one colour does what the flow asks for; every one of them is a step.

    Args:
        send: sends one command to a node and returns a list with its raw reply.
        unit: sends commands to a node in one piece and returns their raw replies.
        pause: waits so many seconds.
        refresh: asks for the map.
    """

    send: Callable[[Address, Command], Any]
    unit: Callable[[Address, list[Command]], Any]
    pause: Callable[[float], Any]
    refresh: Callable[[], Any]


class Call(NamedTuple):
    """A command that may have to be repeated.

    Args:
        args: the command.
        key: its first key.
        since: when the call began, in monotonic seconds; no attempt begins later than the pool's ``timeout`` after it.
        harmless: executing it twice does no harm.
    """

    args: Command
    key: Any
    since: float
    harmless: bool = False

    @property
    def repeatable(self) -> tuple[type[Exception], ...]:
        """The failures after which it is repeated."""
        return AGAIN_IF_HARMLESS if self.harmless else _AGAIN


def redirect(cluster: Cluster, error: AskError | MovedError, key: Any) -> Address:
    """Return the node that an answer names, and remember it if the slot has moved for good."""
    host = str(cast("Any", error).host or cluster.owner_of(key).host)
    address = Address(host, int(error.port))
    if isinstance(error, MovedError):
        cluster.moved(key_slot(encoded_key(key)), address)
    return address


def again(cluster: Cluster, ways: Ways, call: Call, *, error: Exception) -> Generator[Callable[[], Any], Any, Any]:
    """Return the raw reply to a command that has none yet; an error reply is one too.

    Args:
        cluster: the nodes.
        ways: how to send and to wait.
        call: the command.
        error: what it was answered, or why there is no answer.

    Raises:
        NotSentError: it could be executed nowhere within the pool's timeout.
        MaybeExecutedError: it was sent, and no answer came.
    """
    deadline = call.since + cluster.settings.timeout
    reply: Any = error
    while isinstance(reply, call.repeatable) and monotonic() < deadline:
        try:
            reply = yield from _once(cluster, ways, call, reply=reply)
        except RemoteError as failure:
            reply = failure
    if isinstance(reply, RemoteError):
        raise reply
    return reply


def _once(cluster: Cluster, ways: Ways, call: Call, *, reply: Any) -> Generator[Callable[[], Any], Any, Any]:
    if isinstance(reply, AskError) and not isinstance(reply, MovedError):  # redis-py derives the latter from the former
        _, reply = yield partial(ways.unit, redirect(cluster, reply, call.key), [("ASKING",), call.args])
        return reply
    if isinstance(reply, MovedError):
        address = redirect(cluster, reply, call.key)
    else:
        yield partial(ways.pause, _PAUSE)
        if not isinstance(reply, TryAgainError):
            yield ways.refresh
        address = cluster.owner_of(call.key)
    (reply,) = yield partial(ways.send, address, call.args)
    return reply


def rest(
    cluster: Cluster, ways: Ways, replies: list[Any], *, call_of: Callable[[int], Call | None]
) -> Generator[Callable[[], Any], Any, list[Any]]:
    """Repeat those commands of a batch that have no reply yet, one after the other, and return all replies.

    Args:
        cluster: the nodes.
        ways: how to send and to wait.
        replies: of the batch, a failure in the place of each that has none.
        call_of: returns the command at a position; ``None`` for one without a key, which is not repeated.
    """
    for i, reply in enumerate(replies):
        if not isinstance(reply, AGAIN_IF_HARMLESS) or (call := call_of(i)) is None:
            continue
        try:
            replies[i] = yield from again(cluster, ways, call, error=reply)
        except RemoteError as failure:
            replies[i] = failure
    return replies


def united(
    cluster: Cluster, ways: Ways, commands: Sequence[Command], *, key: Any
) -> Generator[Callable[[], Any], Any, list[Any]]:
    """Return the raw replies to commands that stand or fall together, sent again where their slot has moved to.

    Args:
        cluster: the nodes.
        ways: how to send.
        commands: MULTI, what belongs to it, EXEC.
        key: one of the slot they concern; ``None``: any primary will do.
    """
    address = cluster.known_primaries()[0] if key is None else cluster.owner_of(key)
    replies: list[Any] = yield partial(ways.unit, address, list(commands))
    moved = next((reply for reply in replies if isinstance(reply, MovedError)), None)
    if moved is not None:
        replies = yield partial(ways.unit, redirect(cluster, moved, key), list(commands))
    return replies


def together(parts: Iterable[Sequence[int]], answers: Iterable[Sequence[Any]], count: int) -> list[Any]:
    """Return the replies of every node's part of a batch in the order of its ``count`` commands."""
    replies: list[Any] = [None] * count
    for positions, answer in zip(parts, answers, strict=True):
        for position, reply in zip(positions, answer, strict=True):
            replies[position] = reply
    return replies


def is_everywhere(found: Route, args: Sequence[Any]) -> bool:
    """Return whether a command without a key concerns every primary.

    Raises:
        ConfigurationError: SCAN, whose cursor belongs to one node.
    """
    words = found.words
    name = words[0]
    if name == "SCAN":
        rule = "a cluster has one cursor per node"
        raise ConfigurationError("command", "SCAN", rule, "use delete_pattern() or KEYS")
    second = words[1] if len(words) > 1 else str(args[1]).upper() if len(args) > 1 else ""
    return name in _EVERYWHERE or f"{name} {second}" in _EVERYWHERE


def joined(name: str, replies: Sequence[Any]) -> Any:
    """Return one reply for the replies of every primary."""
    error = next((reply for reply in replies if isinstance(reply, ResponseError)), None)
    if error is not None:
        return error
    if name == "DBSIZE":
        return sum(replies)
    return [key for reply in replies for key in reply] if name == "KEYS" else replies[0]


def groups(cluster: Cluster, keys: Sequence[Any]) -> dict[Address, list[int]]:
    """Return the positions of the commands of each node; one without a key goes to the first.

    Raises:
        NotSentError: a slot that nobody serves.
    """
    found: dict[Address, list[int]] = {}
    anyone = cluster.known_primaries()[:1]
    for i, key in enumerate(keys):
        found.setdefault(anyone[0] if key is None and anyone else cluster.owner_of(key), []).append(i)
    return found


def one_key(commands: Sequence[Command], words: Callable[[Any], tuple[str, ...]]) -> Any:
    """Return a key of the one slot that a transaction concerns, or ``None`` if it has no key.

    Raises:
        ConfigurationError: its keys belong to several slots.
    """
    keys = [first_key(words(args[0]), args) for args in commands]
    slots = {key_slot(encoded_key(key)): key for key in keys if key is not None}
    if len(slots) > 1:
        rule = "a transaction in a cluster has the keys of one slot"
        raise ConfigurationError("commands", f"{len(slots)} slots", rule, "give the keys a hash tag: {user:7}:name")
    return next(iter(slots.values()), None)
