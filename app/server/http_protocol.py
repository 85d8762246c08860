"""uvicorn's HTTP protocol with limits: bounded heads and bodies, deadlines, and input parsed in slices.

A refusal from here has the shape of every other error and a request id, and is counted by cause. The function under
`ABORT_EXTENSION` in `scope["extensions"]` drops the connection of a peer that does not read: ASGI itself can only
close, and a close waits until the peer has read everything.

Each override says what it keeps of uvicorn's method; `tests/server/test_upstream.py` fails when that one has changed.
"""

import asyncio
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, TypeVar, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.domain.errors import (
    BadRequest,
    HeadersTooLarge,
    MethodNotAllowed,
    PayloadTooLarge,
    QueueError,
    RateLimitExceeded,
    RequestTimeout,
    Unavailable,
    UriTooLong,
)
from app.server import request_head
from app.server.admission import Address, Cause, admission_of
from app.server.read_gate import Hold, ReadGate
from app.server.refusals import response_bytes
from app.server.response_transport import ResponseTransport
from app.server.websocket_protocol import QueueSocketProtocol
from app.server.whole_response import with_whole_responses

ABORT_EXTENSION = "performance_queue.abort"

Abort = Callable[[], None]
T = TypeVar("T")

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
"""RFC 3986 section 3.2: a host, and perhaps a port."""

LARGEST_LEFTOVER = 16 * 1024 * 1024
"""Bytes that are read and dropped after an answer that ends the connection."""


class _Phase(Enum):
    """The parts of a request that have been received."""

    NEW = auto()
    """Nothing has come on this connection."""
    HEAD = auto()
    BODY = auto()
    DONE = auto()
    """The last one is complete, the next has not begun."""


class _Refused(Exception):
    """Stops the parser from inside one of its callbacks."""


