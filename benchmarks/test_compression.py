"""Compression beside the raw codecs and the peers: `python benchmarks/test_compression.py [rounds] [section ...]`.

In one process with a send that drops everything; thread CPU time, cases interleaved, medians, collector off. `server`
and `stall` use a real event loop and, for `server`, uvicorn in a process of its own with a plain socket client. Peers
that are not installed are left out. Compare ratios within one run; figures of different runs differ with the machine.
"""

import asyncio
import contextlib
import gc
import gzip
import importlib
import importlib.util
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
import zlib
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import brotli

from isp_perf.compression import (
    Budget,
    CompressionMiddleware,
    CompressionStats,
    Dictionaries,
    Dictionary,
    RequestDecompressionMiddleware,
    VariantCache,
    compress_for,
    train_dictionary,
)
from isp_perf.compression._codecs import codec, dictionary_codec

DATA = Path(__file__).parents[1] / "tests" / "data" / "compression"
PAYLOADS = {
    name: (DATA / f"{name}.json").read_bytes() for name in ("conv_1k", "conv_10k", "conv_100k", "real_npm_express")
}
LOREM = "Lorem ipsum dolor sit amet, consectetur adipiscing elit. " * 3
SEED = json.dumps([{"id": i, "name": f"Item {i}", "description": LOREM} for i in range(200)]).encode()
BROWSER = [
    (b"host", b"localhost:8000"),
    (b"user-agent", b"Mozilla/5.0"),
    (b"accept", b"*/*"),
    (b"accept-language", b"pt-BR"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"connection", b"keep-alive"),
    (b"cookie", b"a=b"),
    (b"sec-fetch-site", b"same-origin"),
    (b"sec-fetch-mode", b"cors"),
    (b"referer", b"http://localhost/"),
]
ROUNDS = next((int(argument) for argument in sys.argv[1:] if argument.isdigit()), 31)


def accepting(value):
    """Return the browser's headers with another Accept-Encoding, or none."""
    kept = [pair for pair in BROWSER if pair[0] != b"accept-encoding"]
    return kept if value is None else [*kept, (b"accept-encoding", value)]


def application(body, content_type=b"application/json"):
    async def app(scope, receive, send):
        headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def peer(module, name, **settings):
    """Return a maker of the peer's middleware, or None."""
    with contextlib.suppress(ImportError):
        made = getattr(importlib.import_module(module), name)
        return lambda app: made(app, **settings)
    return None


PEERS = {
    "starlette GZip": peer("starlette.middleware.gzip", "GZipMiddleware"),
    "starlette-compress": peer("starlette_compress", "CompressMiddleware"),
    "brotli-asgi": peer("brotli_asgi", "BrotliMiddleware"),
    "zstd-asgi": peer("zstd_asgi", "ZstdMiddleware"),
}
PEERS = {name: made for name, made in PEERS.items() if made is not None}


async def drop(message):
    pass


def repeat(app, headers, calls):
    """Return the CPU seconds of one request, over `calls` of them."""

    async def run():
        scope = {"type": "http", "method": "GET", "path": "/", "scheme": "https", "headers": headers, "extensions": {}}
        began = time.thread_time()
        for _ in range(calls):
            await app(scope, None, drop)
        return (time.thread_time() - began) / calls

    return asyncio.run(run())


def medians(cases):
    """Run callables that return seconds, interleaved; return the median of each in microseconds."""
    found = {name: [] for name in cases}
    gc.disable()
    for _ in range(ROUNDS):
        for name, case in cases.items():
            found[name].append(case())
    gc.enable()
    return {name: statistics.median(values) * 1e6 for name, values in found.items()}


def timed(work, calls=1):
    def case():
        began = time.thread_time()
        for _ in range(calls):
            work()
        return (time.thread_time() - began) / calls

    return case


def row(title, figure, limit=""):
    print(f"  {title:58} {figure:34} {limit}")


def wire(app, headers):
    """Return the body bytes of one response."""
    sent = []

    async def keep(message):
        sent.append(message.get("body", b""))

    scope = {"type": "http", "method": "GET", "path": "/", "scheme": "https", "headers": headers, "extensions": {}}
    asyncio.run(app(scope, None, keep))
    return b"".join(sent)


