"""The outermost layer of HTTP: request ids, bounded bodies, and every error as one problem+json shape.

Nothing internal reaches a caller: an unexpected failure is logged under the request's id and answered with that id.
"""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from time import perf_counter
from typing import Any

import uuid_utils
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Internal, MethodNotAllowed, NotFound, PayloadTooLarge, QueueError
from app.wire.encoding import encode
from app.wire.shapes import WholeItem, problem

Observe = Callable[[str, str, int, float], None]
"""Told of every answer as it begins: method, template of the path, status, seconds since the request came."""

LARGEST_BODY = 64 * 1024
REQUEST_ID = "X-Request-ID"
_REQUEST_ID_HEADER = REQUEST_ID.lower().encode()

_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")

log = logging.getLogger(__name__)


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The caller's own id for this request if it sent a sane one, else a new one. `headers` as ASGI has them."""
    for name, value in headers:
        if name == _REQUEST_ID_HEADER and _SANE_REQUEST_ID.fullmatch(value):
            return value.decode()
    return str(uuid_utils.uuid7())


def problem_response(error: QueueError, item: WholeItem | None = None) -> Response:
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(encode(problem(error, item)), error.status, headers, media_type="application/problem+json")


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette's own routing refuses, in our shape."""
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    if status == HTTPStatus.NOT_FOUND:
        return problem_response(NotFound(f"There is nothing at {request.url.path}."))
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        response = problem_response(MethodNotAllowed(f"{request.method} is not possible at {request.url.path}."))
        response.headers.update(getattr(error, "headers", None) or {})
        return response
    return problem_response(Internal("Something went wrong here."))


class Edge:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        request_id = request_id_of(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        began = perf_counter()
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (_REQUEST_ID_HEADER, request_id.encode("latin-1"))]
                self._answered(scope, message["status"], perf_counter() - began)
            await send(message)

        try:
            if _too_large(headers):
                raise PayloadTooLarge(f"A body can be at most {LARGEST_BODY} bytes.")
            await self._app(scope, _bounded(receive), send_with_id)
        except QueueError as refusal:
            await problem_response(refusal)(scope, receive, send_with_id)
        except ClientDisconnect:
            # The caller went away before all of the request had come: nothing was done, and nobody waits for an answer.
            return
        except Exception:
            # The boundary: whatever it was, the caller gets an id to name it by and we keep the trace.
            log.exception("a request failed", extra={"request_id": request_id, "route": _route(scope)})
            if started:
                raise
            failure = Internal(f"Something went wrong here; it is logged under request id {request_id}.")
            await problem_response(failure)(scope, receive, send_with_id)

    def _answered(self, scope: Scope, status: int, seconds: float) -> None:
        method, route = scope["method"], _route(scope)
        self._observe(method, route, status, seconds)
        # A line for what the service could not do, none for what the caller should not have asked: that can be had by
        # the thousand, and is counted.
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            about = {
                "request_id": scope["state"]["request_id"],
                "method": method,
                "route": route,
                "status": int(status),
                "milliseconds": round(seconds * 1000, 1),
            }
            log.warning("a request could not be answered as asked", extra=about)


def _route(scope: Scope) -> str:
    """The template of the path, which has no ids in it; "none" where nothing is."""
    return str(getattr(scope.get("route"), "path", "none"))


def _too_large(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-length" and value.isdigit() and int(value) > LARGEST_BODY for name, value in headers)


def _bounded(receive: Receive) -> Receive:
    """`receive`, until a body without an honest length has grown too large."""
    total = 0

    async def receive_bounded() -> Message:
        nonlocal total
        message: dict[str, Any] = dict(await receive())
        if message["type"] == "http.request":
            total += len(message.get("body", b""))
            if total > LARGEST_BODY:
                raise PayloadTooLarge(f"A body can be at most {LARGEST_BODY} bytes.")
        return message

    return receive_bounded
