"""What a person sees while a command works: lines and a bar on stderr, the bar on a terminal only."""

import os
import sys
from typing import Self, TextIO

__all__ = ["Progress", "colour"]

_WIDTH = 30


def colour(text: str, code: int, stream: TextIO) -> str:
    """Return ``text`` in an ANSI colour where ``stream`` is a terminal and NO_COLOR is not set, else as it is."""
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


class Progress:
    """A bar that is drawn over itself while ``total`` steps are made, and gone when the block is left.

    Args:
        label: what is being done.
        total: number of steps, >= 1.
    """

    __slots__ = ("_done", "_drawn", "_label", "_total")

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total = label, total
        self._done, self._drawn = 0, -1

    def __enter__(self) -> Self:
        self._draw()
        return self

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def step(self) -> None:
        """Count one step."""
        self._done += 1
        self._draw()

    def _draw(self) -> None:
        percent = 100 * self._done // self._total
        if percent == self._drawn or not sys.stderr.isatty():
            return
        self._drawn = percent
        bar = colour("#" * (_WIDTH * percent // 100), 32, sys.stderr)
        empty = " " * (_WIDTH - _WIDTH * percent // 100)
        print(f"\r{self._label} [{bar}{empty}] {percent:3} %", end="", file=sys.stderr, flush=True)
