"""Tables and small lines of figures for a terminal."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Final

__all__ = ["spark", "table"]

_BLOCKS: Final = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the first column stands left, figures stand right."""
    cells = [list(heads), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    return [_line(row, widths) for row in cells]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        f"{text:<{width}}" if not place else f"{text:>{width}}" for place, (text, width) in _placed(row, widths)
    )
    return "  ".join([first, *rest]).rstrip()


def _placed(row: Sequence[str], widths: Sequence[int]) -> Iterable[tuple[int, tuple[str, int]]]:
    return enumerate(zip(row, widths, strict=False))


def spark(values: Sequence[float]) -> str:
    """Return a line of blocks, the highest value as a full one."""
    top = max(values, default=0.0) or 1.0
    return "".join(_BLOCKS[min(int(len(_BLOCKS) * value / top), len(_BLOCKS) - 1)] for value in values)
