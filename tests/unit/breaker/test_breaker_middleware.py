import json

import pytest

from isp_perf.breaker import CircuitIsolatedError, CircuitOpenError, CircuitOpenMiddleware
from isp_perf.errors import BulkheadFullError, ConfigurationError


async def run(app, kind="http", **settings):
    """Send one request through the middleware and return what it sent."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    await CircuitOpenMiddleware(app, **settings)({"type": kind}, receive, send)
    return sent


def raising(error, *messages):
    async def app(scope, receive, send):
        for message in messages:
            await send(message)
        raise error

    return app


async def test_rejection_becomes_503_with_retry_after_and_a_problem_document():
    """The answer is a 503 whose Retry-After is whole seconds, rounded up, and whose body tells nothing inside."""
    start, body = await run(raising(CircuitOpenError("secret_service", 2.1, "SecretError")))
    headers = dict(start["headers"])
    assert start["status"] == 503
    assert headers[b"retry-after"] == b"3"
    assert headers[b"content-type"] == b"application/problem+json"
    assert int(headers[b"content-length"]) == len(body["body"])
    assert json.loads(body["body"])["status"] == 503
    assert b"ecret" not in body["body"]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (CircuitOpenError("a", 0.0), b"1"),
        (CircuitIsolatedError("a"), b"9"),
        (BulkheadFullError("a"), b"9"),
        (ExceptionGroup("g", [CircuitOpenError("a", 3.0), ExceptionGroup("h", [CircuitOpenError("b", 5.0)])]), b"5"),
    ],
)
async def test_every_kind_of_rejection_is_answered(error, seconds):
    """Rejections that know no time get the configured one, and a group of rejections the longest of its own."""
    start, _ = await run(raising(error), retry_after=9)
    assert dict(start["headers"])[b"retry-after"] == seconds


async def test_nothing_is_sent_after_the_response_has_started():
    """Once the response has started, the rejection passes through unchanged."""
    begun = {"type": "http.response.start", "status": 200, "headers": []}
    with pytest.raises(CircuitOpenError):
        await run(raising(CircuitOpenError("a", 1.0), begun))


@pytest.mark.parametrize("error", [OSError(), ExceptionGroup("g", [CircuitOpenError("a", 1.0), OSError()])])
async def test_other_errors_pass_through(error):
    """What is not, or not only, a rejection is none of the middleware's business."""
    with pytest.raises(type(error)):
        await run(raising(error))


async def test_websocket_is_told_to_try_again_later():
    """A rejected WebSocket is closed with code 1013, unless it is closed already."""
    assert await run(raising(CircuitOpenError("a", 1.0)), "websocket") == [{"type": "websocket.close", "code": 1013}]
    with pytest.raises(CircuitOpenError):
        await run(raising(CircuitOpenError("a", 1.0), {"type": "websocket.close"}), "websocket")


async def test_lifespan_is_left_alone():
    """Other scopes pass through untouched."""
    with pytest.raises(CircuitOpenError):
        await run(raising(CircuitOpenError("a", 1.0)), "lifespan")


def test_wait_to_tell_is_above_zero():
    """A Retry-After of nothing is refused at construction."""
    with pytest.raises(ConfigurationError):
        CircuitOpenMiddleware(raising(OSError()), retry_after=0)