def identity():
    scenes = {
        "200 B JSON, browser": (application(b"a" * 200), BROWSER),
        "10 KB JSON, no header": (application(b"a" * 10240), accepting(None)),
        "2 KB image, browser": (application(b"a" * 2048, b"image/png"), BROWSER),
        "10 KB image, refused": (application(b"a" * 10240, b"image/png"), accepting(b"br;q=0, gzip;q=0, zstd;q=0")),
    }
    for title, (app, headers) in scenes.items():
        cases = {"bare": app, "ours": CompressionMiddleware(app), **{n: make(app) for n, make in PEERS.items()}}
        got = medians({n: (lambda c=c, h=headers: repeat(c, h, 300)) for n, c in cases.items()})
        own = got["ours"] - got["bare"]
        row(title, f"{own:.2f} us", "<= 4 us")
        for name in PEERS:
            limit = {"starlette-compress": "<= 0.6", "starlette GZip": "<= 0.3"}.get(name, "")
            row(f"    of {name} ({got[name] - got['bare']:.2f} us)", f"{own / (got[name] - got['bare']):.2f}", limit)


class IdleCodec:
    """Answers at once with less than it was given."""

    def whole(self, body, level, padding=0):
        return b"coded"


def miss():
    for name in ("conv_1k", "conv_10k", "conv_100k"):
        body = PAYLOADS[name]
        app = application(body)
        for coding, level in (("br", 5 if len(body) < 4096 else 4), ("gzip", 6), ("zstd", 3)):
            headers = accepting(coding.encode())
            coded = CompressionMiddleware(app, budget=Budget(inline_ms=1e9))
            calls = max(3, 100_000 // len(body))
            cases = {
                "raw": timed(lambda c=coding, b=body, v=level: codec(c).whole(b, v), calls),
                "ours": lambda c=coded, h=headers, n=calls: repeat(c, h, n),
                "bare": lambda a=app, h=headers, n=calls: repeat(a, h, n),
            }
            got = medians(cases)
            extra = got["ours"] - got["raw"] - got["bare"]
            limit = "<= 6 us" if len(body) < 4096 else "<= 3 %"
            row(
                f"{name} {coding} {level}: above the codec ({got['raw']:.0f} us)",
                f"{extra:.1f} us, {100 * extra / got['raw']:.1f} %",
                limit,
            )
    # The codec itself is slower between other work than in a loop of its own: our share is what surrounds an idle one.
    app = application(PAYLOADS["conv_1k"])
    idle = CompressionMiddleware(app)
    idle._engine._codecs = dict.fromkeys(idle._engine._codecs, IdleCodec())
    cases = {"ours": lambda: repeat(idle, BROWSER, 300), "bare": lambda: repeat(app, BROWSER, 300)}
    got = medians(cases)
    row("conv_1k, around a codec that does nothing", f"{got['ours'] - got['bare']:.1f} us", "<= 6 us")


def gzip_only():
    for name in ("conv_10k", "conv_100k"):
        app = application(PAYLOADS[name])
        headers = accepting(b"gzip")
        makers = {
            "starlette GZip": PEERS.get("starlette GZip"),
            "ours": lambda a: CompressionMiddleware(a, budget=Budget(inline_ms=1e9)),
            "fast": lambda a: CompressionMiddleware(a, budget=Budget(inline_ms=1e9, preset="fast")),
        }
        built = {n: make(app) for n, make in makers.items() if make}
        got = medians({n: (lambda c=c, h=headers: repeat(c, h, 5)) for n, c in built.items()})
        sizes = {n: len(wire(c, headers)) for n, c in built.items()}
        base = got["starlette GZip"], sizes["starlette GZip"]
        limits = {"ours": f">= {2 if name == 'conv_10k' else 3}x, <= +2 %", "fast": ">= 8x, <= +11 %"}
        for n, limit in limits.items():
            row(
                f"{name} gzip only, {n}",
                f"{base[0] / got[n]:.1f}x, {100 * (sizes[n] / base[1] - 1):+.1f} % bytes",
                limit,
            )


def variants():
    """In process: what a hot body costs."""
    for name in ("conv_10k", "conv_100k"):
        app = application(PAYLOADS[name])
        ours = CompressionMiddleware(app, cache=VariantCache(upgrade_after=2))
        for _ in range(200):
            repeat(ours, BROWSER, 2)
            if ours.stats.cache_upgrades:
                break
            time.sleep(0.02)
        cases = {"ours": ours, "bare": app, **{n: make(app) for n, make in PEERS.items()}}
        got = medians({n: (lambda c=c: repeat(c, BROWSER, 5)) for n, c in cases.items()})
        sizes = {n: len(wire(c, BROWSER)) for n, c in cases.items()}
        for n in PEERS:
            row(
                f"{name} hot: {n} costs more by, sends more by",
                f"{got[n] / got['ours']:.0f}x, {100 * (sizes[n] / sizes['ours'] - 1):+.0f} % bytes",
            )


def serving(pipe, kind, name):
    import uvicorn

    app = application(PAYLOADS[name])
    if kind == "ours":
        app = CompressionMiddleware(app, cache=VariantCache())
    elif kind in PEERS:
        app = PEERS[kind](app)
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY on sockets that say so
    sock.bind(("127.0.0.1", 0))
    pipe.send(sock.getsockname()[1])
    uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", access_log=False)).run([sock])


def answer_size(link, request):
    """Return the bytes of a whole answer, head included; all that follow are of that size."""
    link.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += link.recv(1 << 18)
    head, _, body = data.partition(b"\r\n\r\n")
    size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    left = size - len(body)
    while left > 0:
        left -= len(link.recv(left))
    return len(head) + 4 + size


def requests_per_second(port, seconds):
    """Sixteen connections, one request on each at a time; the client only counts bytes, so the server is the limit."""
    request = b"GET / HTTP/1.1\r\n" + b"".join(k + b": " + v + b"\r\n" for k, v in BROWSER) + b"\r\n"
    links = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(16)]
    total = answer_size(links[0], request)
    view = memoryview(bytearray(total))
    for link in links:
        link.sendall(request)
    began = time.perf_counter()
    done, ends = 0, began + seconds
    while time.perf_counter() < ends:
        for link in links:
            left = total
            while left:
                left -= link.recv_into(view, left)
            link.sendall(request)
            done += 1
    rate = done / (time.perf_counter() - began)
    for link in links:
        link.close()
    return rate


