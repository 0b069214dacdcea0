"""A TCP proxy that makes a network misbehave on command, in a thread of its own."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from isp_perf.errors import ConfigurationError

__all__ = ["FaultProxy"]

Direction = Literal["up", "down", "both"]

_READ_BYTES = 65_536
_START_TIMEOUT = 10.0
_ENDING_TURN = 0.005
_ABORT_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST


@dataclass(frozen=True, slots=True)
class _Fault:
    """What happens to the bytes of one direction."""

    kind: Literal["pass", "latency", "blackhole", "slice", "corrupt"] = "pass"
    amount: float = 0.0


class FaultProxy:
    """Stands between a client and a TCP server and injects faults, for tests of what must survive them.

    It runs its own event loop in its own thread, so that a client which blocks the caller's loop cannot stop it. Every
    method may be called from any thread, takes effect at once on connections that exist and on new ones, and stays in
    force until ``heal``. ``direction`` is seen from the client: ``"up"`` are its requests, ``"down"`` the answers.

    Args:
        host: name or address of the real server.
        port: its port, 1-65535.

    Attributes:
        host: where the proxy listens (``127.0.0.1``).
        port: a free port chosen by the system; 0 before ``start``.
        accepted: connections accepted so far.

    Raises:
        ConfigurationError: a port outside its range.
    """

    accepted: int
    port: int

    def __init__(self, host: str, port: int) -> None:
        if not 0 < port < 1 << 16:
            raise ConfigurationError("port", port, "must be a number from 1 to 65535", "give the server's port")
        self.host = "127.0.0.1"
        self.port = 0
        self.accepted = 0
        self._server_address = (host, port)
        self._faults = {"up": _Fault(), "down": _Fault()}
        self._refusing = False
        self._handlers: set[asyncio.Task[None]] = set()
        self._links: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._stopped = asyncio.Event()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)

    def start(self) -> Self:
        """Listen; return the proxy itself."""
        self._thread.start()
        if not self._ready.wait(_START_TIMEOUT):
            raise TimeoutError(f"the fault proxy did not start within {_START_TIMEOUT} s")
        return self

    def stop(self) -> None:
        """Close everything and end the thread. Safe to call twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def open(self) -> int:
        """Connections open now."""
        return len(self._links)

    # -- faults

    def heal(self) -> None:
        """Pass everything on as it comes. Bytes that were swallowed stay lost."""
        self._refusing = False
        self._set(_Fault(), "both")

    def latency(self, seconds: float, *, direction: Direction = "both") -> None:
        """Hold every piece of data back for ``seconds`` (>= 0) before it is passed on."""
        self._set(_Fault("latency", _positive("seconds", seconds, zero=True)), direction)

    def blackhole(self, *, direction: Direction = "both") -> None:
        """Accept connections and swallow their data: ``"down"`` lets the server work and loses its answers."""
        self._set(_Fault("blackhole"), direction)

    def slice(self, size: int = 1, *, direction: Direction = "both") -> None:
        """Pass data on in pieces of ``size`` bytes (>= 1), so that every border falls somewhere."""
        self._set(_Fault("slice", _positive("size", size)), direction)

    def corrupt(self, every: int = 1, *, direction: Direction = "down") -> None:
        """Invert each ``every``-th byte (>= 1, counted within a piece of data)."""
        self._set(_Fault("corrupt", _positive("every", every)), direction)

    def drop(self, *, refuse: bool = False) -> None:
        """Close every connection in the ordinary way (FIN); with ``refuse`` new ones are closed too, until ``heal``."""
        self._refusing = refuse
        self._call(self._close_all)

    def reset(self, *, refuse: bool = False) -> None:
        """Cut every connection with RST; with ``refuse`` new ones are cut too, until ``heal``."""
        self._refusing = refuse
        self._call(self._reset_all)

    def half_close(self) -> None:
        """End the answers of every connection (FIN to the client) and keep taking its requests."""
        self._call(self._half_close_all)

    def _set(self, fault: _Fault, direction: Direction) -> None:
        for way in ("up", "down") if direction == "both" else (direction,):
            self._faults[way] = fault

    # -- the proxy's own thread

    def _call(self, action: Callable[[], None]) -> None:
        """Run ``action`` in the proxy's thread and wait until it is done."""
        done = threading.Event()

        def run() -> None:
            action()
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait(_START_TIMEOUT)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._accept, self.host, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped.wait()
        server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # among them connections just being accepted
            self._reset_all()
            for handler in self._handlers:
                handler.cancel()
            await asyncio.wait(others, timeout=_ENDING_TURN)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        handler = cast("asyncio.Task[None]", asyncio.current_task())
        self._handlers.add(handler)
        # Cancelled by the end of the proxy only; asyncio would report it as an error.
        with contextlib.closing(writer), contextlib.suppress(asyncio.CancelledError):
            if not self._refusing:
                await self._connect(reader, writer)
        self._handlers.discard(handler)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, to_server = await asyncio.open_connection(*self._server_address)
        except OSError:
            return
        with contextlib.closing(to_server):
            link = (writer, to_server)
            self._links.add(link)
            try:
                await self._both(self._pump(reader, to_server, "up"), self._pump(upstream, writer, "down"))
            finally:
                self._links.discard(link)

    @staticmethod
    async def _both(*pumps: Coroutine[Any, Any, None]) -> None:
        """Run until the client is gone; the server's end alone may be a half-close that is wanted."""
        up, down = (asyncio.ensure_future(pump) for pump in pumps)
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in (up, down):
                pump.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # closed, or half-closed, by a fault
            while data := await reader.read(_READ_BYTES):
                await self._pass_on(data, writer, way)

    async def _pass_on(self, data: bytes, writer: asyncio.StreamWriter, way: str) -> None:
        fault = self._faults[way]
        if fault.kind == "blackhole":
            return
        if fault.kind == "slice":
            await _write_pieces(data, writer, int(fault.amount))
            return
        if fault.kind == "latency":
            await asyncio.sleep(fault.amount)
        if fault.kind == "corrupt":
            data = _inverted(data, int(fault.amount))
        writer.write(data)
        await writer.drain()

    def _close_all(self) -> None:
        for link in self._links:
            for end in link:
                end.close()

    def _reset_all(self) -> None:
        for link in self._links:
            for end in link:
                raw: socket.socket = end.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT_ON_CLOSE)
                end.transport.abort()

    def _half_close_all(self) -> None:
        for to_client, _ in self._links:
            to_client.write_eof()


async def _write_pieces(data: bytes, writer: asyncio.StreamWriter, size: int) -> None:
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for start in range(0, len(data), size):
        writer.write(data[start : start + size])
        await writer.drain()
        await asyncio.sleep(0)


def _inverted(data: bytes, every: int) -> bytes:
    changed = bytearray(data)
    for position in range(every - 1, len(changed), every):
        changed[position] ^= 0xFF
    return bytes(changed)


def _positive(setting: str, value: float, *, zero: bool = False) -> float:
    if value < 0 or (value == 0 and not zero):
        raise ConfigurationError(setting, value, f"must be {'0 or more' if zero else 'above 0'}", "change the number")
    return float(value)
