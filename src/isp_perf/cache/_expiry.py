"""Many entries due at once, without holding anybody up.

Two passes. The first takes the entries out of sight: if everything that a function's ``hot`` holds is due, with one C
call, otherwise entry by entry. The second, which nobody waits for, does the books: counters, queues, memory. Both work
in slices of 2 ms and let go of the lock and of the interpreter in between, so that a busy thread is never held up for
longer than that; it gives the interpreter back after 5 ms, which is what a slice costs in the end.
"""

from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Final

from isp_perf._runtime.reaper import Journal
from isp_perf.cache._store import Store

__all__ = ["all_items", "give_back", "hide_all", "in_slices"]

_SLICE_SECONDS: Final = 0.002
_SLICE_ITEMS: Final = 256


def in_slices(lock: Any, items: list[Any], work: Callable[[list[Any]], None]) -> None:
    """Do ``work`` with a few of ``items`` at a time, under the lock, and let go of each when its work is done."""
    end = monotonic() + _SLICE_SECONDS
    while items:
        part = items[-_SLICE_ITEMS:]
        del items[-_SLICE_ITEMS:]
        with lock:
            work(part)
        if items and monotonic() >= end:
            del part
            sleep(0)
            end = monotonic() + _SLICE_SECONDS


def hide_all(journals: list[Journal]) -> list[Journal]:
    """Empty the stores of which everything is due, and return the journals that remain to be hidden one by one."""
    groups: dict[Store, list[Journal]] = {}
    for journal in journals:
        groups.setdefault(journal.group, []).append(journal)
    rest: list[Journal] = []
    for store, together in groups.items():
        final = all(journal.final for journal in together)
        if final and not store.cold and sum(journal.alive for journal in together) == len(store.shelf):
            store.shelf.clear()
        else:
            rest += together
    return rest


def all_items(journals: list[Journal]) -> list[Any]:
    """Return the items of all, and leave the journals empty."""
    items: list[Any] = []
    for journal in journals:
        items += journal.items
        journal.items = []
    return items


def give_back(lock: Any, sweep: Callable[[int], bool]) -> None:
    """Have the queues give back the places of those who left."""
    end = monotonic() + _SLICE_SECONDS
    more = True
    while more:
        with lock:
            more = sweep(_SLICE_ITEMS)
        if more and monotonic() >= end:
            sleep(0)
            end = monotonic() + _SLICE_SECONDS
