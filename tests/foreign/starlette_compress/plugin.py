"""Puts our class in place of starlette-compress's ``CompressMiddleware``, with a thin adapter for its arguments."""

import starlette_compress as theirs

from isp_perf.compression import CompressionMiddleware


class Adapter(CompressionMiddleware):
    """zstd, brotli, gzip in their order and from their size on; arguments that we have no twin for are ignored."""

    def __init__(self, app, *, minimum_size=500, zstd=True, brotli=True, gzip=True, **other):
        offered = (("zstd", zstd), ("br", brotli), ("gzip", gzip))
        names = tuple(name for name, wanted in offered if wanted)
        super().__init__(app, minimum_size=minimum_size, encodings=names, not_acceptable="identity")

    async def __call__(self, scope, receive, send):
        """Add what ASGI requires of a scope and some of the tests leave out."""
        if scope["type"] == "http":
            scope.setdefault("method", "GET")
            scope.setdefault("path", "/")
        await super().__call__(scope, receive, send)


theirs.CompressMiddleware = Adapter
