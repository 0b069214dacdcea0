"""Puts our class in place of starlette's ``GZipMiddleware``, with a thin adapter for its arguments."""

import sys

import httpx
import starlette.middleware.gzip as theirs

from isp_perf.compression import CompressionMiddleware

sys.modules.setdefault("httpx2", httpx)  # the suite names it for types only


class Adapter(CompressionMiddleware):
    """gzip only, from 500 bytes on; arguments that we have no twin for are ignored."""

    def __init__(self, app, minimum_size=500, compresslevel=9, **other):
        super().__init__(app, minimum_size=minimum_size, encodings=("gzip",))

    async def __call__(self, scope, receive, send):
        """Add what ASGI requires of a scope and some of the tests leave out."""
        if scope["type"] == "http":
            scope.setdefault("method", "GET")
            scope.setdefault("path", "/")
        await super().__call__(scope, receive, send)


theirs.GZipMiddleware = Adapter
