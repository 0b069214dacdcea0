"""Finds the line of the user's code that a statement came from, across the greenlets of SQLAlchemy's asyncio layer."""

import sys
import sysconfig
from pathlib import Path
from types import FrameType
from typing import Any

import sqlalchemy

__all__ = ["NOWHERE", "Site", "caller"]

Site = tuple[str, int, str]
NOWHERE: Site = ("", 0, "")

_OURS = str(Path(__file__).parents[1])
_LIBRARY = str(Path(sqlalchemy.__file__).parent)
_STANDARD = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
_PACKAGES = ("site-packages", "dist-packages")

_kinds: dict[str, bool] = {}  # file name -> is it the user's; as many entries as there are source files


def _is_users(file: str) -> bool:
    if file.startswith(("<", _OURS, _LIBRARY)) or any(part in file for part in _PACKAGES):
        return False
    return not file.startswith(_STANDARD)


def caller(frame: FrameType | None) -> Site:
    """Return file, line and function of the nearest frame outside the standard library and installed packages.

    Args:
        frame: where to begin; the walk goes on in the greenlet that is waiting for this one.
    """
    kinds = _kinds
    greenlet: Any = None
    while True:
        while frame is not None:
            code = frame.f_code
            file = code.co_filename
            users = kinds.get(file)
            if users is None:
                users = kinds[file] = _is_users(file)
            if users:
                return file, frame.f_lineno, code.co_qualname
            frame = frame.f_back
        greenlet = _waiting(greenlet)
        if greenlet is None:
            return NOWHERE
        frame = greenlet.gr_frame


def _waiting(greenlet: Any) -> Any:
    """Return the greenlet that waits for ``greenlet`` (``None``: for the current one), if greenlets are in use."""
    module: Any = sys.modules.get("greenlet")
    if module is None:
        return None
    return (module.getcurrent() if greenlet is None else greenlet).parent
