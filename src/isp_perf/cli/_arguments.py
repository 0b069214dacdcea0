"""Options as people write them: numbers within bounds, and errors that name what was meant."""

import argparse
import math
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import NoReturn

__all__ = ["Parser", "meant", "seconds", "whole"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors fit on one line and say where the help is."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")

    def parse(self, words: list[str]) -> argparse.Namespace:
        """Return the options; for an unknown one, say which may have been meant."""
        arguments, unknown = self.parse_known_args(words)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            name = unknown[0].partition("=")[0]
            self.error(f"unknown option {name!r}{meant(name, known)}")
        return arguments


def meant(word: str, known: Iterable[str]) -> str:
    """Return ``, did you mean ...?`` if one of ``known`` looks like ``word``, else nothing."""
    close = get_close_matches(word, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""


def whole(lowest: int, highest: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``lowest`` to ``highest``."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and lowest <= int(text[:20]) <= highest):
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {lowest} to {highest}")
        return int(text)

    return read


def seconds(lowest: float, highest: float) -> Callable[[str], float]:
    """Return a reader of durations in seconds from ``lowest`` to ``highest``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from {lowest:g} to {highest:g}")
        return value

    return read
