"""The monitoring endpoints as one ASGI application."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import parse_qs

from isp_perf.metrics import MetricRegistry, MetricsApp
from isp_perf.metrics._asgi import Receive, Scope, Send, header, not_http, reply
from isp_perf.metrics._group import owner
from isp_perf.metrics._naming import Naming
from isp_perf.metrics._registry import Scope as Reach
from isp_perf.metrics._snapshot import Snapshot
from isp_perf.ops._configs import breaker_configs
from isp_perf.ops._dashboard import Dashboard, DashboardLoader, Store
from isp_perf.ops._figures import cache_stats, circuit_breakers, compression_stats, pool_info
from isp_perf.ops._health import Check, Checks
from isp_perf.ops._history import started_at
from isp_perf.ops._live import Live
from isp_perf.ops._picture import STREAM_ROUTE
from isp_perf.ops._viewer import is_local, send_page, stream, wanted

__all__ = ["PATHS", "Authorizer", "Monitored", "OpsApp"]

Authorizer: TypeAlias = Callable[[Scope], Awaitable[bool]]
"""Says of an ASGI scope whether the request may be answered."""

Answer: TypeAlias = tuple[int, Mapping[str, Any]]

_HEALTH_JSON: Final = "application/health+json"
_DRAFT_STATUS: Final = {"healthy": "pass", "degraded": "warn", "unhealthy": "fail"}


class Health(Protocol):
    """What a pool says of itself."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        ...


class Pool(Protocol):
    """What is asked of the Redis pool."""

    async def health(self) -> Health:
        """Return how the pool is."""
        ...


class Monitored(Protocol):
    """What is shown: a ``Toolkit``, or anything with these three parts."""

    @property
    def cache(self) -> Store:
        """The cache manager."""
        ...

    @property
    def redis(self) -> Pool:
        """The Redis pool."""
        ...

    @property
    def metrics(self) -> MetricRegistry:
        """The registry that everything is counted in."""
        ...


