"""The rules of HTTP that compression must keep, of ours and the peers: `python benchmarks/compression_rules.py`.

Each rule is one small request. A peer that raises, or answers otherwise, fails it. Peers that are not installed are
left out. Each peer is asked for the coding it has.
"""

import asyncio
import contextlib
import gzip
import importlib
import random
import sys

import brotli

from isp_perf.compression import CompressionMiddleware
from isp_perf.compression._codecs import library

BODY = b'{"cliente": "Ana", "texto": "sem sinal"}' * 100
START, DATA = "http.response.start", "http.response.body"


def peer(module, name):
    with contextlib.suppress(ImportError):
        return getattr(importlib.import_module(module), name)
    return None


WHO = {
    "isp_perf": (CompressionMiddleware, "gzip"),
    "starlette GZip": (peer("starlette.middleware.gzip", "GZipMiddleware"), "gzip"),
    "starlette-compress": (peer("starlette_compress", "CompressMiddleware"), "gzip"),
    "brotli-asgi": (peer("brotli_asgi", "BrotliMiddleware"), "br"),
    "zstd-asgi": (peer("zstd_asgi", "ZstdMiddleware"), "zstd"),
    "asgi-compression": (peer("asgi_compression", "CompressionMiddleware"), "gzip"),
    "asgi-gzip": (peer("asgi_gzip", "GZipMiddleware"), "gzip"),
}


def undo(coding, data):
    decoders = {b"gzip": gzip.decompress, b"br": brotli.decompress}
    if coding == b"zstd":
        return library("compression.zstd", "backports.zstd").decompress(data)
    return decoders[coding](data) if coding else data


class Seen:
    """One exchange with a middleware around an application of constant messages."""

    def __init__(self, make, accept, messages, **request):
        self.sent = []
        self.called = False
        self.messages = messages
        headers = [
            (b"host", b"a"),
            *([(b"accept-encoding", accept.encode())] if accept else []),
            *request.pop("headers", []),
        ]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "extensions": {}, **request}

        async def app(scope, receive, send):
            self.called = True
            for message in messages:
                await send(message)

        async def keep(message):
            self.sent.append(dict(message))

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        if (
            hasattr(make, "__mro__")
            and make.__name__ == "CompressionMiddleware"
            and make.__module__.startswith("asgi_compression")
        ):
            algorithms = importlib.import_module("asgi_compression")
            made = make(app, algorithms=[algorithms.GzipAlgorithm()])
        else:
            made = make(app)
        asyncio.run(made(scope, receive, keep))

    def header(self, name):
        start = next(m for m in self.sent if m["type"] == START)
        return b", ".join(v for k, v in start["headers"] if k.lower() == name)

    @property
    def body(self):
        return b"".join(m.get("body", b"") for m in self.sent if m["type"] == DATA)


def whole(*headers, body=BODY, status=200, **more):
    return [
        {"type": START, "status": status, "headers": [(b"content-type", b"application/json"), *headers], **more},
        {"type": DATA, "body": body},
    ]


def varies(seen):
    return b"accept-encoding" in seen.header(b"vary").lower()


def coded(seen):
    return bool(seen.header(b"content-encoding"))


def unchanged(make, c):
    messages = whole((b"vary", b"Origin"))
    before = [{**messages[0], "headers": list(messages[0]["headers"])}, dict(messages[1])]
    Seen(make, c, messages)
    return messages == before


def half_stream(make, c):
    """A stream shorter than its length must not look whole."""
    messages = [
        {"type": START, "status": 200, "headers": [(b"content-type", b"text/plain"), (b"content-length", b"99999")]},
        {"type": DATA, "body": BODY, "more_body": True},
        {"type": DATA, "body": b""},
    ]
    try:
        seen = Seen(make, c, messages)
    except RuntimeError:
        return True
    return seen.header(b"content-length") == b"99999"


