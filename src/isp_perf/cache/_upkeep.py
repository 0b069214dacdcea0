"""What goes on beside the callers: proofs of life, renewal of leases, and the way back after an outage.

One flow per manager, in a task of the channel's loop or in a thread. It holds its manager only while it works, so it
ends with it.
"""

from collections.abc import Sequence
from functools import partial
from itertools import count
from random import SystemRandom
from secrets import token_bytes
from time import monotonic
from typing import Any, Final
from weakref import ref

from isp_perf._core.leases import RENEW_SECONDS, backoff, kind_of
from isp_perf.cache._home import Home
from isp_perf.cache._remote import DEADLINE, SICKNESS, SecondLevel, Steps
from isp_perf.typing import Announce, Drop, DropIf, Identity, Order, Ping

__all__ = ["keep"]

_PATIENCE: Final = 4 * DEADLINE
_ANNOUNCE_SECONDS: Final = 10.0
_SCHEMA_LIFE: Final = 60.0
_LONGEST_PAUSE: Final = 0.05
_IDLE_PAUSE: Final = 0.25
_IDLE_AFTER: Final = 1.0
_BEATS_PER_BOUND: Final = 4
_SHORT_OUTAGE: Final = 1.0
_CHUNKS_PER_TRIP: Final = 20
_MOST_TRIPS: Final = 200
_draw: Final = SystemRandom().random


def keep(second: "ref[SecondLevel]", home: Home) -> Steps:
    """Tend the remote level of a manager until the manager or the channel is gone."""
    beat = _Beat()
    while not home.gone:
        level = second()
        if level is None:
            home.close()
            break
        pause = yield from beat.tend(level, home)
        del level
        yield partial(home.pause, pause)


class _Beat:
    """When what is due next."""

    __slots__ = ("_announce_at", "_renew_at", "_sent")

    def __init__(self) -> None:
        self._announce_at = 0.0
        self._renew_at = 0.0
        self._sent = 0

    def tend(self, second: SecondLevel, home: Home) -> Steps:
        """Do what is due and return the seconds until it is to be called again."""
        if not second.ready:
            return (yield from _recover(second, home))
        now = monotonic()
        idle = _idle(second, now)
        orders = self._due(second, now, idle=idle)
        if orders and (answers := (yield from _ask(second, home, orders))) is not None:
            self._learn(second, orders, answers, now=now)
        return _IDLE_PAUSE if idle else min(_LONGEST_PAUSE, second.trust.bound / _BEATS_PER_BOUND)

    def _due(self, second: SecondLevel, now: float, *, idle: bool) -> list[Order]:
        orders: list[Order] = []
        if not second.identity:
            orders.append(Identity())
        if now >= self._announce_at:
            orders.append(Announce(second.schemas_name, second.schema, _SCHEMA_LIFE))
        if now >= self._renew_at:
            self._renew_at = now + RENEW_SECONDS / 2
            orders += second.renewal()
        with second.local.lock:
            self._sent = second.journal.moment
            if not second.delivering and (left := second.journal.chunk()):
                orders.append(Drop(left))
        if orders or not idle:
            orders.append(Ping(token_bytes(8)))
        return orders

    def _learn(self, second: SecondLevel, orders: Sequence[Order], answers: Sequence[Any], *, now: float) -> None:
        for order, answer in zip(orders, answers, strict=True):
            if isinstance(order, Identity):
                second.identity = answer or "unknown"
            elif isinstance(order, Announce):
                self._announce_at = now + _ANNOUNCE_SECONDS
                second.schemas = {second.schema, *answer}
            elif isinstance(order, Drop):
                with second.local.lock:
                    second.journal.delivered(order.keys, sent=self._sent)


def _idle(second: SecondLevel, now: float) -> bool:
    busy = len(second.local) or second.held or len(second.journal)
    return not busy and now - second.used_at > _IDLE_AFTER


def _ask(second: SecondLevel, home: Home, orders: Sequence[Order]) -> Steps:
    """Carry out ``orders`` on the channel; a failure ends the level's use and answers ``None``."""
    sent = monotonic()
    try:
        answers = yield partial(home.channel.perform, orders, within=_PATIENCE)
    except SICKNESS as error:
        if not home.gone:
            second.failed(error)
        return None
    with second.local.lock:
        second.trust.proved_locked(sent)
    return answers


def _recover(second: SecondLevel, home: Home) -> Steps:
    """Probe; if that works compare, deliver, flush, and believe again, in this order."""
    condition = second.condition
    idle = monotonic() - second.used_at > _IDLE_AFTER
    probe: list[Order] = [Identity(), Ping(token_bytes(8))]
    try:
        identity, _ = yield partial(home.channel.perform, probe, within=DEADLINE)
        condition.recovering()
        yield from _deliver(second, home)
        changed = bool(second.identity) and identity != second.identity
        lasted = monotonic() - condition.since
        if second.epoch and (changed or (second.flush and lasted >= _SHORT_OUTAGE)):
            yield partial(home.channel.perform, [DropIf(second.epoch_name, second.epoch)], within=_PATIENCE)
    except SICKNESS as error:
        condition.down(kind_of(error))
        condition.attempts += 1
        return backoff(condition.attempts - 1, _draw(), idle=idle)
    second.identity = identity or "unknown"
    condition.up()
    return 0.0


def _deliver(second: SecondLevel, home: Home) -> Steps:
    """Tell the level everything that stands in the journal.

    Traffic may add to it faster than it is delivered: the rest is delivered after, each name before it is relied on.
    Only a pattern cannot be looked up by name, so nothing is believed while one is left.
    """
    level = second.level if home.loop is not None else second.level.blocking
    for trip in count():
        if not len(second.journal) or (trip >= _MOST_TRIPS and not second.journal.globs()):
            break
        with second.local.lock:
            sent = second.journal.moment
            names, globs = second.journal.chunk(_CHUNKS_PER_TRIP), second.journal.globs()
        if names:
            yield partial(home.channel.perform, [Drop(names)], within=_PATIENCE)
        for glob in globs:
            yield partial(level.delete_pattern, glob, force=True)
            yield partial(home.channel.perform, [Drop((second.all_name,))], within=_PATIENCE)
        with second.local.lock:
            second.journal.delivered(names, globs, sent=sent)