class QueueHttpProtocol(HttpToolsProtocol):
    """One HTTP connection, until it ends or becomes a WebSocket."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admission = admission_of(self.app)
        self._limits = self._admission.limits
        self._unparsed = b""
        self._parsing: asyncio.Handle | None = None
        self._phase = _Phase.NEW
        self._phase_bytes = 0
        """Bytes that have come in slices which began and ended in this phase."""
        self._refusal: tuple[QueueError, Cause] | None = None
        self._serving: RequestResponseCycle | None = None
        """The request that the application is answering, or has answered last."""
        self._current: RequestResponseCycle | None = None
        """The request that is coming in, once its head is whole and good."""
        self._is_over = False
        """Bytes that come are no longer parsed."""
        self._leftover = 0
        """Bytes dropped since then."""
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_phase = _Phase.DONE
        self._turn: asyncio.TimerHandle | None = None
        """The timer after which a handshake, or a request that came early, goes on."""
        self._came_early = False
        """The next request began to come before the last answer was complete."""
        self._end_timer: asyncio.TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """uvicorn's, with a flow control that can be held for more than one reason."""
        super().connection_made(transport)
        self._reading = ReadGate(transport, self._parse_soon)
        self.flow = FlowControl(cast(asyncio.Transport, self._reading))
        if self._admission.open(self):
            self._keep_deadline()
        else:
            self._end_with(Unavailable("The service has as many connections as it can.", retry_after_seconds=5))

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn's, which reports the disconnect only to the newest request on the connection; here the one that is
        being answered gets it as well, and our timers end."""
        self._is_over = True
        if self._serving is not None:
            self._serving.disconnected = True
            self._serving.message_event.set()
        self._unparsed = b""
        # The waiting requests and this connection refer to each other: only the garbage collector would free them.
        self.pipeline.clear()
        for timer in (self._deadline, self._end_timer, self._turn, self._parsing):
            if timer is not None:
                timer.cancel()
        self._admission.close(self)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def abort(self) -> None:
        """End the connection at once, without a response."""
        self.transport.abort()

    def close(self) -> None:
        """Close when the peer has read all that is written. Its further bytes are read and dropped for a while: a close
        with bytes unread would reset the connection, and the peer would lose the response."""
        if self.transport.is_closing():
            return
        if self._phase is _Phase.BODY or self._unparsed:
            self._linger()
            return
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._end_timer = self.loop.call_later(self._limits.write_seconds, self.transport.abort)

    def shutdown(self) -> None:
        """uvicorn's, but without waiting for a peer that does not read."""
        if self.cycle is None or self.cycle.response_complete:
            self.close()
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """uvicorn's, but without waiting for a peer that does not read."""
        self.close()

    def pause_writing(self) -> None:
        """uvicorn's. A peer that leaves a full buffer unread for too long is dropped."""
        super().pause_writing()
        if self._end_timer is None:
            self._end_timer = self.loop.call_later(self._limits.write_seconds, self._stalled)

    def resume_writing(self) -> None:
        """uvicorn's."""
        super().resume_writing()
        if self._end_timer is not None and not self.transport.is_closing() and not self._is_over:
            self._end_timer.cancel()
            self._end_timer = None

    def _stalled(self) -> None:
        self._admission.refuse(Cause.STALLED)
        self.transport.abort()

    # Bytes in

    def data_received(self, data: bytes) -> None:
        """In place of uvicorn's, which parses all bytes at once and logs every invalid request."""
        self._unset_keepalive_if_required()
        if self._is_over:
            self._leftover += len(data)
            if self._leftover > LARGEST_LEFTOVER:
                self.transport.abort()
            return
        self._unparsed += data
        if self._parsing is None:
            self._parse()

    def _parse_soon(self) -> None:
        if self._unparsed and self._parsing is None and self._reading.may_parse:
            self._parsing = self.loop.call_soon(self._parse)

    def _parse(self) -> None:
        """Parse one slice; the rest follows after the turns of the other connections."""
        self._parsing = None
        if self._unparsed and not self._is_over and self._reading.may_parse:
            size = self._limits.slice_bytes
            piece, self._unparsed = self._unparsed[:size], self._unparsed[size:]
            self._parse_piece(piece)
            if self._is_over:
                return
        if self._unparsed:
            self._reading.hold(Hold.UNPARSED)
            self._parse_soon()
        else:
            self._reading.release(Hold.UNPARSED)
        self._keep_deadline()

    def _parse_piece(self, piece: bytes) -> None:
        before = self._phase
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(piece[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(*(self._refusal or (BadRequest("This is not an HTTP request."), Cause.BAD_REQUEST)))
            return
        if self._phase is before:
            self._phase_bytes += len(piece)
            self._check_size()

    def _check_size(self) -> None:
        if self._phase in (_Phase.NEW, _Phase.HEAD) and self._phase_bytes > self._limits.head_bytes:
            refusal = HeadersTooLarge(f"A request's head can be at most {self._limits.head_bytes} bytes.")
            self._refuse(refusal if self.headers else request_head.uri_too_long(), Cause.HEAD_SIZE)
        elif self._phase is _Phase.BODY and self._phase_bytes > self._limits.body_bytes:
            self._refuse(PayloadTooLarge("The body is too large."), Cause.BODY_SIZE)

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        self._phase_bytes = 0

    # Deadlines. None is set for a request that comes whole, as nearly all do.

    def _keep_deadline(self) -> None:
        if self._phase is self._deadline_phase:
            return
        self._drop_deadline()
        limits = self._limits
        seconds = {_Phase.BODY: limits.body_seconds, _Phase.DONE: None}.get(self._phase, limits.head_seconds)
        if seconds is not None and not self._is_over:
            self._deadline_phase = self._phase
            self._deadline = self.loop.call_later(seconds, self._too_late)

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline, self._deadline_phase = None, _Phase.DONE

    def _too_late(self) -> None:
        self._drop_deadline()
        if not self._reading.may_parse or self._unparsed:
            # The bytes may have come: it is we who do not read them.
            self._keep_deadline()
        elif self._phase is _Phase.NEW and not self._phase_bytes:
            self._admission.refuse(Cause.HEAD_TIME)
            self._is_over = True
            self.transport.abort()
        elif self._phase is _Phase.BODY:
            self._refuse(RequestTimeout("The request's body did not come in time."), Cause.BODY_TIME)
        else:
            self._refuse(RequestTimeout("The request's head did not come in time."), Cause.HEAD_TIME)

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """uvicorn's, with our extension in the scope."""
        self._enter(_Phase.HEAD)
        self._current = None
        super().on_message_begin()
        scope = cast(dict[str, Any], self.scope)
        scope.setdefault("extensions", {})[ABORT_EXTENSION] = self.transport.abort

    def on_headers_complete(self) -> None:
        """uvicorn's, once the head is checked and the client found. A head with an offer of another protocol that we do
        not accept begins no request yet: `_upgrade` has it parsed again."""
        self._enter(_Phase.BODY)
        self._check_head()
        if self.parser.should_upgrade() and not self._should_upgrade():
            self.scope["method"] = self.parser.get_method().decode("ascii")
            return
        self._find_client()
        self._admission.busy(self)
        # RFC 9110 section 10.1.1: a client of HTTP/1.0 gets no 100 Continue.
        self.expect_100_continue &= self.parser.get_http_version() == "1.1"
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self._current = self.cycle
            # The request's task has not run yet: nothing has been written to the other transport.
            self.cycle.transport = cast(asyncio.Transport, ResponseTransport(self.transport, self.close))
            if self.pipeline:
                # uvicorn resumes reading with every answer, however many requests wait.
                self._reading.hold(Hold.PIPELINE)
            # A new list: the trailers of a chunked body must not become headers of the request under way.
            self.headers = []

    def on_message_complete(self) -> None:
        """uvicorn's, unless the message offers another protocol."""
        if not self.parser.should_upgrade():
            self._enter(_Phase.DONE)
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """uvicorn's. If further input was refused, the last answer ends the connection."""
        # In `_Phase.HEAD` the next request's head has come in part.
        self._came_early = bool(self.pipeline or self._unparsed) or self._phase is _Phase.HEAD
        super().on_response_complete()
        if not self.pipeline:
            self._reading.release(Hold.PIPELINE)
        if self._is_serving or self.transport.is_closing():
            return
        if self._is_over and self._end_timer is None:
            self._linger()
        elif not self._is_over:
            self._admission.idle(self)

    def _check_head(self) -> None:
        """Raises _Refused, which stops the parser, with the reason in `_refusal`."""
        if len(self.headers) > self._limits.headers:
            self._stop(HeadersTooLarge(f"There can be at most {self._limits.headers} headers."), Cause.HEAD_SIZE)
        size, hosts = len(self.url), []
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name == b"host":
                hosts.append(value)
        if size > self._limits.head_bytes:
            self._stop(HeadersTooLarge(f"The head can be at most {self._limits.head_bytes} bytes."), Cause.HEAD_SIZE)
        if self.url.count(b"&") >= self._limits.parameters:
            self._stop(UriTooLong(f"There can be at most {self._limits.parameters} parameters."), Cause.HEAD_SIZE)
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._stop(BadRequest("This is not HTTP/1.1."), Cause.BAD_REQUEST)
        if len(hosts) > 1 or (not hosts and version == "1.1") or not all(map(_HOST.fullmatch, hosts)):
            self._stop(BadRequest("A request has one Host header."), Cause.BAD_REQUEST)

    def _stop(self, refusal: QueueError, cause: Cause) -> None:
        self._refusal = refusal, cause
        raise _Refused

    def _find_client(self) -> None:
        proxies, peer = self._admission.proxies, self.client and self.client[0]
        if proxies.trusts(peer):
            self.scope["client"] = (proxies.client(peer, self.headers) or "", 0)
            self.scope["scheme"] = cast(Any, proxies.scheme(peer, self.headers) or self.scheme)

    @property
    def _is_serving(self) -> bool:
        """An answer is under way."""
        return self._serving is not None and not self._serving.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """uvicorn's, for an application that may send whole responses; remembers the request that is being answered. A
        request that came early may have to wait for its turn; meanwhile its connection counts as idle, so it may be
        ended for the sake of a new one."""
        self._serving = cycle
        app = with_whole_responses(app, cycle)
        delay = self._of_address(self._admission.pipelined_delay) if self._came_early else 0.0
        self._came_early = False
        if delay:
            self._admission.idle(self)
            self._turn = self.loop.call_later(delay, self._go_on, cycle, app)
        else:
            super()._start_asgi_task(cycle, app)

    def _go_on(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._admission.busy(self)
        super()._start_asgi_task(cycle, app)

    def _of_address(self, count: Callable[[Address], T]) -> T:
        """The result of `count` for the address of the last request's client."""
        client = self.scope["client"]
        address = self._admission.hold(client and client[0])
        try:
            return count(address)
        finally:
            self._admission.release(address)

    # Upgrades

    def _should_upgrade(self) -> bool:
        """uvicorn's, for a GET of HTTP/1.1 only: RFC 6455 section 4.1, RFC 9110 section 7.8."""
        is_get = self.parser.get_method() == b"GET" and self.parser.get_http_version() == "1.1"
        return is_get and super()._should_upgrade()

    def _upgrade(self, rest: bytes) -> None:
        """The parser has stopped after a head that offers another protocol; `rest`: the bytes after the head."""
        self._unparsed = rest + self._unparsed
        if self.scope["method"] == "CONNECT":
            self._refuse(MethodNotAllowed("CONNECT is not possible here."), Cause.BAD_REQUEST)
        elif self._should_upgrade():
            self.handle_websocket_upgrade()
        else:
            self._parse_without_offer()

    def _parse_without_offer(self) -> None:
        """Parse the head again without its offer, which a server may ignore: httptools treats every offer as accepted,
        and drops the body (uvicorn's issue 2722)."""
        headers = request_head.without_offer(self.headers)
        head = request_head.written(self.scope["method"], self.url, self.parser.get_http_version(), headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._parse_piece(head)

    def handle_websocket_upgrade(self) -> None:
        """In place of uvicorn's, which drops the bytes after the head: counts the handshake, which then waits for its
        turn and goes on in QueueSocketProtocol."""
        self._enter(_Phase.DONE)
        refusal = request_head.handshake_refusal(self.url, self.headers, line_bytes=self._limits.line_bytes)
        if refusal is not None:
            self._refuse(*refusal)
        elif self._is_serving:
            self._refuse(BadRequest("A WebSocket handshake waits for the answers before it."), Cause.HANDSHAKE)
        elif (seconds := self._too_often()) is not None:
            self._end_with(RateLimitExceeded("Too many handshakes.", retry_after_seconds=seconds))
        elif (delay := self._of_address(self._admission.handshake_delay)) is None:
            self._end_with(Unavailable("Too many handshakes at once.", retry_after_seconds=5))
        elif delay:
            self._reading.hold(Hold.HANDSHAKE)
            self._turn = self.loop.call_later(delay, self._become_websocket)
        else:
            self._become_websocket()

    def _too_often(self) -> int | None:
        """Count a handshake: None if it may go on, else after how many seconds the next may come."""
        client = self.scope["client"]
        return self._admission.request(client and client[0]) or self._of_address(self._admission.handshake)

    def _become_websocket(self) -> None:
        if self._is_over or self.transport.is_closing():
            return
        self._is_over = True
        self._drop_deadline()
        self.connections.discard(self)
        rest, self._unparsed = self._unparsed, b""
        if self._parsing is not None:
            self._parsing.cancel()
        self._reading.open()
        protocol = QueueSocketProtocol(config=self.config, server_state=self.server_state, app_state=self.app_state)
        self._admission.replace(self, protocol)
        protocol.take_over(self.transport, request_head.handshake(self.url, self.headers), rest, cast(Any, self.scope))
        self.transport.set_protocol(protocol)

    # Refusals

    def _refuse(self, refusal: QueueError, cause: Cause) -> None:
        """End the connection because of its input: with an answer, if one can be given in its turn."""
        self._admission.refuse(cause)
        current = self._current if self._phase is _Phase.BODY else None
        if current is not None and any(cycle is current for cycle, _ in self.pipeline):
            self.pipeline = type(self.pipeline)(waiting for waiting in self.pipeline if waiting[0] is not current)
            current = None
        others = self._is_serving and self._serving is not current
        if current is not None and current.response_started:
            # Its answer, or the beginning of it, has already been sent.
            if current.response_complete:
                self._linger()
            else:
                self._is_over = True
                self.transport.abort()
        elif others:
            self._is_over = True
            self._unparsed = b""
        else:
            if current is not None:
                current.disconnected = True
                current.message_event.set()
            self._end_with(refusal)

    def _end_with(self, refusal: QueueError) -> None:
        self._end_answer()
        has_begun = self._phase in (_Phase.HEAD, _Phase.BODY)
        # Until the request's URL has come, the parser still names the method of the request before.
        is_head = has_begun and bool(self.url) and self.parser.get_method() == b"HEAD"
        # Not `self.headers`, which may hold the trailers of a chunked body.
        headers = self.scope["headers"] if self.scope else ()
        if not self.transport.is_closing():
            self.transport.write(response_bytes(refusal, headers, with_body=not is_head))
        self._linger()

    def _end_answer(self) -> None:
        """Write the waiting bytes of the last answer, and nothing after them: the connection will be half-closed."""
        if self._serving is not None:
            _response_transport(self._serving).end()

    def _linger(self) -> None:
        """Half-close, and drop the peer's further bytes until it has closed."""
        self._is_over = True
        self._unparsed = b""
        # Requests that wait for the last answer get none themselves.
        self.pipeline.clear()
        if self._turn is not None:
            self._turn.cancel()
        self._drop_deadline()
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        self._end_answer()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._reading.open()
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._end_timer = self.loop.call_later(self._limits.close_seconds, self.transport.abort)


def _response_transport(cycle: RequestResponseCycle) -> ResponseTransport:
    return cast(ResponseTransport, cycle.transport)