def server():
    """Requests per second of a hot body through uvicorn, one worker, 16 connections, interleaved.

    uvicorn takes uvloop and httptools where they are installed; without them its own work hides the differences.
    """
    fast = all(importlib.util.find_spec(name) for name in ("uvloop", "httptools"))
    print(f"  uvicorn with {'uvloop and httptools' if fast else 'asyncio and h11'}")
    kinds = ["identity", "ours", *PEERS]
    for name in ("conv_10k", "conv_100k"):
        ports, processes = {}, []
        for kind in kinds:
            mine, theirs = multiprocessing.get_context("spawn").Pipe()
            process = multiprocessing.get_context("spawn").Process(
                target=serving, args=(theirs, kind, name), daemon=True
            )
            process.start()
            ports[kind] = mine.recv()
            processes.append(process)
        time.sleep(1)
        for kind in kinds:  # the variant is kept, wanted and upgraded before anything is measured
            for _ in range(8):
                with socket.create_connection(("127.0.0.1", ports[kind])) as link:
                    answer_size(link, b"GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: br, zstd, gzip\r\n\r\n")
        time.sleep(2)
        found = {kind: [] for kind in kinds}
        for _ in range(5):
            for kind in kinds:
                found[kind].append(requests_per_second(ports[kind], 0.6))
        for process in processes:
            process.terminate()
        rate = {kind: statistics.median(values) for kind, values in found.items()}
        row(
            f"{name} hot, of identity ({rate['identity']:.0f}/s)",
            f"{100 * rate['ours'] / rate['identity']:.0f} %",
            ">= 65 %",
        )
        for kind in PEERS:
            limit = {"brotli-asgi": f">= {5 if name == 'conv_10k' else 18}x"}.get(kind, "")
            row(f"{name} hot, {kind} ({rate[kind]:.0f}/s)", f"{rate['ours'] / rate[kind]:.1f}x", limit)


