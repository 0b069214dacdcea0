"""A running service, asked over HTTP for what its monitoring endpoints say."""

import argparse
import json
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, cast
from urllib.parse import SplitResult, urlsplit

from isp_perf.errors import ConfigurationError

__all__ = ["Remote", "add_remote_arguments", "header_line", "split_url"]

_TIMEOUT: Final = 5.0  # seconds for one answer
_ENDPOINTS: Final = ("/performance/dashboard", "/cache/stats", "/compression/stats", "/circuit-breakers", "/metrics")
_ENDINGS: Final = (*_ENDPOINTS, "/health/live", "/health/ready", "/health")
_SUCCESS: Final = range(200, 300)
_UNHEALTHY: Final = 503


def add_remote_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which service is asked, and how."""
    parser.add_argument("url", metavar="URL", help="the service, such as http://127.0.0.1:8000 (or below its prefix)")
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="sent with every request, such as 'Authorization: Bearer ...'; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def split_url(url: str) -> SplitResult:
    """Return the parts of an HTTP URL.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError("URL", url[:80], str(error), "write http://127.0.0.1:8000") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        rule = "a URL starts with http:// or https:// and names a host"
        raise ConfigurationError("URL", url[:80], rule, "write for example http://127.0.0.1:8000")
    return parts


class Remote:
    """The monitoring endpoints of one service.

    Args:
        url: where they stand; the path of one of them at its end is taken off.
        headers: lines ``Name: value``.

    Raises:
        ConfigurationError: no URL, or no header line.
    """

    def __init__(self, url: str, headers: list[str]) -> None:
        parts = split_url(url)
        path = parts.path.rstrip("/")
        self._prefix = next((path.removesuffix(end) for end in _ENDINGS if path.endswith(end)), path)
        self._host, self._port = str(parts.hostname), parts.port
        self._secure = parts.scheme == "https"
        self._headers = dict(map(header_line, headers))
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self._prefix}"

    def get(self, path: str, *, also: range | int = 0) -> dict[str, Any]:
        """Return the JSON object under ``path``.

        Args:
            path: of the endpoint.
            also: a further status that is an answer, not a failure.

        Raises:
            OSError: nobody answers, or not with JSON.
        """
        status, body = self._ask(path)
        if status not in _SUCCESS and status != also:
            reason = _detail(body)
            raise OSError(f"{self.url}{path} answered {status}{f': {reason}' if reason else ''}")
        try:
            found = json.loads(body)
        except ValueError:
            raise OSError(f"{self.url}{path} answered without JSON; is it a service with isp_perf?") from None
        if not isinstance(found, dict):
            raise OSError(f"{self.url}{path} answered with other JSON than an object")
        return cast("dict[str, Any]", found)

    def performance(self) -> dict[str, Any]:
        """Return what the live page shows.

        Raises:
            OSError: nobody answers, or the figures are not for us.
        """
        found = self.get("/performance/dashboard?fresh=1").get("performance")
        if not isinstance(found, dict):
            raise OSError(
                f"{self.url}/performance/dashboard shows no figures here: ask from its own machine, give --header "
                "for its auth, or use a prefix if the application has a page of that name"
            )
        return cast("dict[str, Any]", found)

    def health(self) -> dict[str, Any]:
        """Return what ``/health`` says, also of an unhealthy service."""
        return self.get("/health", also=_UNHEALTHY)

    def _ask(self, path: str) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.request("GET", self._prefix + path, headers={"accept": "application/json", **self._headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except HTTPException as error:
            raise OSError(f"{self.url} does not speak HTTP: {type(error).__name__}") from error
        except OSError as error:
            raise OSError(f"{self.url} does not answer: {error}") from error
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return HTTPSConnection(self._host, self._port, timeout=_TIMEOUT, context=context)
        return HTTPConnection(self._host, self._port, timeout=_TIMEOUT)


def header_line(line: str) -> tuple[str, str]:
    """Return name and value of a header written ``Name: value``.

    Raises:
        ConfigurationError: it is none.
    """
    name, colon, value = line.partition(":")
    if not (colon and name.strip() and name.isascii() and line.isprintable()):
        raise ConfigurationError("--header", name[:40], "a header is written 'Name: value'", "put it into quotes")
    return name.strip(), value.strip()


def _detail(body: bytes) -> str:
    """Return the reason an endpoint gives, if it gives one."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""
