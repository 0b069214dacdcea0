"""The cache's orders as commands: one script each, known to the server by its digest, sent as text when it is not.

Every script touches only the keys it is given. Arguments are counted bytes, so nothing can be injected.
"""

from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, Final, NamedTuple, cast

from redis.exceptions import NoScriptError, ResponseError

from isp_perf.redis._errors import UNEXECUTED, LostNotSentError
from isp_perf.typing import (
    Announce,
    Answer,
    Commit,
    Drop,
    DropIf,
    Fill,
    Identity,
    Intent,
    Lease,
    Order,
    Ping,
    Put,
    Read,
    Release,
    Renew,
    Replace,
    Swap,
)

__all__ = ["Command", "Dialect", "reply_for"]

Command = tuple[Any, ...]
_VERSION_LIFE: Final = 30 * 86_400_000
_REPLICA: Final = "READONLY the server is a replica"


class Script(NamedTuple):
    """A script and its digest."""

    text: str
    digest: str


def _script(text: str) -> Script:
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


# What removes or replaces a value says so on a channel that is named by the first part of the namespace, for those
# whose server or proxy cannot track; nobody has to listen, and a user who may not publish is not stopped.
_TELL: Final = """
local function tell(kind)
  local names = {}
  for i, key in ipairs(KEYS) do names[i] = #key .. ':' .. key end
  redis.pcall('PUBLISH', string.match(KEYS[1], '^[^:]*') .. ':%changes', kind .. table.concat(names))
end
"""

