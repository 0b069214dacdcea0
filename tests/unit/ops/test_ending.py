"""A server that tells that it ends is believed; of any other nothing is said."""

import signal

import pytest

from isp_perf.ops._ending import server_ending


class Server:
    """What uvicorn's server is, seen from a signal handler."""

    def __init__(self):
        self.should_exit = False

    def handle_exit(self, _number, _frame):
        self.should_exit = True


@pytest.fixture
def handled():
    """Restores the handler of SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_uvicorns_handler_tells(handled):
    """The server whose method handles SIGTERM is asked, and says yes once it was told to end."""
    server = Server()
    signal.signal(signal.SIGTERM, server.handle_exit)
    ending = server_ending()
    assert not ending()
    server.handle_exit(signal.SIGTERM, None)
    assert ending()


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None, [].append])
def test_other_handlers_tell_nothing(handled, handler):
    """A function, a method of something else, or no handler: it is not known when the server ends."""
    signal.signal(signal.SIGTERM, handler)
    assert server_ending() is None
