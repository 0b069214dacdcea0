"""The variant cache: admission, bounds, upgrades, and what is kept out."""

import asyncio
import os
import time

import pytest

from isp_perf.compression import Breach, Budget, CompressionMiddleware, Options, VariantCache
from isp_perf.errors import ConfigurationError


async def calls(http, middleware, times, **request):
    return [await http.call(middleware, **request) for _ in range(times)]


async def test_a_body_is_kept_when_it_is_seen_again(http, big):
    """The first sight stores nothing, the second stores the variant, from the third on it is served."""
    middleware = CompressionMiddleware(http.answer(big), cache=VariantCache(upgrade_after=None))
    held = []
    for _ in range(4):
        got = await http.call(middleware)
        assert (got.coding, got.body) == ("br", big)
        held.append(middleware.stats.cache_bytes)
    assert held[0] == 0
    assert held[1] == held[3] == len(big) + len(got.raw)
    assert (middleware.stats.cache_hits, middleware.stats.cache_misses) == (2, 2)
    assert middleware.stats.total_requests == 4


async def test_equal_bodies_are_one_variant_per_coding(http, big):
    """An equal body of another object is found, and each coding has its own variant."""
    bodies = iter([bytes(bytearray(big)) for _ in range(8)])

    async def app(scope, receive, send):
        await http.answer(next(bodies))(scope, receive, send)

    middleware = CompressionMiddleware(app, cache=VariantCache(upgrade_after=None))
    for accept in (b"br", b"gzip") * 4:
        got = await http.call(middleware, accept)
        assert (got.coding, got.body) == (accept.decode(), big)
    assert middleware.stats.cache_hits == 4


@pytest.mark.parametrize("control", [b"private", b"no-store", b"max-age=3, Private"])
async def test_private_responses_are_kept_out_unless_allowed(http, big, control):
    """What is private or no-store is neither kept nor found, unless the cache or the response says so."""
    app = http.answer(big, headers=[(b"cache-control", control)])
    middleware = CompressionMiddleware(app, cache=VariantCache())
    await calls(http, middleware, 4)
    assert (middleware.stats.cache_hits, middleware.stats.cache_misses, middleware.stats.cache_bytes) == (0, 0, 0)
    await calls(http, middleware, 3, **{"isp_perf.compression": Options(cache=True)})
    assert middleware.stats.cache_hits == 1
    middleware = CompressionMiddleware(app, cache=VariantCache(private=True))
    await calls(http, middleware, 3)
    assert middleware.stats.cache_hits == 1


async def test_a_response_may_stay_out(http, big):
    """One response can be kept out of the cache although nothing forbids it."""
    middleware = CompressionMiddleware(http.answer(big), cache=VariantCache())
    await calls(http, middleware, 4, **{"isp_perf.compression": Options(cache=False)})
    assert middleware.stats.cache_bytes == 0


async def test_large_bodies_are_not_looked_up(http, big):
    """A body above the limit is neither hashed nor kept."""
    middleware = CompressionMiddleware(http.answer(big), cache=VariantCache(max_body=1024))
    await calls(http, middleware, 4)
    assert (middleware.stats.cache_misses, middleware.stats.cache_bytes) == (0, 0)


async def test_the_bytes_are_bounded_and_the_oldest_go(http, big):
    """The cache never holds more than its limit, and forgets what was unused longest."""
    bodies = {f"/{i}": big + b"%d" % i for i in range(20)}

    async def app(scope, receive, send):
        await http.answer(bodies[scope["path"]])(scope, receive, send)

    limit = 5 * len(big)
    middleware = CompressionMiddleware(app, cache=VariantCache(max_bytes=limit, upgrade_after=None))
    for path, body in bodies.items():
        for _ in range(3):
            assert (await http.call(middleware, path=path)).body == body
            assert middleware.stats.cache_bytes <= limit
    hits = middleware.stats.cache_hits
    await http.call(middleware, path="/19")
    await http.call(middleware, path="/0")
    assert middleware.stats.cache_hits == hits + 1


async def test_what_is_wanted_often_becomes_as_small_as_can_be(http):
    """After some hits the variant is replaced by brotli 11's in the background, in the client's best coding."""
    words = [b"sem", b"sinal", b"fatura", b"conexao", b"cliente", b"modem", b"lento", b"visita"]
    body = b" ".join(words[b % 8] + b"%d" % b for b in os.urandom(4000))
    budget = Budget(inline_ms=0.15)
    middleware = CompressionMiddleware(http.answer(body), budget=budget, cache=VariantCache(upgrade_after=2))
    first = (await calls(http, middleware, 4))[0]
    assert first.coding == "zstd"
    deadline = time.monotonic() + 20
    while not middleware.stats.cache_upgrades and time.monotonic() < deadline:
        got = await http.call(middleware)
        assert got.body == body
        await asyncio.sleep(0.01)
    got = await http.call(middleware)
    assert (got.coding, got.body, middleware.stats.cache_upgrades) == ("br", body, 1)
    assert len(got.raw) < len(first.raw)


async def test_padding_survives_the_cache(http, big):
    """A cached variant is padded like any other."""
    middleware = CompressionMiddleware(http.answer(big), breach=Breach(), cache=VariantCache(upgrade_after=None))
    raws = {got.raw for got in await calls(http, middleware, 4)}
    assert len(raws) == 1


async def test_a_miss_is_offloaded_as_ever(http, big):
    """The cache does not turn threads off."""
    middleware = CompressionMiddleware(
        http.answer(big), budget=Budget(inline_ms=0), cache=VariantCache(upgrade_after=None)
    )
    await calls(http, middleware, 4)
    assert middleware.stats.offloaded == 2


def test_upgrades_and_strong_tags_exclude_one_another():
    """Equal strong tags must name equal bytes, so a cache that upgrades is refused with them."""
    with pytest.raises(ConfigurationError, match="upgrade_after"):
        CompressionMiddleware(None, etag="suffix", budget=Budget(adaptive=False), cache=VariantCache())
    CompressionMiddleware(None, etag="suffix", budget=Budget(adaptive=False), cache=VariantCache(upgrade_after=None))


@pytest.mark.parametrize("settings", [{"max_bytes": 0}, {"max_body": 0}, {"upgrade_after": 0}])
def test_wrong_limits_are_refused(settings):
    """Limits that hold nothing are configuration errors."""
    with pytest.raises(ConfigurationError):
        VariantCache(**settings)
