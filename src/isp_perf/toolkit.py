"""Everything from one object: ``Toolkit.from_env().wrap(app)``.

The toolkit configures the default cache manager and reads the default registries of breakers and metrics; it makes no
rivals of them, so ``@cached`` and ``@circuit_breaker`` work with what it sets up.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from isp_perf.breaker import CircuitRegistry, Fleet, circuits
from isp_perf.cache import Auditor, CacheManager, CachePolicy, cache_manager
from isp_perf.compression import CompressionMiddleware, CompressionStats
from isp_perf.metrics import MetricRegistry, MetricsMiddleware, registry
from isp_perf.metrics._asgi import ASGIApp, Message, Receive, Scope, Send
from isp_perf.ops import PATHS, Authorizer, Check, DashboardLoader, OpsApp
from isp_perf.redis import RedisPool
from isp_perf.settings import Settings

if TYPE_CHECKING:
    from isp_perf.queries import Installed

__all__ = ["Toolkit"]

_NOT_FOUND = 404
_log = logging.getLogger("isp_perf.toolkit")


class Toolkit:
    """Cache, Redis, circuit breakers, compression and metrics, built from one ``Settings``.

    Making it connects to nothing. Without Redis everything works, with the local level of the cache only.

    Args:
        settings: what to build from; ``None``: the defaults.

    Attributes:
        settings: what it was built from.
        redis: the pool; disabled if no server is configured.
        cache: the default cache manager, configured.
        circuits: the default registry of circuit breakers.
        compression: what compression did, of every application wrapped here.
        metrics: the default registry of metrics.

    Raises:
        ConfigurationError: a setting that one of the parts refuses.
    """

    compression: CompressionStats
    redis: RedisPool
    settings: Settings

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = Settings() if settings is None else settings
        self.redis = RedisPool(self.settings.redis)
        self.cache: CacheManager = cache_manager
        self.circuits: CircuitRegistry = circuits
        self.compression = CompressionStats()
        self.metrics: MetricRegistry = registry
        self.cache.configure(
            redis=self.redis if self.redis.enabled else None,
            namespace=self.settings.namespace,
            schema=self.settings.schema,
            max_entries=self.settings.cache_max_entries,
            policy=CachePolicy(ttl=self.settings.cache_ttl),
            secret=self.settings.secret or None,
        )
        self._fleet: Fleet | None = None
        self._auditor: Auditor | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Return a toolkit for the environment; see ``Settings.from_env``.

        Args:
            environ: the environment; default ``os.environ`` and a ``.env`` file.

        Raises:
            SettingsError: one or more variables are wrong; all of them are named.
        """
        return cls(Settings.from_env(environ))

    def __repr__(self) -> str:
        return f"Toolkit({self.settings!r})"

    def queries(self, target: Any, **settings: Any) -> "Installed":
        """Install batched lazy loads and query detection on an engine or session factory.

        Args:
            target: an engine, session factory or session, sync or async.
            **settings: as for ``isp_perf.queries.install``; ``slow_ms`` is that of the toolkit's settings by default.

        Raises:
            ConfigurationError: as for ``isp_perf.queries.install``.
        """
        from isp_perf.queries import install

        settings.setdefault("slow_ms", self.settings.slow_ms)
        return install(target, **settings)

    def wrap(
        self,
        app: ASGIApp,
        *,
        ops: str | None = None,
        dashboard: DashboardLoader | None = None,
        auth: Authorizer | None = None,
        checks: Mapping[str, Check] | None = None,
    ) -> "WrappedApp":
        """Return ``app`` with compression, request metrics, the monitoring endpoints and the toolkit's lifespan.

        Args:
            app: any ASGI application.
            ops: path under which the monitoring endpoints stand; ``None``: that of the settings (``"/"``). There
                a page of the application itself wins: the endpoint answers only where the application says 404.
            dashboard: coroutine function that returns the application's own figures for ``/performance/dashboard``.
            auth: who may see the monitoring endpoints; see ``OpsApp``.
            checks: further dependencies for ``/health``; see ``OpsApp``.
        """
        monitoring = OpsApp(self, auth=auth, dashboard=dashboard, checks=checks, naming=self.settings.naming)
        return WrappedApp(self, app, monitoring, ops=self.settings.ops if ops is None else ops)

    async def start(self) -> None:
        """Begin: deliver what an earlier outage of Redis left undelivered; share circuits and audit hits if asked for.

        Optional but for these two, as everything else begins on use.
        """
        if self.settings.share_circuits and self._fleet is None:
            self._fleet = self.circuits.share(self.redis, namespace=self.settings.namespace)
        await self.cache.start()
        if self.settings.cache_audit and self._auditor is None:
            self._auditor = Auditor(self.cache, sample=self.settings.cache_audit)
            await self._auditor.start()

    async def aclose(self) -> None:
        """End the audit, leave the fleet, and close the connections to Redis; later uses open new ones."""
        auditor, self._auditor = self._auditor, None
        if auditor is not None:
            await auditor.aclose()
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            await asyncio.to_thread(fleet.close)
        await self.cache.aclose()
        await self.redis.aclose()


