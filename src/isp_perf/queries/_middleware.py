"""A query budget for each request of an ASGI application."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal, TypeAlias

from isp_perf._core.query_findings import require_budget
from isp_perf.errors import ConfigurationError, QueryBudgetError
from isp_perf.queries._count import QueryCount
from isp_perf.queries._watch import LOG, WATCHES

__all__ = ["QueryBudgetMiddleware"]

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class QueryBudgetMiddleware:
    """Makes each request a scope: its statements are counted, compared, and held to a budget.

    The response gets the header ``x-query-count`` with the statements sent before it began.

    Args:
        app: the ASGI application.
        max_queries: statements allowed per request; ``None`` (default): the smallest ``budget`` given to ``install``,
            and no limit if there is none.
        on_excess: ``"log"`` (default): a warning on ``isp_perf.queries`` with the findings, the response is untouched.
            ``"error"``: ``QueryBudgetError`` when the response is about to begin, for development and tests; what is
            sent after that is logged.
        header: name of the header, lower case; empty for none.

    Raises:
        ConfigurationError: ``max_queries`` is not a whole number >= 0, or ``on_excess`` is unknown.
    """

    def __init__(
        self,
        app: App,
        *,
        max_queries: int | None = None,
        on_excess: Literal["log", "error"] = "log",
        header: str = "x-query-count",
    ) -> None:
        if max_queries is not None:
            require_budget("max_queries", max_queries)
        if on_excess not in {"log", "error"}:
            raise ConfigurationError("on_excess", on_excess, "on_excess is 'log' or 'error'", "take one of the two")
        self.app = app
        self._max_queries = max_queries
        self._on_excess = on_excess
        self._header = header.lower().encode("latin-1")

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Run the application for one connection; anything but HTTP passes through untouched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        queries = QueryCount(watched=False)

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._refuse(queries)
                if self._header:
                    headers = [*message.get("headers", ()), (self._header, b"%d" % queries.count)]
                    message = {**message, "headers": headers}
            await send(message)

        with queries:
            await self.app(scope, receive, counting_send)
        limit = self._limit()
        if limit is not None and queries.count > limit:
            where = f"{scope.get('method', '')} {scope.get('path', '')}"
            LOG.warning("%s: %s", where, queries.excess(limit))

    def _limit(self) -> int | None:
        if self._max_queries is not None:
            return self._max_queries
        return min((watch.budget for watch in list(WATCHES) if watch.budget is not None), default=None)

    def _refuse(self, queries: QueryCount) -> None:
        limit = self._limit()
        if self._on_excess == "error" and limit is not None and queries.count > limit:
            raise QueryBudgetError(queries.excess(limit), tuple(queries.findings))
