"""HTTP around the endpoints: request ids, bounded bodies, and every failure as one problem+json shape.

Nothing internal reaches a caller: an unexpected failure is logged under the request's id and answered with that id.
`Service` leaves out Starlette's two error middlewares, which would answer failures in a shape of their own.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from http import HTTPStatus
from time import perf_counter

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from app.domain.errors import BodyIncomplete, Internal, PayloadTooLarge, QueueError, RateLimitExceeded
from app.server.problems import REQUEST_ID_HEADER, problem_response, refused_by_routing, request_id_of
from app.server.whole_response import respond
from app.tracing import Kind, Tracer, traceparent_of, within

Observe = Callable[[str, str, int, float], None]
"""Called as an answer begins: with method, template of the path, status, and seconds since the request came."""
Refuse = Callable[[Scope, QueueError], Awaitable[Response]]
Admit = Callable[[str | None], int | None]
"""Counts a request of a client's address: None if it may go on, else after how many seconds the next may come."""

LARGEST_BODY = 64 * 1024

log = logging.getLogger(__name__)


class Service(Starlette):
    """Starlette without its two default error middlewares; ErrorMiddleware, which has to be given, does their work."""

    def build_middleware_stack(self) -> ASGIApp:
        """Starlette's, without ServerErrorMiddleware and ExceptionMiddleware around the layers that are given."""
        app: ASGIApp = self.router
        for layer, arguments, options in reversed(self.user_middleware):
            app = layer(app, *arguments, **options)
        return app


async def body_of(request: Request) -> bytes:
    """The whole body of a request.

    Raises PayloadTooLarge if it comes in chunks that are more than LARGEST_BODY bytes together,
    starlette.requests.ClientDisconnect if the caller has gone before its end, and BodyIncomplete if its length is not
    its Content-Length, so that no command is carried out with defaults in place of its body.
    """
    body = b""
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            raise _too_large()
        more = message.get("more_body", False)
    announced = _announced_length(request.scope)
    if announced is not None and announced != len(body):
        raise BodyIncomplete("The body is not as long as its Content-Length says.")
    return body


def _announced_length(scope: Scope) -> int | None:
    """The Content-Length; None if there is none, or if the body comes in chunks."""
    length = None
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length" and value.isdigit():
            length = int(value)
    return length


def _check_length(scope: Scope) -> None:
    """Refuses a body that announces itself as too large, whoever sends it and wherever."""
    if (_announced_length(scope) or 0) > LARGEST_BODY:
        raise _too_large()


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(f"A body can be at most {LARGEST_BODY} bytes.")


_UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
_DEFAULT_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class ErrorMiddleware:
    """ASGI middleware around everything: request ids, and an answer for every failure."""

    def __init__(
        self, app: ASGIApp, observe: Observe, refuse: Refuse, admit: Admit, tracer: Tracer | None = None
    ) -> None:
        """`refuse` makes the answer to a refusal; `admit` counts the requests of an address."""
        self._app = app
        self._observe = observe
        self._refuse = refuse
        self._admit = admit
        self._http = self._plain_http if tracer is None else partial(self._traced_http, tracer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except WebSocketDisconnect:
            # The client went away during the handshake: no failure, and not logged: clients can cause thousands.
            return

    async def _traced_http(self, tracer: Tracer, scope: Scope, receive: Receive, send: Send) -> None:
        """A span for the request, in the caller's trace. Probes and scrapes, which come all the time, have none."""
        if scope["path"] in _UNTRACED:
            await self._plain_http(scope, receive, send)
            return
        method = scope["method"]
        span = tracer.begin(
            method, kind=Kind.SERVER, parent=traceparent_of(scope["headers"]), http__request__method=method
        )
        status = 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with within(span.traceparent):
                await self._plain_http(scope, receive, send_noting)
        finally:
            route = _route(scope)
            span.rename(f"{method} {route}")
            span.note(http__route=route, http__response__status_code=status or None)
            span.end(problem=str(status) if status >= HTTPStatus.INTERNAL_SERVER_ERROR or not status else None)

    async def _plain_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        began = perf_counter()
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [
                    *message["headers"],
                    *_missing(message["headers"]),
                    (REQUEST_ID_HEADER, request_id.encode("latin-1")),
                ]
                self._answered(scope, message["status"], perf_counter() - began)
            await send(message)

        try:
            try:
                self._check_rate(scope)
                _check_length(scope)
                await self._app(scope, receive, send_with_id)
            except (QueueError, HTTPException) as refusal:
                if started:
                    raise
                answer = (
                    await self._refuse(scope, refusal)
                    if isinstance(refusal, QueueError)
                    else refused_by_routing(scope, refusal)
                )
                if isinstance(refusal, PayloadTooLarge):
                    # The rest of the body is not waited for.
                    answer.headers["Connection"] = "close"
                await respond(answer, scope, receive, send_with_id)
        except ClientDisconnect:
            # The caller went away before all of the request had come: nothing was done, and nobody waits for an answer.
            return
        except Exception:
            # The outermost boundary: the caller gets an id that names the error, and the log gets the traceback.
            log.exception("a request failed", extra={"request_id": request_id, "route": _route(scope)})
            if started:
                raise
            failure = Internal(f"Something went wrong here; it is logged under request id {request_id}.")
            await respond(problem_response(failure), scope, receive, send_with_id)

    def _check_rate(self, scope: Scope) -> None:
        client = scope.get("client")
        if (seconds := self._admit(client and client[0])) is not None:
            raise RateLimitExceeded("Too many requests from this address.", retry_after_seconds=seconds)

    def _answered(self, scope: Scope, status: int, seconds: float) -> None:
        method, route = scope["method"], _route(scope)
        self._observe(method, route, status, seconds)
        # A failure of the service is logged; the refusal of a bad request is only counted: clients can cause thousands.
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            about = {
                "request_id": scope["state"]["request_id"],
                "method": method,
                "route": route,
                "status": int(status),
                "milliseconds": round(seconds * 1000, 1),
            }
            log.warning("a request could not be answered as asked", extra=about)


def _missing(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The default headers that an answer does not set itself: they forbid content sniffing and caching."""
    names = {name for name, _ in headers}
    return [default for default in _DEFAULT_HEADERS if default[0] not in names]


def _route(scope: Scope) -> str:
    """The template of the path, which has no ids in it; "none" if no route matches."""
    return str(getattr(scope.get("route"), "path", "none"))