RULES = {
    "q=0 is a refusal": lambda m, c: not coded(Seen(m, f"{c};q=0", whole())),
    "q=0.000 is a refusal": lambda m, c: not coded(Seen(m, f"{c};q=0.000", whole())),
    "a coding is a whole token": lambda m, c: not coded(Seen(m, f"x{c}x", whole())),
    "a name in any case": lambda m, c: coded(Seen(m, c.upper(), whole())),
    "* means every coding": lambda m, c: coded(Seen(m, "*", whole())),
    "identity preferred": lambda m, c: not coded(Seen(m, f"identity, {c};q=0.5", whole())),
    "identity refused: small body coded": lambda m, c: coded(Seen(m, f"{c}, identity;q=0", whole(body=b"{}"))),
    "nothing acceptable: 406 before the app": lambda m, c: not Seen(m, "identity;q=0", whole()).called,
    "strong tag not on coded bytes": lambda m, c: Seen(m, c, whole((b"etag", b'"v"'))).header(b"etag") != b'"v"',
    "304 varies": lambda m, c: varies(
        Seen(m, c, [{"type": START, "status": 304, "headers": []}, {"type": DATA, "body": b""}])
    ),
    "HEAD varies": lambda m, c: varies(Seen(m, c, whole((b"content-length", b"4000"), body=b""), method="HEAD")),
    "small body varies": lambda m, c: varies(Seen(m, c, whole(body=b"{}"))),
    "no-transform of the response": lambda m, c: not coded(Seen(m, c, whole((b"cache-control", b"no-transform")))),
    "no-transform of the request": lambda m, c: (
        not coded(Seen(m, c, whole(), headers=[(b"cache-control", b"no-transform")]))
    ),
    "206 untouched": lambda m, c: not coded(Seen(m, c, whole((b"content-range", b"bytes 0-9/99"), status=206))),
    "204 has no byte": lambda m, c: Seen(m, c, whole(status=204, body=b"")).body == b"",
    "Accept-Ranges dropped": lambda m, c: not Seen(m, c, whole((b"accept-ranges", b"bytes"))).header(b"accept-ranges"),
    "digests dropped": lambda m, c: (
        not Seen(m, c, whole((b"content-digest", b"x"), (b"repr-digest", b"x"))).header(b"repr-digest")
    ),
    "messages never changed": unchanged,
    "optional keys may be missing": lambda m, c: (
        Seen(m, c, [{"type": START, "status": 200}, {"type": DATA}]).body == b""
    ),
    "body never grows": lambda m, c: len(Seen(m, c, whole(body=random.Random(1).randbytes(1280))).body) <= 1280,
    "early hints pass": lambda m, c: (
        Seen(m, c, [{"type": "http.response.early_hint", "links": []}, *whole()]).sent[0]["type"].endswith("early_hint")
    ),
    "trailers keep chunked framing": lambda m, c: not Seen(m, c, whole(trailers=True)).header(b"content-length"),
    "pathsend passes": lambda m, c: (
        Seen(m, c, [whole()[0], {"type": "http.response.pathsend", "path": "/x"}]).sent[-1]["type"].endswith("pathsend")
    ),
    "packed types left alone": lambda m, c: (
        not coded(
            Seen(
                m,
                c,
                [
                    {"type": START, "status": 200, "headers": [(b"content-type", b"image/png")]},
                    {"type": DATA, "body": BODY},
                ],
            )
        )
    ),
    "problem+json coded": lambda m, c: coded(
        Seen(
            m,
            c,
            [
                {"type": START, "status": 500, "headers": [(b"content-type", b"application/problem+json")]},
                {"type": DATA, "body": BODY},
            ],
        )
    ),
    "a short stream does not look whole": half_stream,
}


def keeps(rule, make, coding):
    try:
        return bool(rule(make, coding))
    except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError):
        return False


def main():
    present = {name: pair for name, pair in WHO.items() if pair[0] is not None}
    print(f"{'rule':42}" + "".join(f"{name:>20}" for name in present))
    kept = dict.fromkeys(present, 0)
    for title, rule in RULES.items():
        answers = {name: keeps(rule, *pair) for name, pair in present.items()}
        print(f"{title:42}" + "".join(f"{'yes' if answer else '-':>20}" for answer in answers.values()))
        for name, answer in answers.items():
            kept[name] += answer
    print(f"{'kept of ' + str(len(RULES)):42}" + "".join(f"{number:>20}" for number in kept.values()))
    return 0 if kept["isp_perf"] == len(RULES) else 1


if __name__ == "__main__":
    sys.exit(main())
