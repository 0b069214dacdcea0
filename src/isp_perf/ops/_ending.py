"""Whether the server around us is about to end.

A server that ends in peace waits for the answers it has begun, and does not tell the application that it waits: an
event stream without an end would keep it for ever. Uvicorn's handler of signals is a method of the server, whose
``should_exit`` it sets; that is read here and nothing is changed. Other servers do not tell.
"""

import signal
from collections.abc import Callable
from typing import Final

__all__ = ["server_ending"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def server_ending() -> Callable[[], bool] | None:
    """Return a function that says whether the server is ending; ``None`` where that cannot be known."""
    servers = (getattr(signal.getsignal(number), "__self__", None) for number in _SIGNALS)
    found = next((server for server in servers if isinstance(getattr(server, "should_exit", None), bool)), None)
    return None if found is None else lambda: bool(found.should_exit)
