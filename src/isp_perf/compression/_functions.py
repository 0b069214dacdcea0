"""Compression without a middleware: one body, one decision; and the mark that opts an endpoint out."""

from collections.abc import Callable
from functools import wraps
from inspect import isfunction, signature
from typing import Any, NamedTuple, TypeVar, cast

from isp_perf._core.cost import level_for
from isp_perf._core.media import DEFAULT_TYPES, OPAQUE, MediaTypes
from isp_perf._core.negotiation import KNOWN_CODINGS, Plan, negotiate
from isp_perf.compression._asgi import Receive, Scope, Send
from isp_perf.compression._codecs import available, codec
from isp_perf.compression._config import checked_codings
from isp_perf.compression._head import OPT_OUT, SCOPE_KEY

__all__ = ["Encoded", "compress_for", "no_compression"]

T = TypeVar("T", bound=Callable[..., Any])
_TYPES = MediaTypes(DEFAULT_TYPES)
_ASGI_PARAMETERS = ("scope", "receive", "send")


class Encoded(NamedTuple):
    """A body and its coding; ``coding`` is ``None`` when the body is as it was."""

    coding: str | None
    body: bytes


def _encoded(plan: Plan, body: bytes) -> Encoded:
    chosen = None if plan.coding is None else codec(plan.coding)
    if plan.coding is None or chosen is None:
        return Encoded(None, body)
    coded = chosen.whole(body, level_for(plan.coding, len(body), 0))
    return Encoded(None, body) if len(coded) >= len(body) and plan.identity_ok else Encoded(plan.coding, coded)


def compress_for(
    accept_encoding: bytes | str | None,
    body: bytes,
    content_type: bytes | str | None,
    *,
    minimum_size: int = 1024,
    encodings: tuple[str, ...] = KNOWN_CODINGS,
) -> Encoded:
    """Encode a body for a client, by the rules of ``CompressionMiddleware`` and without any state.

    Args:
        accept_encoding: the request's ``Accept-Encoding``; ``None`` if it has none.
        body: the complete body.
        content_type: its media type; ``None`` leaves the body as it is.
        minimum_size: bytes from which a body is coded; default 1024. A client that refuses identity gets smaller ones
            coded too.
        encodings: what to offer; the order breaks ties.

    Returns:
        The coding, as ``Content-Encoding`` names it, and the body. ``None`` and the very same body if the type is not
        compressible, the client does not want it, or it would not become smaller.

    Raises:
        ConfigurationError: ``encodings`` names an unknown coding.
    """
    header = accept_encoding.encode("latin-1", "replace") if isinstance(accept_encoding, str) else accept_encoding
    kind = content_type.encode("latin-1", "replace") if isinstance(content_type, str) else content_type
    plan = negotiate(header, available(checked_codings("encodings", encodings)))
    least = max(minimum_size, 1) if plan.identity_ok else 1
    if len(body) < least or _TYPES.classify(kind or b"") == OPAQUE:
        return Encoded(None, body)
    return _encoded(plan, body)


def _is_asgi(endpoint: object) -> bool:
    return isfunction(endpoint) and tuple(signature(endpoint).parameters) == _ASGI_PARAMETERS


def no_compression(endpoint: T) -> T:
    """Keep the responses of an endpoint uncoded, for example because they mix secrets with input of the client.

    An endpoint of Starlette or FastAPI (function or class) is only marked and otherwise stays what it is. A plain ASGI
    application, a function of ``scope, receive, send``, is wrapped.

    Args:
        endpoint: what to decorate.

    Returns:
        The same object, or the wrapped application.
    """
    if not _is_asgi(endpoint):
        setattr(endpoint, OPT_OUT, True)
        return endpoint

    @wraps(endpoint)
    async def uncoded(scope: Scope, receive: Receive, send: Send) -> None:
        scope[SCOPE_KEY] = False
        await endpoint(scope, receive, send)

    return cast("T", uncoded)
