"""The live socket: one task a connection that reads a client's frames and answers them.

What the room sends goes out through the `hub`; this module owns the connection's beginning (origin, limits, tokens),
its commands, and its end with a close code that tells the client whether to come back.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from app.access import rights
from app.access.auth import Authenticator, Principal
from app.access.origins import Origins
from app.actions import Actions
from app.domain.command import Role
from app.domain.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    PerformerNotFound,
    QueueError,
    TokenExpired,
    Unauthorized,
)
from app.live.asgi_line import AsgiLine
from app.live.client_frames import Closing, Gone, Inbox
from app.live.hub import Hub
from app.live.presence import Presence
from app.live.subscriber import Subscriber
from app.server.problems import REQUEST_ID, problem_response, request_id_of
from app.server.websocket_protocol import EXTENSION, QueueSocketProtocol
from app.wire import frames
from app.wire.client_frames import (
    AuthFrame,
    CommandFrame,
    ItemCommandFrame,
    PingFrame,
    ResyncFrame,
    UnknownFrame,
    is_command,
    read_frame,
)
from app.wire.requests import is_identifier
from app.wire.shapes import room_shape, whole_item
from app.wire.websocket import CloseCode, text_frame

AUTH_SECONDS = 5.0
"""How long a private room waits for `auth`."""
SOCKETS_A_PRINCIPAL = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """What every live socket of this process shares."""

    hub: Hub
    actions: Actions
    authenticator: Authenticator
    presence: Presence
    clock: Callable[[], Any]
    public_rooms: bool
    origins: Origins
    connected: Counter[str]
    """Sockets by principal, and under "" all of them."""
    capacity: int
    """Sockets that this process takes; whoever comes after is told to try another."""
    closes: Counter[int]
    """Ended sockets, by the code each was closed with."""
    connections: set["_Connection"] = field(default_factory=set)
    """The open ones."""

    def disconnect(self, sub: str | None, performer_id: str | None) -> int:
        """Close the sockets of a `sub`, or all in a performer's room, for good; returns how many."""
        found = [each for each in self.connections if each.belongs_to(sub, performer_id)]
        for connection in found:
            connection.close_soon(CloseCode.FORBIDDEN, "disconnected by an administrator")
        return len(found)

    async def live(self, websocket: WebSocket) -> None:
        """The endpoint of `/v1/performers/{performerId}/queue/live`."""
        performer_id = websocket.path_params["performerId"]
        await websocket.receive()
        if not self.origins.allows(websocket.headers.get("origin"), websocket.headers.get("host")):
            await _refuse(websocket, Forbidden("This origin is not allowed."))
            return
        if not is_identifier(performer_id):
            await _refuse(websocket, PerformerNotFound("There is no such performer."))
            return
        offered = frames.SUBPROTOCOL in websocket.scope["subprotocols"]
        request_id = (REQUEST_ID.lower().encode(), request_id_of(websocket.headers.raw).encode())
        await websocket.accept(frames.SUBPROTOCOL if offered else None, headers=[request_id])
        await _Connection(self, websocket, performer_id).run()


async def not_found(websocket: WebSocket) -> None:
    """The endpoint of every path that has none."""
    await websocket.receive()
    await _refuse(websocket, NotFound(f"There is no live socket at {websocket.url.path}."))


async def _refuse(websocket: WebSocket, refusal: QueueError) -> None:
    """Answer the handshake over HTTP, as a browser's script will never see but its console does."""
    response = problem_response(refusal)
    response.headers[REQUEST_ID] = request_id_of(websocket.headers.raw)
    await websocket.send_denial_response(response)


