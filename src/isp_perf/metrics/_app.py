"""The ASGI application behind ``/metrics``."""

import asyncio
import gzip
import threading
from collections.abc import Iterable
from hashlib import blake2b
from time import perf_counter_ns
from typing import Any, Protocol
from urllib.parse import parse_qs

from isp_perf.metrics._asgi import Receive, Scope, Send, accepts_gzip, header, not_http, reply
from isp_perf.metrics._formats import Format, negotiate
from isp_perf.metrics._naming import Naming, aliased, checked
from isp_perf.metrics._registry import MetricRegistry, registry
from isp_perf.metrics._registry import Scope as Reach
from isp_perf.metrics._render import Renderer

__all__ = ["MetricsApp", "app"]

_GZIP_FROM_BYTES = 1024
_METHODS = {"GET", "HEAD"}


class ForeignRegistry(Protocol):
    """A prometheus-client registry, as far as it is read."""

    def collect(self) -> Iterable[Any]:
        """Return its metrics."""
        ...


class MetricsApp:
    """Answers every path with the metrics, in the format the client asks for.

    GET and HEAD; ``?name[]=`` keeps only the named metrics, ``?scope=worker`` answers for this process alone. Reading
    and writing happen in a thread, so no event loop waits for it. Answers above 1 kB are gzipped at level 1 for
    clients that take gzip; the compression middleware leaves them alone.

    Args:
        source: the registry to show.
        append: a prometheus-client registry whose metrics follow ours, such as ``prometheus_client.REGISTRY``.
        naming: ``"micrometer"``, ``"resilience4j"`` or both: show these figures under those names too, so that
            published Grafana boards find them. Default: our own names only.

    Raises:
        ConfigurationError: ``naming`` is not known.
    """

    def __init__(
        self,
        source: MetricRegistry = registry,
        *,
        append: ForeignRegistry | None = None,
        naming: Naming | Iterable[Naming] = (),
    ) -> None:
        self._source = source
        self._naming = checked(naming)
        self._append = append
        self._renderer = Renderer()
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan protocol where this is the whole application."""
        if await not_http(scope, receive, send):
            return
        scope.setdefault("isp_perf.route", scope["path"])
        if scope["method"] not in _METHODS:
            await reply(send, 405, [(b"allow", b"GET, HEAD")], body=b"", head=False)
            return
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        chosen = negotiate(header(scope, b"accept"), protobuf=self._append is None)
        reach: Reach = "worker" if query.get("scope") == ["worker"] else "all"
        names = frozenset(query.get("name[]", ()))
        body = await asyncio.to_thread(self.body, chosen, reach, names=names)
        await self._send(scope, send, chosen=chosen, body=body)

    def body(self, chosen: Format, reach: Reach = "all", *, names: frozenset[str] = frozenset()) -> bytes:
        """Return a scrape; blocks up to 50 ms for sibling workers, so not for an event loop.

        Args:
            chosen: the format.
            reach: ``"all"`` workers or this ``"worker"`` alone.
            names: if not empty, only these families or samples.
        """
        snapshot = aliased(self._source.collect(reach), self._naming)
        with self._lock:
            began = perf_counter_ns()
            ours = self._renderer.render(snapshot, chosen, names)
            spent = perf_counter_ns() - began
            self._source.overhead_ns += spent
        if self._append is None or names:
            return ours
        from isp_perf.metrics.prometheus import exposition

        openmetrics = chosen.syntax == "openmetrics"
        theirs = exposition(self._append, openmetrics=openmetrics)
        end = b"# EOF\n" if openmetrics else b""
        return ours.removesuffix(end) + theirs + end

    async def _send(self, scope: Scope, send: Send, *, chosen: Format, body: bytes) -> None:
        etag = b'W/"' + blake2b(body, digest_size=9).hexdigest().encode() + b'"'
        headers = [
            (b"content-type", chosen.content_type.encode()),
            (b"cache-control", b"no-store"),
            (b"vary", b"Accept, Accept-Encoding"),
            (b"etag", etag),
        ]
        head = scope["method"] == "HEAD"
        if etag.decode() in header(scope, b"if-none-match"):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        if len(body) > _GZIP_FROM_BYTES and accepts_gzip(scope):
            body = await asyncio.to_thread(gzip.compress, body, 1)
            headers.append((b"content-encoding", b"gzip"))
        await reply(send, 200, headers, body=body, head=head)


def app(
    source: MetricRegistry = registry,
    *,
    append: ForeignRegistry | None = None,
    naming: Naming | Iterable[Naming] = (),
) -> MetricsApp:
    """Return the ASGI application that answers with the metrics.

    Args:
        source: the registry to show.
        append: a prometheus-client registry whose metrics follow ours; see ``MetricsApp``.
        naming: whose names to show as well, ``"micrometer"`` and ``"resilience4j"``; see ``MetricsApp``.

    Raises:
        ConfigurationError: ``naming`` is not known.
    """
    return MetricsApp(source, append=append, naming=naming)