# Keys: first those beside, then those asked for. A version that does not exist is made, so that it is known before a
# load begins; the first one, the namespace's, never expires. A server that stores nothing may still be read.
_LEASE: Final = _script("""
local beside, found, none = {}, {}, false
local function store(key, value, life)
  local done = life == '0' and redis.pcall('SET', key, value) or redis.pcall('SET', key, value, 'PX', life)
  if type(done) == 'table' and done.err then
    if string.find(done.err, 'READONLY', 1, true) then return done end
    none = true
  end
  return nil
end
local count = tonumber(ARGV[1])
for i = 1, count do
  local version = redis.call('GET', KEYS[i])
  if not version then
    version = ARGV[4]
    local failed = store(KEYS[i], version, i == 1 and '0' or ARGV[5])
    if failed then return failed end
    if none then version = '' end
  end
  beside[i] = version
end
for i = count + 1, #KEYS do
  local value, left = redis.pcall('GET', KEYS[i]), -1
  if type(value) == 'string' then
    left = redis.call('PTTL', KEYS[i])
  elseif type(value) == 'table' and value.err and not string.find(value.err, 'WRONGTYPE', 1, true) then
    return value
  else
    if none then
      value = 'N'
    else
      local failed = store(KEYS[i], ARGV[2], ARGV[3])
      if failed then return failed end
      value = none and 'N' or false
    end
  end
  found[#found + 1] = value
  found[#found + 1] = left
end
return {beside, found}
""")
_READ: Final = _script("""
local beside, found = {}, {}
local count = tonumber(ARGV[1])
for i = 1, count do beside[i] = redis.call('GET', KEYS[i]) or '' end
for i = count + 1, #KEYS do
  local value = redis.pcall('GET', KEYS[i])
  if type(value) ~= 'string' then value = false end
  found[#found + 1] = value
  found[#found + 1] = value and redis.call('PTTL', KEYS[i]) or -1
end
return {beside, found}
""")
_FILL: Final = _script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")
_FILL_TOLD: Final = _script(
    _TELL
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
tell('+' .. ARGV[4])
return 1
"""
)
_PUT: Final = _script(
    _TELL
    + """
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'string' and string.sub(value, 1, 1) == 'T' and #value > 1 and #value % 8 == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
tell('!')
return 1
"""
)
_SWAP: Final = _script(
    _TELL
    + """
local value = redis.call('GET', KEYS[1])
if not value or redis.sha1hex(value) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
tell('!')
return 1
"""
)
_RENEW: Final = _script("""
local kept = 0
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[i + 1] then
    redis.call('PEXPIRE', key, ARGV[1])
    kept = kept + 1
  end
end
return kept
""")
_DROP: Final = _script(
    _TELL
    + """
local gone = 0
for _, key in ipairs(KEYS) do
  local value = redis.pcall('GET', key)
  if not (type(value) == 'string' and string.sub(value, 1, 1) == 'T' and #value > 1 and #value % 8 == 1) then
    gone = gone + redis.call('DEL', key)
  end
end
tell('!')
return gone
"""
)
_DROP_IF: Final = _script(
    _TELL
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
tell('!')
return 1
"""
)
_REPLACE: Final = _script("""
local value = redis.call('GET', KEYS[1])
if not value or redis.sha1hex(value) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")
_INTENT: Final = _script(
    _TELL
    + """
for _, key in ipairs(KEYS) do
  local value = redis.pcall('GET', key)
  local intended = type(value) == 'string' and string.sub(value, 1, 1) == 'T' and #value > 1 and #value % 8 == 1
  redis.call('SET', key, (intended and value or 'T') .. ARGV[1], 'PX', ARGV[2])
end
tell('!')
return 1
"""
)
_COMMIT: Final = _script(
    _TELL
    + """
for _, key in ipairs(KEYS) do
  local value, left = redis.pcall('GET', key), ''
  if type(value) == 'string' and string.sub(value, 1, 1) == 'T' and #value > 1 and #value % 8 == 1 then
    for i = 2, #value, 8 do
      local writer = string.sub(value, i, i + 7)
      if writer ~= ARGV[1] then left = left .. writer end
    end
  end
  local life = left ~= '' and redis.call('PTTL', key) or 0
  if life > 0 then redis.call('SET', key, 'T' .. left, 'PX', life) else redis.call('DEL', key) end
end
tell('!')
return 1
"""
)
_ANNOUNCE: Final = _script("""
local time = redis.call('TIME')
local now = tonumber(time[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)
""")


def _run(script: Script, keys: Sequence[str], *arguments: Any) -> Command:
    return ("EVALSHA", script.digest, len(keys), *map(_wire, keys), *arguments)


def _wire(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _held(token: bytes) -> bytes:
    return b"L" + token


def _lease(order: Lease) -> Command:
    arguments = (len(order.beside), _held(order.token), _ms(order.seconds), order.fresh, _VERSION_LIFE)
    return _run(_LEASE, (*order.beside, *order.keys), *arguments)


def _scripted_fill(order: Fill) -> Command:
    return _run(_FILL, *_fill_parts(order))


def _fill_parts(order: Fill) -> tuple[Any, ...]:
    return (order.key,), _held(order.token), order.data, _ms(order.ttl)


def _renew(order: Renew) -> Command:
    return _run(_RENEW, order.keys, _ms(order.seconds), *map(_held, order.tokens))


_PACKERS: Final[dict[type[Any], Callable[[Any], Command]]] = {
    Read: lambda order: _run(_READ, (*order.beside, *order.keys), len(order.beside)),
    Lease: _lease,
    Fill: lambda order: ("SET", _wire(order.key), order.data, "PX", _ms(order.ttl), "IFEQ", _held(order.token)),
    Put: lambda order: _run(_PUT, (order.key,), order.data, _ms(order.ttl)),
    Swap: lambda order: _run(_SWAP, (order.key,), order.seen, order.data, _ms(order.ttl)),
    Renew: _renew,
    Release: lambda order: _run(_DROP_IF, (order.key,), _held(order.token)),
    Replace: lambda order: _run(_REPLACE, (order.key,), order.seen, _held(order.token), _ms(order.seconds)),
    Drop: lambda order: _run(_DROP, order.keys),
    DropIf: lambda order: _run(_DROP_IF, (order.key,), order.seen),
    Intent: lambda order: _run(_INTENT, order.keys, order.writer, _ms(order.seconds)),
    Commit: lambda order: _run(_COMMIT, order.keys, order.writer),
    Announce: lambda order: _run(_ANNOUNCE, (order.key,), order.member, max(1, round(order.seconds))),
    Ping: lambda order: ("PING", order.nonce),
    Identity: lambda _: ("INFO",),
}


_TEXTS: Final = {
    script.digest: script.text
    for script in (
        _LEASE, _READ, _FILL, _FILL_TOLD, _PUT, _SWAP, _RENEW, _DROP, _DROP_IF, _REPLACE, _INTENT, _COMMIT, _ANNOUNCE
    )
}  # fmt: skip


class Dialect:
    """What one server understands, found out by trying.

    A fill is one ``SET ... IFEQ`` where that exists (Valkey 8.1, Redis 8.4): the server then knows who wrote, and
    spares the writer the news of its own write, which it does not for scripts.

    Args:
        sender: who fills (8 bytes), where fills are to be published; empty: they are not.
    """

    __slots__ = ("_compares", "_sender")

    def __init__(self, sender: bytes = b"") -> None:
        self._compares = not sender
        self._sender = sender

    def commands(self, orders: Sequence[Order]) -> list[Command]:
        """Return the command of each order."""
        return [
            self._fill(order) if isinstance(order, Fill) and not self._compares else _PACKERS[type(order)](order)
            for order in orders
        ]

    def _fill(self, order: Fill) -> Command:
        return (*_run(_FILL_TOLD, *_fill_parts(order)), self._sender) if self._sender else _scripted_fill(order)

    def again(self, orders: Sequence[Order], commands: Sequence[Command], replies: Sequence[Any]) -> dict[int, Command]:
        """Return, by position, what to send again in other words, because the server did not understand it."""
        repeated: dict[int, Command] = {}
        for i, (order, command, reply) in enumerate(zip(orders, commands, replies, strict=True)):
            if isinstance(reply, NoScriptError):
                repeated[i] = ("EVAL", _TEXTS[command[1]], *command[2:])
            elif isinstance(order, Fill) and isinstance(reply, ResponseError) and "syntax" in str(reply):
                self._compares = False
                repeated[i] = ("EVAL", _FILL.text, *_scripted_fill(order)[2:])
        return repeated


def reply_for(order: Order, reply: Any) -> Any:
    """Return what the server's reply to ``order`` means.

    Raises:
        Exception: the error it answered.
    """
    if isinstance(reply, UNEXECUTED):
        refused = LostNotSentError(f"refused by the server: {type(reply).__name__}")
        raise refused from reply
    if isinstance(reply, Exception):
        raise reply
    return _READERS.get(type(order), bool)(reply)


def _answer(reply: Any) -> Answer:
    beside, flat = reply
    left = [None if ms < 0 else ms / 1000 for ms in flat[1::2]]
    return Answer(list(zip(flat[0::2], left, strict=True)), list(beside))


def _members(reply: Any) -> list[str]:
    return [member.decode("utf-8", "replace") for member in reply]


def _nothing(_reply: Any) -> None:
    return None


def _identity(reply: Any) -> str:
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)
    facts = dict(cast("tuple[str, str]", line.split(":", 1)) for line in text.splitlines() if ":" in line)
    if facts.get("role", "master") != "master":
        raise LostNotSentError(_REPLICA)
    return f"{facts.get('run_id', '')}/{facts.get('master_replid', '')}"


_READERS: Final[dict[type[Any], Callable[[Any], Any]]] = {
    Read: _answer,
    Lease: _answer,
    Renew: int,
    Drop: int,
    Intent: _nothing,
    Commit: _nothing,
    Announce: _members,
    Ping: bytes,
    Identity: _identity,
}