class _Connection:
    def __init__(self, shared: Sockets, websocket: WebSocket, performer_id: str) -> None:
        self._shared = shared
        self._websocket = websocket
        self._performer_id = performer_id
        self._principal: Principal | None = None
        self._subscriber: Subscriber | None = None
        self._present = False
        self._expiry: asyncio.TimerHandle | None = None
        self._has_expired = False
        """Whether the connection ends because its token has run out."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._inbox = Inbox(websocket)
        exposed: QueueSocketProtocol | None = websocket.scope["extensions"].get(EXTENSION)
        self._line = exposed or AsgiLine(websocket)
        self._line.on_change = self._line_changed

    async def run(self) -> None:
        connected = self._shared.connected
        connected[""] += 1
        self._shared.connections.add(self)
        try:
            if connected[""] > self._shared.capacity:
                raise Closing(CloseCode.OVERLOADED, "overloaded")
            await self._begin()
            while True:
                await self._handle(await self._inbox.next())
        except Closing as closing:
            self._shared.closes[closing.code] += 1
            await self._close(closing.code, closing.reason)
        except Gone as gone:
            self._shared.closes[gone.code] += 1
        except asyncio.CancelledError:
            code = self._line.cut_off_with if isinstance(self._line, AsgiLine) else None
            if code is None:
                raise
            self._shared.closes[code] += 1
        except Exception:
            # The boundary, as for a request: whatever it was, the client is to come back and we keep the trace.
            log.exception("a live socket failed")
            self._shared.closes[CloseCode.OVERLOADED] += 1
            await self._close(CloseCode.OVERLOADED, "something went wrong here")
        finally:
            self._shared.connections.discard(self)
            await self._end()
            connected[""] -= 1

    # Beginning and end

    async def _begin(self) -> None:
        token = _bearer(self._websocket)
        if token is not None:
            await self._authenticate(token)
        if self._principal is None and not self._shared.public_rooms:
            await self._wait_for_auth()
            return
        self._welcome()
        await self._join(since=self._resume_point())

    async def _wait_for_auth(self) -> None:
        """A private room: silence until the client has said who it is."""
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                value = await self._inbox.next()
        except TimeoutError:
            raise Closing(CloseCode.BAD_TOKEN, "auth did not come in time") from None
        try:
            match read_frame(value):
                case AuthFrame() as frame:
                    await self._auth(frame, since=self._resume_point())
                case _:
                    raise Closing(CloseCode.BAD_TOKEN, "auth must come first")
        except UnknownFrame:
            raise Closing(CloseCode.BAD_FRAME, "not a frame of this protocol") from None
        except InvalidRequest:
            raise Closing(CloseCode.BAD_TOKEN, "auth must come first, with a token") from None

    async def _end(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        if isinstance(self._line, AsgiLine):
            self._line.stop()
        await self._leave()

    async def _close(self, code: int, reason: str) -> None:
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        if self._line.is_lagging:
            self._line.cut_off(code, reason)
            return
        try:
            if isinstance(self._line, AsgiLine):
                await self._line.flushed()
            await self._websocket.close(code, reason)
        except (RuntimeError, OSError, WebSocketDisconnect):
            # The other side was faster; there is nobody left to tell.
            return

    def belongs_to(self, sub: str | None, performer_id: str | None) -> bool:
        """Whether its caller is `sub`, or its room the performer's."""
        is_theirs = sub is not None and self._principal is not None and self._principal.sub == sub
        return is_theirs or self._performer_id == performer_id

    def close_soon(self, code: int, reason: str) -> None:
        self._spawn(self._close(code, reason))

    def _spawn(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Who it is

    async def _authenticate(self, token: str) -> None:
        try:
            principal = await self._shared.authenticator.principal(token)
        except TokenExpired:
            raise Closing(CloseCode.TOKEN_EXPIRED, "token expired") from None
        except Unauthorized:
            raise Closing(CloseCode.BAD_TOKEN, "bad token") from None
        except QueueError:
            raise Closing(CloseCode.OVERLOADED, "tokens cannot be checked right now") from None
        self._count(principal)
        self._principal = principal
        if self._expiry is not None:
            self._expiry.cancel()
        remaining = (principal.expires_at - self._shared.clock()).total_seconds()
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(max(0.0, remaining), self._expire)

    def _expire(self) -> None:
        self._has_expired = True
        self.close_soon(CloseCode.TOKEN_EXPIRED, "token expired")

    def _count(self, principal: Principal) -> None:
        connected = self._shared.connected
        self._uncount()
        name = _name(principal)
        connected[name] += 1
        if connected[name] > SOCKETS_A_PRINCIPAL:
            self._principal = principal  # so that the end gives the place back
            raise Closing(CloseCode.TOO_MANY_CONNECTIONS, "too many connections")

    def _uncount(self) -> None:
        if self._principal is None:
            return
        connected = self._shared.connected
        name = _name(self._principal)
        connected[name] -= 1
        if not connected[name]:
            del connected[name]
        self._principal = None

    async def _auth(self, frame: AuthFrame, *, since: int | None = None) -> None:
        await self._authenticate(frame.token)
        self._leave_room()
        self._welcome()
        await self._join(since=since)

    def _welcome(self) -> None:
        principal = self._principal
        role = principal.role if principal else Role.VIEWER
        sub = principal.sub if principal else None
        expires_at = principal.expires_at if principal else None
        self._write(frames.welcome(role, sub, self._shared.hub.epoch, expires_at))

    async def _join(self, *, since: int | None) -> None:
        principal = self._principal
        self._subscriber = Subscriber(
            line=self._line,
            close=self.close_soon,
            role=principal.role if principal else Role.VIEWER,
            sub=principal.sub if principal else None,
            view=rights.view_of(principal, self._performer_id),
        )
        await self._shared.hub.join(self._performer_id, self._subscriber, since=since)
        await self._attend()

    async def _leave(self) -> None:
        self._leave_room()
        self._uncount()
        await self._attend()

    def _leave_room(self) -> None:
        if self._subscriber is not None:
            self._shared.hub.leave(self._performer_id, self._subscriber)
            self._subscriber = None

    async def _attend(self) -> None:
        """Report the performer's panel as come or gone. A refreshed token is neither."""
        if self._present is self._is_performer:
            return
        self._present = self._is_performer
        presence = self._shared.presence
        if self._present:
            await presence.arrived(self._performer_id)
        elif self._has_expired:
            presence.expired(self._performer_id)
        else:
            await presence.left(self._performer_id)

    @property
    def _is_performer(self) -> bool:
        principal = self._principal
        return principal is not None and principal.role is Role.PERFORMER and principal.sub == self._performer_id

    def _resume_point(self) -> int | None:
        """The version the client says it has, if it is of this history."""
        query = self._websocket.query_params
        if query.get("epoch") != self._shared.hub.epoch:
            return None
        since = query.get("since", "")
        return int(since) if since.isascii() and since.isdigit() and len(since) < 16 else None

    # Frames

    async def _handle(self, value: Any) -> None:
        """Do what a frame asks for. Raises Closing for what is no frame of the protocol; answers a refusal."""
        try:
            principal = self._principal
            # As over HTTP: the caller's identity is asked for before the command is read.
            if principal is None and is_command(value):
                raise Unauthorized("Say who you are first (auth).")
            match read_frame(value):
                case AuthFrame() as frame:
                    await self._auth(frame)
                case PingFrame():
                    self._write(frames.pong(self._shared.clock()))
                case ResyncFrame():
                    if self._subscriber is not None:
                        self._shared.hub.show(self._performer_id, self._subscriber)
                case CommandFrame() as command if principal is not None:
                    await self._command(principal, command)
        except UnknownFrame:
            raise Closing(CloseCode.BAD_FRAME, "not a frame of this protocol") from None
        except QueueError as refusal:
            item = await self._shared.actions.item_of(self._principal, refusal)
            self._write(frames.error(_id_of(value), refusal, item))

    async def _command(self, principal: Principal, command: CommandFrame) -> None:
        target = command.item_id if isinstance(command, ItemCommandFrame) else self._performer_id
        outcome = await self._shared.actions.command(principal, command.type, target, command, command.id)
        if outcome.item is None:
            self._write(frames.ack(command.id, None, room_shape(outcome.room, self._shared.hub.epoch)))
        else:
            self._write(frames.ack(command.id, whole_item(outcome.item, outcome.position)))

    def _write(self, payload: bytes) -> None:
        if self._line.is_open:
            self._line.write(text_frame(payload))

    def _line_changed(self) -> None:
        if self._subscriber is not None:
            self._shared.hub.line_changed(self._performer_id, self._subscriber)


def _bearer(websocket: WebSocket) -> str | None:
    scheme, _, token = websocket.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _name(principal: Principal) -> str:
    return f"{principal.role}:{principal.sub}"


def _id_of(value: Any) -> str | None:
    command_id = value.get("id") if isinstance(value, dict) else None
    return command_id if isinstance(command_id, str) else None
