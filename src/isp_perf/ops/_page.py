"""The live page as one HTML document: its style, its script and its first figures inside, nothing else to fetch.

Style and script are constants, so the content security policy names them by their hashes, and one rendering of the
page serves everybody who asks while it is new.
"""

import sys
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Final

__all__ = ["asset", "html_page", "page_headers"]

_VERSION: str = sys.modules["isp_perf"].__version__  # loaded before any of its rooms, which must not import it
_CARDS: Final = (
    "now",
    "saved",
    "routes",
    "caches",
    "keys",
    "breakers",
    "sites",
    "redis",
    "codings",
    "workers",
    "process",
    "own",
)
_HEAD: Final = """<!doctype html>
<html lang="en" data-at="{ident}"><head><meta charset="utf-8"><title>isp_perf live</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<noscript><meta http-equiv="refresh" content="5"></noscript><style>{style}</style></head><body>
<header><h1>isp_perf live</h1><span id="state" role="status">{scope}</span>
<input class="js" id="find" type="search" aria-label="Show rows that contain" placeholder="Filter rows">
<button class="js" id="pause" aria-pressed="false">Pause</button>
<button class="js" id="scope">{other}</button> <button class="js" id="ask">Keys</button></header>
<main>{cards}</main>
<dialog id="help" aria-labelledby="help-t"><h2 id="help-t">Keys</h2><dl><dt>/</dt><dd>filter rows</dd>
<dt>p</dt><dd>pause and go on</dd><dt>w</dt><dd>all workers or this one</dd><dt>?</dt><dd>this list</dd></dl>
<p><label><input type="checkbox" id="short" checked> single keys are shortcuts</label></p>
<p class="note">isp_perf {version}. Figures are totals over all workers; rates are of the last 10 seconds.</p>
<button id="done">Close</button></dialog>
<script>{script}</script></body></html>
"""


@cache
def asset(name: str) -> str:
    """Return a file that the page consists of."""
    return files("isp_perf.ops").joinpath("page", name).read_text("utf-8")


@cache
def page_headers() -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of the page: what it may load and who may frame it (nothing and nobody else)."""
    policy = (
        f"default-src 'none'; script-src {_hash('page.js')}; style-src {_hash('page.css')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return (
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy.encode()),
        (b"cache-control", b"no-store"),
        (b"vary", b"Accept"),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    )


def html_page(cards: Mapping[str, str], *, ident: str, one_worker: bool) -> bytes:
    """Return the page.

    Args:
        cards: their HTML by name.
        ident: of the figures in it, so that the stream goes on from there.
        one_worker: the figures are those of the worker that answers.
    """
    sections = "".join(
        f'<section id="{name}" aria-labelledby="{name}-t">{cards[name]}</section>' for name in _CARDS if name in cards
    )
    text = _HEAD.format(
        ident=escape(ident),
        style=asset("page.css"),
        script=asset("page.js"),
        scope="this worker" if one_worker else "all workers",
        other="All workers" if one_worker else "This worker",
        cards=sections,
        version=_VERSION,
    )
    return text.encode()


def _hash(name: str) -> str:
    digest = b64encode(sha256(asset(name).encode()).digest()).decode()
    return f"'sha256-{digest}'"
