"""Responses whose body is known: one ASGI message, and one write.

ASGI sends a response in two messages, and uvicorn writes each by itself: two system calls, and a reader that is woken
twice. Where the server names WHOLE_RESPONSE in `scope["extensions"]`, a message that starts a response may hold the
whole body under that name; middleware that adds headers to the start treats it as any other. Saves 6 % of an intake's
CPU (`bench --without one-write`).
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

WHOLE_RESPONSE = "performance_queue.whole_response"


class Endpoint:
    """A function from a request to its response, as an ASGI application.

    Starlette's own wrapper handles exceptions as well, which is the work of ErrorMiddleware here.
    """

    def __init__(self, handle: Callable[[Request], Awaitable[Response]]) -> None:
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._handle(Request(scope, receive, send))
        await respond(response, scope, receive, send)


async def respond(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response: in one message if its body is known and the server takes that."""
    if type(response) is Response and WHOLE_RESPONSE in scope.get("extensions", ()):
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": response.raw_headers,
                WHOLE_RESPONSE: response.body,
            }
        )
    else:
        await response(scope, receive, send)


def with_whole_responses(app: Any, cycle: RequestResponseCycle) -> ASGIApp:
    """The application for one request of uvicorn's; it may send whole responses."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][WHOLE_RESPONSE] = {}
        await app(scope, receive, partial(_send, cycle))

    return run


async def _send(cycle: RequestResponseCycle, message: Any) -> None:
    if WHOLE_RESPONSE not in message:
        await cycle.send(message)
        return
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()
    if not cycle.disconnected:
        _write(cycle, message["status"], message["headers"], message[WHOLE_RESPONSE])


def _write(cycle: RequestResponseCycle, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """What two calls of uvicorn's `send` do, for a response that has not begun and has lower-case header names."""
    if cycle.response_started:
        raise RuntimeError("A whole response was sent after the response had begun.")
    content = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        if HEADER_VALUE_RE.search(value):
            raise RuntimeError("Invalid HTTP header value.")
        if name == b"connection" and value.lower() == b"close":
            cycle.keep_alive = False
        else:
            content += (name, b": ", value, b"\r\n")
    content.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
    if cycle.scope["method"] != "HEAD":
        content.append(body)
    cycle.response_started = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(content))
    cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