class WrappedApp:
    """An application with the toolkit around it: request metrics outermost, then compression, then the endpoints.

    Args:
        toolkit: what stands around it.
        app: the application.
        monitoring: the monitoring endpoints.
        ops: the path under which they stand.
    """

    def __init__(self, toolkit: Toolkit, app: ASGIApp, monitoring: OpsApp, *, ops: str) -> None:
        self._toolkit = toolkit
        self._app = app
        self._monitoring = monitoring
        self._prefix = ops.rstrip("/")
        inner: ASGIApp = self._route
        if toolkit.settings.compression:
            size = toolkit.settings.compression_minimum_size
            inner = CompressionMiddleware(inner, minimum_size=size, stats=toolkit.compression)
        self._outer = MetricsMiddleware(inner, target=toolkit.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            self._outer.begin()
            await _Lifespan(self, receive, send).run(self._app, scope)
            self._toolkit.metrics.publish()
        else:
            await self._outer(scope, receive, send)

    async def start(self) -> None:
        """Start the toolkit, on which the application's own startup may rely."""
        await self._toolkit.start()

    async def started(self) -> None:
        """Start what the monitoring keeps fresh, which may rely on the application's own startup."""
        await self._monitoring.start()

    async def aclose(self) -> None:
        """Stop in the opposite order."""
        await self._monitoring.aclose()
        await self._toolkit.aclose()

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._is_ours(scope):
            await self._app(scope, receive, send)
        elif self._prefix:
            await self._monitoring(_below(scope, self._prefix), receive, send)
            scope["isp_perf.route"] = scope["path"]
        else:
            await self._app_first(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._prefix:
            return path == self._prefix or path.startswith(f"{self._prefix}/")
        return path.rstrip("/") in PATHS

    async def _app_first(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer; where it knows no such page, answer in its place."""
        unknown = False

        async def pass_on(message: Message) -> None:
            nonlocal unknown
            if message["type"] == "http.response.start" and message["status"] == _NOT_FOUND:
                unknown = True
            if not unknown:
                await send(message)

        ours = dict(scope)  # the application's router leaves its marks in the scope
        await self._app(scope, receive, pass_on)
        if unknown:
            await self._monitoring(ours, receive, send)
            scope["isp_perf.route"] = ours["isp_perf.route"]


def _below(scope: Scope, prefix: str) -> Scope:
    return {**scope, "root_path": scope.get("root_path", "") + prefix}


class _Lifespan:
    """The application's lifespan with ours around it; an application that has none gets ours alone."""

    def __init__(self, around: WrappedApp, receive: Receive, send: Send) -> None:
        self._around = around
        self._receive = receive
        self._send = send
        self._answered: set[str] = set()
        self._asked: list[Message] = []

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Take part in the protocol until the server shuts down."""
        try:
            await app(scope, self._before, self._after)
        except Exception as error:
            if "startup" in self._answered or "startup.failed" in self._answered:
                await self._around.aclose()
                raise
            _log.info("the application takes no part in the lifespan protocol: %s", type(error).__name__)
        if "startup.failed" not in self._answered:
            await self._go_on()

    async def _before(self) -> Message:
        """Start the toolkit before the application hears of the startup."""
        message = await self._receive()
        self._asked.append(message)
        if message["type"] == "lifespan.startup":
            await self._around.start()
        return message

    async def _after(self, message: Message) -> None:
        """Start the monitoring after the application, and stop everything after the application has ended."""
        kind = message["type"].removeprefix("lifespan.").removesuffix(".complete")
        self._answered.add(kind)
        await (self._around.started() if kind == "startup" else self._around.aclose())
        await self._send(message)

    async def _go_on(self) -> None:
        """Answer what the application did not."""
        while "shutdown" not in self._answered:
            pending = [message for message in self._asked if _kind(message) not in self._answered]
            message = pending[0] if pending else await self._before()
            await self._after({"type": f"{message['type']}.complete"})


def _kind(message: Message) -> str:
    kind: str = message["type"]
    return kind.removeprefix("lifespan.")
