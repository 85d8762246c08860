"""uvicorn's WebSocket protocol, with limits, and open to frames that are made once and written to many connections.

The application finds the connection under `CONNECTION_EXTENSION` in `scope["extensions"]`. A write to it bypasses
ASGI's work for each message; everything else (handshake, reading, closing) stays uvicorn's.

Added: our close codes; a small write buffer of known size; budgets for frames and bytes (`admission`); input parsed in
slices, and not at all while the peer does not read; a close in bounded time, whatever the peer does. Each override says
what it keeps of uvicorn's method; `tests/server/test_upstream.py` fails when that one has changed.
"""

import asyncio
import socket
from collections.abc import Callable, Generator
from http import HTTPStatus
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import frames
from websockets.datastructures import Headers
from websockets.frames import CONT
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from app.domain.errors import BadRequest, Forbidden, Internal, MethodNotAllowed, QueueError, Unavailable
from app.server.admission import Address, Cause, SocketBudget, admission_of
from app.server.compression import SharedDeflate
from app.server.direct_transport import DirectTransport
from app.server.problems import REQUEST_ID, problem_response, request_id_of
from app.server.read_gate import Hold
from app.server.refusals import response_bytes
from app.wire.websocket import CloseCode

CONNECTION_EXTENSION = "performance_queue.connection"

LARGEST_FRAME = 64 * 1024
HIGH_WATER = 64 * 1024
"""Bytes waiting in our own buffer above which a connection counts as lagging and gets no more frames."""
KERNEL_BUFFER = 64 * 1024
"""Bytes that the kernel is asked for as the send buffer: by default it holds megabytes before ours begins to fill."""
VERSION = "13"
"""The one version of the protocol, RFC 6455."""


class _OverBudget(Exception):
    """Stops the parser; never raised."""


class _Protocol(ServerProtocol):
    """The library's protocol with our close codes, our answers to bad handshakes, and a budget."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_size=LARGEST_FRAME, **options)
        self.budget: SocketBudget | None = None
        self.over_budget: Cause | None = None
        self._request: Request | None = None
        """The handshake that is being answered."""

    def parse(self) -> Generator[None, None, None]:
        """The library's for the frames; the request has been parsed already."""
        return super(ServerProtocol, self).parse()

    def fail(self, code: int, reason: str = "") -> None:
        """The library's, with our own code for messages that it calls too big or not UTF-8."""
        ours = code in (frames.CloseCode.MESSAGE_TOO_BIG, frames.CloseCode.INVALID_DATA)
        super().fail(CloseCode.BAD_FRAME if ours else code, reason)

    def recv_frame(self, frame: frames.Frame) -> None:
        """The library's, unless the frame is over budget: then it fails the connection and discards later frames."""
        is_fragment = frame.opcode is CONT or (frame.opcode in frames.DATA_OPCODES and not frame.fin)
        cause = self.budget and self.budget.take_frame(is_fragment=is_fragment, is_last=frame.fin)
        if cause:
            self.over_budget, self.parser_exc = cause, _OverBudget()
            self.fail(CloseCode.TOO_MANY_FRAMES, "too many frames")
            return
        super().recv_frame(frame)

    def accept(self, request: Request) -> Response:
        """The library's. The answer to an invalid handshake names the version that is supported."""
        self._request = request
        response = super().accept(request)
        self._request = None
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            response.headers["Sec-WebSocket-Version"] = VERSION
        return response

    def reject(self, status: int, text: str) -> Response:
        """In place of the library's plain text: the shape of every other error."""
        refusal = _refusal(status, text)
        answer = problem_response(refusal)
        headers = Headers(
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.raw_headers]
            + [(REQUEST_ID, _id_of(self._request)), ("Connection", "close")]
        )
        return Response(refusal.status, HTTPStatus(refusal.status).phrase, headers, bytes(answer.body))


def _id_of(request: Request | None) -> str:
    """The request id of a handshake."""
    return request_id_of(
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in (request.headers.raw_items() if request is not None else ())
    )


def _refusal(status: int, text: str) -> QueueError:
    match status:
        case HTTPStatus.FORBIDDEN:
            return Forbidden("This WebSocket is not allowed.")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return MethodNotAllowed("A WebSocket handshake is a GET request.")
        case HTTPStatus.INTERNAL_SERVER_ERROR:
            return Internal("Something went wrong here.")
    return BadRequest(text.strip() or "This is not a WebSocket handshake.")


class QueueSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admission = admission_of(self.app)
        self.close_timeout = self._admission.limits.close_seconds
        self.conn = self._protocol = _Protocol(logger=self.logger, extensions=[SharedDeflate()])
        self._address: Address | None = None
        self._is_counted = False
        self._is_proxied = False
        """The peer is a trusted proxy."""
        self._unparsed = b""
        self._parsing: asyncio.Handle | None = None
        self._upgrade_timer: asyncio.TimerHandle | None = None
        self.on_change: Callable[[], None] | None = None
        """Called when `is_open`, `is_lagging` or `send_at_once` has changed."""
        self.is_open = False
        """Whether frames may be written: the handshake is over, and neither side has begun to close."""
        self.is_lagging = False
        """Whether more than HIGH_WATER bytes wait in our buffer; True until a quarter of that is left."""

    # Beginning

    def take_over(self, transport: asyncio.Transport, request: Request, rest: bytes, origin: Scope) -> None:
        """Begin on a connection whose upgrade request has come over HTTP; `rest`: the bytes that came after it.
        `origin`: the request's scope, which names the client that the connection counts for."""
        client = origin["client"]
        self._address = self._admission.hold(client and client[0])
        self.connection_made(transport)
        self._is_proxied = self._admission.proxies.trusts(self.client and self.client[0])
        self.client, self.scheme = client, "wss" if origin["scheme"] == "https" else "ws"
        seconds = self._admission.limits.upgrade_seconds
        self._upgrade_timer = self.loop.call_later(seconds, self._upgrade_took_too_long)
        self.handle_connect(request)
        if rest:
            self.data_received(rest)

    def connection_made(self, transport: Any) -> None:
        """uvicorn's, on a transport that writes directly and has a small buffer."""
        close_seconds = self._admission.limits.close_seconds
        self._direct = DirectTransport(transport, self._changed, self._parse_soon, close_seconds)
        super().connection_made(cast(asyncio.Transport, self._direct))
        transport.set_write_buffer_limits(high=HIGH_WATER, low=HIGH_WATER // 4)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)

    def handle_connect(self, event: Request) -> None:
        """uvicorn's, with our extension in the scope. The handshake of an address that has too many sockets is accepted
        before it is closed: a browser's script sees a close code, but no HTTP status."""
        if self._address is not None and not self._count(self._address, event):
            self._turn_away(event)
            return
        super().handle_connect(event)
        if self.handshake_complete:
            self._admission.refuse(Cause.HANDSHAKE)
            return
        self._direct.reading.hold(Hold.HANDSHAKE)
        extensions: dict[str, Any] = self.scope["extensions"]
        extensions[CONNECTION_EXTENSION] = self

    def _count(self, address: Address, request: Request) -> bool:
        is_forwarded = "X-Forwarded-For" in request.headers and not self._is_proxied
        self._is_counted = self._admission.open_socket(address, is_forwarded=is_forwarded)
        if self._is_counted:
            self._protocol.budget = SocketBudget(address, self._admission)
        return self._is_counted

    def _turn_away(self, request: Request) -> None:
        response = self.conn.accept(request)
        self.handshake_initiated = self.handshake_complete = True
        response.headers[REQUEST_ID] = _id_of(request)
        self.conn.send_response(response)
        if self.conn.state is OPEN:
            self._admission.closes[CloseCode.TOO_MANY_CONNECTIONS] += 1
            self.conn.fail(CloseCode.TOO_MANY_CONNECTIONS, "too many connections from this address")
        self._half_close()

    def _upgrade_took_too_long(self) -> None:
        if not self.handshake_complete and not self.transport.is_closing():
            self.handshake_complete = True
            self.transport.write(response_bytes(Unavailable("The service is too busy.", retry_after_seconds=5)))
            self._half_close()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def send(self, message: Any) -> None:
        """uvicorn's. After `accept` the bytes that came after the handshake are parsed; after `close` the connection is
        half-closed, so that the peer reads its end and closes soon."""
        closed_before = self.close_sent
        if message["type"] == "websocket.accept":
            self._direct.join()
        await super().send(message)
        self._set_open(self.handshake_complete and not (self.close_sent or self.transport.is_closing()))
        if message["type"] == "websocket.accept":
            self._stop_upgrade_timer()
            # Not used again: saves 3 KB, a tenth of a viewer's memory (`bench --without handshake`).
            del self.request, self.response
            self._direct.reading.release(Hold.HANDSHAKE)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            # Otherwise uvicorn would log each refused handshake as an error.
            self.handshake_complete = True
        if self.close_sent and not closed_before:
            self._stop_upgrade_timer()
            self._direct.write_eof()

    def _stop_upgrade_timer(self) -> None:
        if self._upgrade_timer is not None:
            self._upgrade_timer.cancel()
            self._upgrade_timer = None

    # Writing

    @property
    def deflates(self) -> bool:
        """Whether the peer takes compressed frames. Known once the handshake has been answered."""
        return bool(self.conn.extensions)

    @property
    def send_at_once(self) -> Callable[[bytes], int]:
        """Sends as much of a complete frame as it can; returns the number of bytes sent. The rest goes to `write`."""
        return self._direct.send

    def write(self, data: bytes) -> None:
        self._direct.write(data)

    def _set_open(self, is_open: bool) -> None:
        if is_open is not self.is_open:
            self.is_open = is_open
            self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def pause_writing(self) -> None:
        """uvicorn's. A peer that does not read is not read either: answers to pings and commands would pile up."""
        self.is_lagging = True
        self._direct.reading.hold(Hold.LAG)
        super().pause_writing()
        self._changed()

    def resume_writing(self) -> None:
        """uvicorn's."""
        self.is_lagging = False
        super().resume_writing()
        self._direct.reading.release(Hold.LAG)
        self._changed()

    def handle_ping(self) -> None:
        """uvicorn's, until our close frame: after that nothing may be written."""
        if not self.close_sent:
            super().handle_ping()

    # Reading

    def data_received(self, data: bytes) -> None:
        """uvicorn's, a slice at a time, each counted before it is parsed."""
        self._unparsed += data
        if self._parsing is None:
            self._parse()

    def _parse(self) -> None:
        self._parsing = None
        while self._unparsed and not self.disconnected and self._direct.reading.may_parse:
            size = self._admission.limits.slice_bytes
            piece, self._unparsed = self._unparsed[:size], self._unparsed[size:]
            budget = self._protocol.budget
            if budget is not None and (cause := budget.take_bytes(len(piece))):
                self._too_much(cause, "too many bytes")
                return
            super().data_received(piece)
            if self._unparsed:
                self._direct.reading.hold(Hold.UNPARSED)
                self._parsing = self.loop.call_soon(self._parse)
                return
        if not self._unparsed:
            self._direct.reading.release(Hold.UNPARSED)

    def _parse_soon(self) -> None:
        if self._unparsed and self._parsing is None and self._direct.reading.may_parse:
            self._parsing = self.loop.call_soon(self._parse)

    def _too_much(self, cause: Cause, reason: str) -> None:
        self._admission.refuse(cause)
        if self.close_sent:
            self.transport.abort()
            return
        self.conn.fail(CloseCode.TOO_MANY_FRAMES, reason)
        self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """uvicorn's, which would log every text that is not UTF-8, and close with 1007."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(CloseCode.BAD_FRAME, "not UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    # The ways in which a connection ends. From then on it takes no frames.

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn's; takes the connection out of the counts."""
        self._set_open(False)
        self._direct.release()
        self._unparsed = b""
        self._stop_upgrade_timer()
        self._admission.close(self)
        if self._address is not None:
            if self._is_counted:
                self._admission.close_socket(self._address)
            self._admission.release(self._address)
            self._address = None
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """uvicorn's: the connection is closed, but without waiting for a peer that does not read either."""
        self._set_open(False)
        super().eof_received()
        self._direct.close()

    def handle_close(self, event: frames.Frame) -> None:
        """uvicorn's."""
        self._set_open(False)
        super().handle_close(event)

    def shutdown(self) -> None:
        """uvicorn's."""
        self._set_open(False)
        super().shutdown()

    def abort(self) -> None:
        """End the connection at once, without a close frame."""
        self.transport.abort()

    def cut_off(self, code: int, reason: str) -> None:
        """Close a connection whose buffer may never become empty: the close frame is written after the bytes in it, and
        the connection is aborted after `close_timeout` even if they were not read."""
        if not self.is_open:
            return
        self._set_open(False)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.fail(code, reason)
        self._half_close()

    def keepalive_timeout(self) -> None:
        """In place of uvicorn's: with our close code, and in bounded time even if the peer reads nothing."""
        self.pong_timer = None
        self.pending_ping_payload = None
        self.cut_off(CloseCode.NO_PONG, "no pong")

    def handle_parser_exception(self) -> None:
        """In place of uvicorn's: the peer is given time to read the close frame."""
        self._set_open(False)
        if self._protocol.over_budget is not None:
            self._admission.refuse(self._protocol.over_budget)
            self._protocol.over_budget = None
        closing = self.conn.close_sent
        if closing is None or self.close_sent:
            # It breaks the protocol after our close frame.
            self.transport.abort()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason})
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._half_close()

    def _half_close(self) -> None:
        """Write the waiting bytes, half-close, and wait for the peer to close. A close at once, with bytes of the peer
        unread, would reset the connection, and the peer would lose ours."""
        if self.transport.is_closing():
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._admission.ending(self)
        self._direct.write_eof()
        self._direct.reading.release(Hold.LAG)
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
