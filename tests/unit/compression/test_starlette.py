"""CompressedJSONResponse, the seed's class."""

import json

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from isp_perf.compression import CompressionMiddleware, no_compression
from isp_perf.compression.starlette import CompressedJSONResponse

ITEMS = [{"id": i, "cliente": "São João", "texto": "sem sinal"} for i in range(100)]


async def test_the_response_is_coded_for_the_request_that_gets_it(http):
    """One response object serves brotli, gzip, deflate and plain clients, each with the right head."""
    response = CompressedJSONResponse(ITEMS, 201, {"x-test": "1", "etag": '"v"'})
    plain = JSONResponse(ITEMS).body
    for accept, coding in (
        (b"gzip, deflate, br", "br"),
        (b"gzip, deflate", "gzip"),
        (b"deflate", "deflate"),
        (None, None),
    ):
        got = await http.call(response, accept)
        assert (got.status, got.coding, got.body, got.header(b"vary")) == (201, coding, plain, b"Accept-Encoding")
        assert got.header(b"content-length") == b"%d" % len(got.raw)
        assert got.header(b"x-test") == b"1"
        assert got.header(b"etag") == (f'W/"v-{coding}"'.encode() if coding else b'"v"')


async def test_small_content_stays_plain(http):
    """Content below 1 KB is sent as it is."""
    got = await http.call(CompressedJSONResponse({"ok": True}))
    assert (got.coding, json.loads(got.raw)) == (None, {"ok": True})


async def test_it_is_coded_once_behind_the_middleware(http):
    """The middleware leaves the class's coding alone, and both keep statistics."""
    before = CompressedJSONResponse.compression_stats.total_requests
    got = await http.serve(CompressedJSONResponse(ITEMS))
    assert (got.coding, json.loads(got.body)) == ("br", ITEMS)
    assert CompressedJSONResponse.compression_stats.total_requests == before + 1
    assert got.middleware.stats.skipped["already_encoded"] == 1


async def test_a_client_that_refuses_everything_gets_the_plain_body(http):
    """The endpoint has run, so its answer is not thrown away."""
    got = await http.call(CompressedJSONResponse(ITEMS), b"*;q=0")
    assert (got.status, got.coding) == (200, None)


async def test_no_compression_opts_out_a_starlette_endpoint(http):
    """A marked endpoint of a Starlette application is sent plain, its neighbour coded."""

    async def coded(request):
        return JSONResponse(ITEMS)

    app = Starlette(
        routes=[Route("/coded", coded), Route("/plain", no_compression(lambda request: JSONResponse(ITEMS)))],
        middleware=[Middleware(CompressionMiddleware)],
    )
    got = {path: (await http.call(app, path=path)).coding for path in ("/coded", "/plain")}
    assert got == {"/coded": "br", "/plain": None}