class OpsApp:
    """Answers the monitoring endpoints as JSON, the metrics as text, and the live page for browsers.

    ``/health``, ``/health/live``, ``/health/ready``, ``/cache/stats``, ``/compression/stats``, ``/circuit-breakers``,
    ``/performance/dashboard`` and ``/metrics``. Figures are totals over all workers; ``?scope=worker`` asks for the one
    that answers. It may be mounted under a path. GET and HEAD; nothing is to be stored by caches on the way.

    ``/performance/dashboard`` is the live page for who accepts ``text/html``, and the stream that feeds it for who
    accepts ``text/event-stream``.

    Args:
        toolkit: what to show.
        auth: coroutine function that is given the ASGI scope and says whether the request may be answered; ``None``:
            JSON and metrics are open, and the live page (with the figures it shows) answers requests from this machine
            only. Health checks for orchestrators (``/health/live``, ``/health/ready``) are always open.
        dashboard: coroutine function that returns the application's own figures for ``/performance/dashboard``.
        checks: further dependencies for ``/health`` by name, each a coroutine function that returns
            ``{"status": "healthy"}`` or raises; the service is unhealthy without them.
        naming: further names that ``/metrics`` shows the figures under; see ``isp_perf.metrics.app``.

    Raises:
        ConfigurationError: ``naming`` is not known.
    """

    dashboard: Dashboard

    def __init__(
        self,
        toolkit: Monitored,
        *,
        auth: Authorizer | None = None,
        dashboard: DashboardLoader | None = None,
        checks: Mapping[str, Check] | None = None,
        naming: Naming | Iterable[Naming] = (),
    ) -> None:
        self._toolkit = toolkit
        self._auth = auth
        self._metrics = MetricsApp(toolkit.metrics, naming=naming)
        self._checks = Checks(optional={"redis": self._redis}, required=checks or {})
        self.dashboard = Dashboard(dashboard, toolkit.cache)
        self._lives: dict[Reach, Live] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan protocol where this is the whole application."""
        if not await not_http(scope, receive, send):
            await self._request(route_path(scope), scope, receive, send=send)

    async def _request(self, path: str, scope: Scope, receive: Receive, *, send: Send) -> None:
        scope["isp_perf.route"] = path if path in PATHS else "__unmatched__"
        if path not in _OPEN and self._auth is not None and not await self._auth(scope):
            await _json(scope, send, 403, body={"detail": "not allowed"})
        elif path == "/metrics":
            await self._metrics(scope, receive, send)
        elif (form := _form(path, scope)) != "json":
            await self._show(form, scope, receive, send=send)
        else:
            await self._answer(path, scope, send)

    async def start(self) -> None:
        """Warm the dashboard and keep it fresh; remember the last minutes for the live page."""
        await self.dashboard.start()
        self._live("all").start()

    async def aclose(self) -> None:
        """Stop what ``start`` began."""
        for live in self._lives.values():
            await live.aclose()
        await self.dashboard.aclose()

    async def _show(self, kind: str, scope: Scope, receive: Receive, *, send: Send) -> None:
        """Answer with the live page or its stream."""
        live = self._live(_reach(scope))
        if self._auth is None and not is_local(scope):
            reason = "the live page answers this machine only; give OpsApp an auth to open it to others"
            await _json(scope, send, 403, body={"detail": reason})
        elif kind == "page":
            await send_page(live, scope, send)
        else:
            scope["isp_perf.route"] = STREAM_ROUTE
            await stream(live, scope, receive, send=send)

    def _live(self, reach: Reach) -> Live:
        """Return the sampler of all workers or of this one."""
        found = self._lives.get(reach)
        if found is None:
            alone = reach == "worker"
            since = started_at(os.getpid() if alone else owner(os.environ))
            found = self._lives[reach] = Live(
                partial(self._toolkit.metrics.collect, reach), self.dashboard.latest, since=since, one_worker=alone
            )
        return found

    async def _answer(self, path: str, scope: Scope, send: Send) -> None:
        endpoint = _ENDPOINTS.get(path)
        if endpoint is None:
            await _json(scope, send, 404, body={"detail": "no such page", "pages": list(PATHS)})
        elif scope["method"] not in _READ:
            await reply(send, 405, [(b"allow", b"GET, HEAD")], body=b"", head=False)
        else:
            status, body = await endpoint(self, scope)
            await _json(scope, send, status, body=body)

    async def _redis(self) -> Mapping[str, Any]:
        health = (await self._toolkit.redis.health()).as_dict()
        return {name: health[name] for name in ("status", "ping_time_ms", "reason") if name in health}

    async def _snapshot(self, scope: Scope) -> Snapshot:
        return await asyncio.to_thread(self._toolkit.metrics.collect, _reach(scope))

    async def live(self, _: Scope) -> Answer:
        """Answer that the process runs; asks nobody."""
        return 200, {"status": "healthy"}

    async def health(self, scope: Scope) -> Answer:
        """Answer how the service and its dependencies are."""
        report = await self._checks.report()
        status = 503 if report["status"] == "unhealthy" else 200
        if _HEALTH_JSON in header(scope, b"accept"):
            report["status"] = _DRAFT_STATUS[report["status"]]
        return status, report

    async def cache(self, scope: Scope) -> Answer:
        """Answer with the cache's figures and the state of Redis."""
        snapshot, health = await asyncio.gather(self._snapshot(scope), self._toolkit.redis.health())
        redis = health.as_dict()
        ping = redis["ping_time_ms"]
        redis["ping_time_ms"] = None if ping is None else round(ping, 1)
        if redis["status"] != "disabled":
            redis["pool_info"] = pool_info(snapshot)
        return 200, {"cache_stats": cache_stats(snapshot), "redis_health": redis}

    async def compression(self, scope: Scope) -> Answer:
        """Answer with what compression saved."""
        return 200, {"compression_stats": compression_stats(await self._snapshot(scope))}

    async def breakers(self, scope: Scope) -> Answer:
        """Answer with every breaker's state, and its configuration where this worker has it."""
        found, configs = circuit_breakers(await self._snapshot(scope)), breaker_configs()
        return 200, {"circuit_breakers": {name: {**found[name], "config": configs.get(name)} for name in found}}

    async def figures(self, scope: Scope) -> Answer:
        """Answer with the application's own figures, from the cache, and with the page's for who may see the page."""
        body: dict[str, Any] = {"dashboard_stats": await self.dashboard.figures()}
        if self._auth is not None or is_local(scope):
            live = self._live(_reach(scope))
            frame = await (live.frame() if _query(scope).get("fresh") == ["1"] else live.recent())
            body["performance"] = {name: value for name, value in frame.picture.items() if name != "own"}
        return 200, body


_ENDPOINTS: Final[Mapping[str, Callable[[OpsApp, Scope], Awaitable[Answer]]]] = {
    "/health": OpsApp.health,
    "/health/live": OpsApp.live,
    "/health/ready": OpsApp.health,
    "/cache/stats": OpsApp.cache,
    "/compression/stats": OpsApp.compression,
    "/circuit-breakers": OpsApp.breakers,
    "/performance/dashboard": OpsApp.figures,
}
PATHS: Final = (*_ENDPOINTS, "/metrics")
"""The paths that are answered, below the path the application is mounted under."""

_DASHBOARD: Final = "/performance/dashboard"
_READ: Final = frozenset({"GET", "HEAD"})
_OPEN: Final = frozenset({"/health/live", "/health/ready"})


def _form(path: str, scope: Scope) -> str:
    """Return the form of the answer: ``json``, and for the dashboard also ``page`` or ``stream``."""
    return wanted(scope) if path == _DASHBOARD and scope["method"] in _READ else "json"


def _reach(scope: Scope) -> Reach:
    return "worker" if _query(scope).get("scope") == ["worker"] else "all"


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope.get("query_string", b"").decode("latin-1"))


def route_path(scope: Scope) -> str:
    """Return the request's path without the prefix it is mounted under, and without a slash at its end."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root):
        path = path[len(root) :]
    return path.rstrip("/") or "/"


async def _json(scope: Scope, send: Send, status: int, *, body: Mapping[str, Any]) -> None:
    media = _HEALTH_JSON if "checks" in body and _HEALTH_JSON in header(scope, b"accept") else "application/json"
    headers = [(b"content-type", media.encode()), (b"cache-control", b"no-store"), (b"vary", b"Accept")]
    await reply(send, status, headers, body=json.dumps(body).encode(), head=scope["method"] == "HEAD")
