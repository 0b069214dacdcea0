"""Reading a response's head: what forbids coding, and what one response asks for."""

from typing import Any, Final

from isp_perf._core.cost import Choice
from isp_perf._core.headers import has_token
from isp_perf.compression._config import Options
from isp_perf.errors import ConfigurationError

__all__ = ["DEFAULTS", "OPT_OUT", "SCOPE_KEY", "as_bytes", "forbidden", "options_of", "timing"]

SCOPE_KEY: Final = "isp_perf.compression"
OPT_OUT: Final = "_isp_perf_no_compression"
DEFAULTS: Final = Options()


def options_of(value: object) -> Options:
    """Return what ``scope["isp_perf.compression"]`` asks for; ``None`` and ``False`` ask for nothing."""
    if value is None or value is False or value is True:
        return DEFAULTS
    if isinstance(value, Options):
        return value
    if isinstance(value, str):
        return Options(coding=value)
    raise ConfigurationError(SCOPE_KEY, type(value).__name__, "False, a coding's name, or Options(...)", "see Options")


def forbidden(found: dict[bytes, bytes]) -> str | None:
    """Return why a response with these fields must not be coded: it is coded already, or must not be transformed."""
    codings = found.get(b"content-encoding")
    if codings is not None and any(name.strip() != b"identity" for name in codings.lower().split(b",")):
        return "already_encoded"
    return "no_transform" if has_token(found.get(b"cache-control", b""), b"no-transform") else None


def timing(choice: Choice, seconds: float) -> bytes:
    """Return the value of Server-Timing for a codec run."""
    return f'cmp;dur={seconds * 1000:.3f};desc="{choice.coding}{choice.level}"'.encode("ascii")


def as_bytes(body: Any) -> bytes:
    """Return a body as bytes; the very same object if it is bytes already."""
    return body if type(body) is bytes else bytes(body)
