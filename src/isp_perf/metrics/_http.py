"""Rate, errors and duration of every request, per route template, for any ASGI application.

What is counted per request is found with one dictionary look-up of (method, route, status); the middleware makes no
response object, starts no task and walks no route of its own.
"""

import asyncio
from collections.abc import Awaitable
from time import perf_counter_ns
from typing import NamedTuple

from isp_perf.metrics._asgi import ASGIApp, Message, Receive, Scope, Send
from isp_perf.metrics._instruments import Counter, Histogram
from isp_perf.metrics._registry import MetricRegistry, registry
from isp_perf.metrics._routes import route_template

__all__ = ["HttpMetrics", "MetricsMiddleware"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_OTHER = "_OTHER"
_LAST = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})
_SERVER_ERROR = 500
_CLIENT_GONE = 499  # nobody sees it; the status nginx logs for a client that left before the answer began
_KEPT = 10_000  # (method, route, status) combinations remembered; beyond it they are looked up each time


class _Cells(NamedTuple):
    """The series that one combination of method, route and status counts in."""

    requests: Counter
    duration: Histogram
    received: Counter
    sent: Counter


class HttpMetrics:
    """The request metrics of one registry; every middleware on that registry counts into the same ones.

    Args:
        target: the registry they are defined in.
    """

    def __init__(self, target: MetricRegistry) -> None:
        route = ("method", "route")
        self.requests = target.counter("isp_http_requests_total", "Requests answered.", (*route, "status"))
        self.duration = target.histogram(
            "isp_http_request_duration_seconds", "Time from the request to the last byte of its answer.", route
        )
        self.received = target.counter(
            "isp_http_request_bytes_total", "Bytes of request bodies the application read.", route
        )
        self.sent = target.counter("isp_http_response_bytes_total", "Bytes of response bodies.", route)
        self.exceptions = target.counter("isp_http_exceptions_total", "Requests whose application raised.", route)
        self.disconnects = target.counter(
            "isp_http_disconnects_total", "Requests whose client left before the last byte.", route
        )
        self.in_flight = target.gauge("isp_http_requests_in_flight", "Requests being answered now.")
        self.lag = target.histogram("isp_loop_lag_seconds", "How much later than asked for the event loop calls back.")

    def cells(self, method: str, route: str, status: int) -> _Cells:
        """Return the series for a method, a route template and a status."""
        return _Cells(
            self.requests.labels(method, route, status),
            self.duration.labels(method, route),
            self.received.labels(method, route),
            self.sent.labels(method, route),
        )


class _Received:
    """Counts the bytes of a request body as the application reads it."""

    __slots__ = ("_receive", "total")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.total = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        size = len(message.get("body", b""))
        self.total += size
        return message


class MetricsMiddleware:
    """Counts every HTTP request of the application inside: rate, errors, duration, bytes, requests in flight.

    Labels are the method (unknown ones are ``_OTHER``), the route template (never the path; ``__unmatched__`` where
    no route answered) and the status. An answer is timed until its last byte is handed to the server, streams
    included. A request whose application raises counts as an exception, and as 500 if no status was sent; one whose
    client leaves counts as a disconnect, and as 499 if no status was sent. Anything but HTTP passes through untouched.

    Args:
        app: the application.
        target: the registry to count in.
    """

    def __init__(self, app: ASGIApp, *, target: MetricRegistry = registry) -> None:
        self.app = app
        self._registry = target
        self._metrics = HttpMetrics(target)
        self._in_flight = self._metrics.in_flight
        self._cells: dict[tuple[str, str, int], _Cells] = {}
        target.forked.add(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count it."""
        if scope["type"] != "http":
            await self._pass_through(scope, receive, send)
            return
        status = sent = end = 0
        method: str = scope["method"]
        reading = None if method in _BODILESS else _Received(receive)

        def on_send(message: Message) -> Awaitable[None]:
            # Not a coroutine of its own: the server's is handed on, which saves one frame per message.
            nonlocal status, sent, end
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
            elif kind in _LAST:
                sent += len(message.get("body", b""))
                end = 0 if message.get("more_body", False) else perf_counter_ns()
            return send(message)

        self._in_flight.value += 1
        start = perf_counter_ns()
        try:
            await self.app(scope, reading or receive, on_send)
        except BaseException as error:
            end, status = self._unusual(scope, status, end=end, failure=error)
            raise
        finally:
            self._in_flight.value -= 1
            if not end:
                end, status = self._unusual(scope, status, end=end, failure=None)
            template = route_template(scope)
            cells = self._cells.get((method, template, status)) or self._find(method, template, status)
            requests, timer, received_bytes, sent_bytes = cells
            requests.n += 1
            timer.observe_units(end - start)
            sent_bytes.n += sent
            if reading is not None:
                received = reading.total
                received_bytes.n += received

    def after_fork(self) -> None:
        """Forget, in a forked child, which series exist: the next request then joins the new siblings."""
        self._cells.clear()

    async def _pass_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begin()
        await self.app(scope, receive, send)
        if scope["type"] == "lifespan":
            self._registry.publish()

    def begin(self) -> None:
        """Join the siblings and measure the lag of this loop; lifespan and first request do so by themselves."""
        self._registry.share()
        self._registry.loops.watch(self._metrics.lag)

    def _find(self, method: str, template: str, status: int) -> _Cells:
        """Return the series of a combination seen for the first time, and remember it."""
        self.begin()
        if method not in _METHODS:
            return self._metrics.cells(_OTHER, template, status)
        cells = self._metrics.cells(method, template, status)
        if len(self._cells) < _KEPT:
            self._cells[method, template, status] = cells
        return cells

    def _unusual(self, scope: Scope, status: int, *, end: int, failure: BaseException | None) -> tuple[int, int]:
        """Count a request that raised or was never answered in full; return its end and its status."""
        left = not end and (failure is None or _client_left(failure))
        method: str = scope["method"]
        family = self._metrics.disconnects if left else self._metrics.exceptions
        family.labels(method if method in _METHODS else _OTHER, route_template(scope)).n += 1
        return end or perf_counter_ns(), status or (_CLIENT_GONE if left else _SERVER_ERROR)


def _client_left(error: BaseException) -> bool:
    """Return whether an application ended this way because its client was gone."""
    return isinstance(error, (asyncio.CancelledError, OSError)) or type(error).__name__ == "ClientDisconnect"