def stall():
    """A tiny request's latency while 1 MB bodies are compressed, and the longest gap of the event loop."""
    megabyte = (PAYLOADS["conv_100k"] * 11)[: 1 << 20]
    huge = (PAYLOADS["conv_100k"] * 170)[: 16 << 20]

    async def chunked(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for i in range(0, len(huge), 1 << 16):
            await send({"type": "http.response.body", "body": huge[i : i + (1 << 16)], "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})

    async def latencies(background, seconds):
        tiny = CompressionMiddleware(application(b"{}"))
        scope = {"type": "http", "method": "GET", "path": "/", "headers": BROWSER, "extensions": {}}
        busy = asyncio.ensure_future(background()) if background else None
        found, ends = [], time.perf_counter() + seconds
        while time.perf_counter() < ends and not (busy and busy.done()):
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            await tiny(scope, None, drop)
            found.append(time.perf_counter() - began - 0.001)
        if busy:
            busy.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await busy
        return sorted(found)

    def endless(app, accept):
        async def run():
            scope = {"type": "http", "method": "GET", "path": "/", "headers": accepting(accept), "extensions": {}}
            while True:
                await app(scope, None, drop)
                await asyncio.sleep(0)

        return run

    def once(app, accept):
        async def run():
            scope = {"type": "http", "method": "GET", "path": "/", "headers": accepting(accept), "extensions": {}}
            await app(scope, None, drop)

        return run

    alone = asyncio.run(latencies(None, 2))
    p99 = alone[int(len(alone) * 0.99)]
    # What the machine itself allows: the same beside a process that has nothing to do with us and never stops.
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burning:
        got = asyncio.run(latencies(None, 2))
        burning.kill()
    here = got[int(len(got) * 0.99)]
    row(
        "tiny p99 beside an unrelated busy process",
        f"{here * 1e3:.2f} ms, {here / p99:.1f}x, {100 * len(got) / len(alone):.0f} %",
        "the limit of the machine",
    )
    for name, make in {"ours": CompressionMiddleware, **PEERS}.items():
        got = asyncio.run(latencies(endless(make(application(megabyte)), b"gzip, deflate, br, zstd"), 2))
        here = got[int(len(got) * 0.99)]
        limit = "<= 3x, >= 95 % requests" if name == "ours" else ""
        row(
            f"tiny p99 beside 1 MB bodies, {name}",
            f"{here * 1e3:.2f} ms, {here / p99:.1f}x, {100 * len(got) / len(alone):.0f} %",
            limit,
        )
    for accept in (b"br", b"zstd", b"gzip"):
        for title, app in (("one shot", application(huge)), ("in 64 KB chunks", chunked)):
            got = asyncio.run(latencies(once(CompressionMiddleware(app), accept), 60))
            row(
                f"longest gap, 16 MB {accept.decode()} {title}",
                f"{got[-1] * 1e3:.1f} ms (alone {alone[-1] * 1e3:.1f})",
                "<= 5 ms",
            )


def events():
    """Memory and savings of open event streams: 330 bytes an event, flushed each."""
    psutil = importlib.import_module("psutil")
    items = json.loads(PAYLOADS["conv_100k"])["itens"]
    texts = [b"data: " + json.dumps(item).encode()[:322] + b"\n\n" for item in items][:100]
    for coding in ("gzip", "br", "zstd"):
        streams = [codec(coding).stream(small=True) for _ in range(400)]
        before = psutil.Process().memory_info().rss
        streams = [codec(coding).stream(small=True) for _ in range(400)]
        sent = [sum(len(stream.feed(text)) for text in texts) for stream in streams]
        used = (psutil.Process().memory_info().rss - before) / 400 / 1024
        saved = 100 * (1 - sent[0] / sum(map(len, texts)))
        row(
            f"event stream, {coding}",
            f"{saved:.1f} % saved, {used:.0f} KiB a stream",
            ">= 56 %, <= 40 KiB" if coding == "gzip" else "",
        )


def dictionaries():
    document = json.loads(PAYLOADS["conv_100k"])
    first = json.dumps(document).encode()
    headers = [pair for pair in accepting(b"br, dcz") if pair[0] != b"cookie"]  # nobody's list, so that it may be kept
    document["itens"][3] = {**document["itens"][3], "status": "fechada"}
    document["itens"][17] = {**document["itens"][17], "status": "aberta"}
    document["itens"].insert(0, json.loads(PAYLOADS["conv_1k"]))
    second = json.dumps(document).encode()
    bodies = iter([first, second])

    async def polled(scope, receive, send):
        await application(next(bodies))(scope, receive, send)

    middleware = CompressionMiddleware(polled, dictionaries=Dictionaries(delta=("/*",)))
    wire(middleware, headers)
    named = (b"available-dictionary", b":" + b64encode(sha256(first).digest()) + b":")
    sent = wire(middleware, [*headers, named])
    plain = len(codec("br").whole(second, 4))
    row(f"polled list of {len(second)} bytes, 3 changes (br 4: {plain})", f"{len(sent)} bytes", "<= 2048")
    items = [json.dumps(item).encode() for item in document["itens"]]
    train, test = items[: len(items) // 2], [item for item in items[len(items) // 2 :] if len(item) > 800]
    trained = Dictionary(train_dictionary(train * 4), match="/*")
    named = (b"available-dictionary", b":" + b64encode(trained.digest).decode().encode() + b":")
    ours = [
        len(
            wire(
                CompressionMiddleware(application(b), minimum_size=1, dictionaries=Dictionaries(trained=(trained,))),
                [*headers, named],
            )
        )
        for b in test
    ]
    theirs = [len(codec("br").whole(b, 4)) for b in test]
    frames = sum(ours) - 40 * len(test)  # each body begins with 40 bytes that name the dictionary
    encode = dictionary_codec().prepare(trained.content, lasting=True)
    got = medians(
        {
            "br": timed(lambda: [codec("br").whole(b, 4) for b in test]),
            "dcz": timed(lambda: [encode(b) for b in test]),
        }
    )
    row(
        f"{len(test)} items of {sum(map(len, test)) // len(test)} bytes, trained on others",
        f"{100 * (1 - sum(ours) / sum(theirs)):.0f} % ({100 * (1 - frames / sum(theirs)):.0f} % the frame) smaller, "
        f"{got['dcz'] / got['br']:.2f}x time",
        ">= 40 %, <= 0.2x",
    )


def seed():
    sizes = {c: len(compress_for(c.encode(), SEED, b"application/json").body) for c in ("gzip", "br", "zstd")}
    took = medians({c: timed(lambda c=c: compress_for(c.encode(), SEED, b"application/json")) for c in sizes})
    for c, limit in (("gzip", ">= 96.7 %, < 1 ms"), ("br", ">= 98.2 %, < 1 ms"), ("zstd", "")):
        row(
            f"seed's list, {len(SEED)} bytes, {c}",
            f"{100 * (1 - sizes[c] / len(SEED)):.2f} %, {took[c] / 1e3:.2f} ms",
            limit,
        )
    row("seed's list, brotli smaller than gzip", f"{100 * (1 - sizes['br'] / sizes['gzip']):.1f} %", ">= 45 %")
    for name, body in PAYLOADS.items():
        sizes = {c: len(codec(c).whole(body, v)) for c, v in (("gzip", 6), ("br", 4), ("zstd", 3))}
        best = len(codec("br").whole(body, 11))
        row(
            f"{name}, {len(body)} bytes: saved by gzip 6, br 4, zstd 3, br 11",
            ", ".join(f"{100 * (1 - s / len(body)):.1f} %" for s in [*sizes.values(), best]),
        )


def statistics_cost():
    stats = CompressionStats()

    def skip():
        stats.skipped["type"] += 1

    got = medians(
        {
            "count": timed(lambda: stats.count("br", 1000, 400), 20_000),
            "skip": timed(skip, 20_000),
            "empty": timed(lambda: None, 20_000),
        }
    )
    row("counting a coded response", f"{got['count'] - got['empty']:.2f} us", "<= 0.3 us")
    row("counting an uncoded response", f"{got['skip'] - got['empty']:.2f} us", "<= 0.3 us")


def uploads():
    body = PAYLOADS["conv_100k"] * 8
    packed = {"gzip": gzip.compress(body), "br": brotli.compress(body, quality=4)}
    raw = {"gzip": lambda data: zlib.decompressobj(31).decompress(data), "br": brotli.decompress}
    for coding, data in packed.items():

        async def app(scope, receive, send):
            while (await receive()).get("more_body"):
                pass

        async def run(coding=coding, data=data, app=app):
            parts = [data[i : i + 8192] for i in range(0, len(data), 8192)]
            queue = [
                {"type": "http.request", "body": part, "more_body": i + 1 < len(parts)} for i, part in enumerate(parts)
            ]

            async def receive():
                return queue.pop(0)

            scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-encoding", coding.encode())]}
            await RequestDecompressionMiddleware(app)(scope, receive, drop)

        got = medians(
            {
                "ours": timed(lambda run=run: asyncio.run(run())),
                "raw": timed(lambda c=coding, d=data: raw[c](d)),
                "loop": timed(lambda: asyncio.run(asyncio.sleep(0))),
            }
        )
        row(
            f"upload of {len(body)} bytes, {coding}: speed of the raw decoder",
            f"{got['raw'] / (got['ours'] - got['loop']):.2f}",
            ">= 0.9",
        )


SECTIONS = {
    f.__name__: f
    for f in (identity, miss, gzip_only, variants, server, stall, events, dictionaries, seed, statistics_cost, uploads)
}


def main():
    names = [a for a in sys.argv[1:] if not a.isdigit()]
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, peers: {', '.join(PEERS) or 'none'}")
    for name in names or SECTIONS:
        print(name)
        SECTIONS[name]()


if __name__ == "__main__":
    main()
