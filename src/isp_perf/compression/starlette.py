"""``CompressedJSONResponse`` for Starlette and FastAPI: the one module that knows a framework."""

from typing import ClassVar

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from isp_perf.compression._engine import Request
from isp_perf.compression._middleware import CompressionMiddleware
from isp_perf.compression._responder import Responder
from isp_perf.compression._stats import CompressionStats

__all__ = ["CompressedJSONResponse"]


class _Defaults(CompressionMiddleware):
    """The decisions of a middleware without settings, for responses that send themselves."""

    def request(self, scope: Scope) -> Request:
        """Read what the request says about the coding of its response."""
        return self._engine.request(scope)


class CompressedJSONResponse(JSONResponse):
    """A ``JSONResponse`` that is coded as the client likes best: brotli, zstd, gzip or deflate, above 1 KB.

    It takes ``JSONResponse``'s arguments. The coding is chosen by the request's ``Accept-Encoding`` when the response
    is sent; ``Content-Encoding``, ``Vary``, ``Content-Length`` and a strong ``ETag`` are set as the middleware sets
    them. Behind a ``CompressionMiddleware`` it is coded once. A client that refuses everything gets the plain body,
    since the endpoint has run already.

    Attributes:
        compression_stats: what all responses of the class (and its subclasses) did.
    """

    compression_stats: ClassVar[CompressionStats] = CompressionStats()
    _defaults: ClassVar[_Defaults] = _Defaults(JSONResponse(None), stats=compression_stats)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to the client of ``scope``, coded for it."""
        request = self._defaults.request(scope)
        await Responder(request, request.scope or scope, send).serve(super().__call__, receive)
