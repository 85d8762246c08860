"""One live socket: a task that reads a client's frames and answers them, from its welcome to its close code.

What the room sends goes out through its `WatchedRoom`, to which the connection reports its own changes.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from app.access import rights
from app.access.auth import Authenticator, Principal
from app.actions import Actions
from app.domain.errors import Internal, InvalidRequest, QueueError, Unauthorized
from app.live.frame_reader import CloseConnection, Disconnected, FrameReader
from app.live.hub import Hub
from app.live.identity import Identity
from app.live.presence import Presence
from app.live.subscriber import Subscriber
from app.live.watched_room import WatchedRoom
from app.server.websocket_protocol import QueueSocketProtocol
from app.tracing import Kind, Tracer, traceparent_of, within
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
from app.wire.shapes import room_shape, whole_item
from app.wire.websocket import CloseCode, text_frame

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketContext:
    """The parts that all live sockets of this process share."""

    hub: Hub
    actions: Actions
    authenticator: Authenticator
    presence: Presence
    clock: Callable[[], datetime]
    """The clock of the rooms."""
    token_clock: Callable[[], datetime]
    """The clock by which tokens expire."""
    public_rooms: bool
    connected: Counter[str]
    """Sockets by principal, and under "" all of them."""
    capacity: int
    """Sockets that this process takes; further ones are closed as OVERLOADED."""
    sockets_per_principal: int
    auth_seconds: float
    """How long a private room waits for `auth`."""
    closes: Counter[int]
    """The number of ended sockets, by close code."""
    tracer: Tracer | None = None
    connections: set["LiveConnection"] = field(default_factory=set)
    """The open connections."""


class LiveConnection:
    """The socket of one client in one room."""

    def __init__(
        self, shared: SocketContext, websocket: WebSocket, connection: QueueSocketProtocol, performer_id: str
    ) -> None:
        self._shared = shared
        self._websocket = websocket
        self._connection = connection
        self._performer_id = performer_id
        self._identity = Identity(
            shared.authenticator,
            shared.token_clock,
            shared.connected,
            self.close_soon,
            most_sockets=shared.sockets_per_principal,
        )
        self._room: WatchedRoom | None = None
        self._subscriber: Subscriber | None = None
        self._is_present = False
        """Whether `presence` counts this one as a panel of its performer."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader = FrameReader(websocket)
        connection.on_change = self._connection_changed

    async def run(self) -> None:
        """Serve the connection until either side ends it."""
        connected, closes = self._shared.connected, self._shared.closes
        connected[""] += 1
        self._shared.connections.add(self)
        try:
            if connected[""] > self._shared.capacity:
                raise CloseConnection(CloseCode.OVERLOADED, "overloaded")
            await self._begin()
            while True:
                await self._handle(await self._reader.next())
        except CloseConnection as end:
            closes[end.code] += 1
            await self._close(end.code, end.reason)
        except Disconnected as end:
            closes[end.code] += 1
        except Exception:
            # The outermost boundary, as for a request: the client may come back, and the log gets the traceback.
            log.exception("a live socket failed")
            closes[CloseCode.OVERLOADED] += 1
            await self._close(CloseCode.OVERLOADED, "something went wrong here")
        finally:
            self._shared.connections.discard(self)
            self._leave_room()
            self._identity.release()
            await self._report_presence()
            connected[""] -= 1

    # Beginning

    async def _begin(self) -> None:
        token = _bearer(self._websocket)
        if token is not None:
            await self._identity.authenticate(token)
        elif not self._shared.public_rooms:
            await self._wait_for_auth()
            return
        await self._enter(since=self._resume_point())

    async def _wait_for_auth(self) -> None:
        """Wait for `auth` in a private room, in which nothing is sent before it."""
        try:
            async with asyncio.timeout(self._shared.auth_seconds):
                value = await self._reader.next()
        except TimeoutError:
            raise CloseConnection(CloseCode.BAD_TOKEN, "auth did not come in time") from None
        try:
            match read_frame(value):
                case AuthFrame() as frame:
                    await self._auth(frame, since=self._resume_point())
                case _:
                    raise CloseConnection(CloseCode.BAD_TOKEN, "auth must come first")
        except UnknownFrame:
            raise CloseConnection(CloseCode.BAD_FRAME, "not a frame of this protocol") from None
        except InvalidRequest:
            raise CloseConnection(CloseCode.BAD_TOKEN, "auth must come first, with a token") from None

    async def _auth(self, frame: AuthFrame, *, since: int | None = None) -> None:
        await self._identity.authenticate(frame.token)
        self._leave_room()
        await self._enter(since=since)

    async def _enter(self, *, since: int | None) -> None:
        """Send the welcome for the present identity, and join the room."""
        identity, hub = self._identity, self._shared.hub
        self._write(frames.welcome(identity.role, identity.sub, hub.epoch, identity.expires_at))
        subscriber = Subscriber(
            connection=self._connection,
            close=self.close_soon,
            role=identity.role,
            sub=identity.sub,
            view=rights.view_of(identity.principal, self._performer_id),
        )
        self._room = await hub.join(self._performer_id, subscriber, since=since)
        self._subscriber = subscriber
        await self._report_presence()

    def _resume_point(self) -> int | None:
        """The version that the client resumes from; None if it names none, or one of another epoch."""
        query = self._websocket.query_params
        if query.get("epoch") != self._shared.hub.epoch:
            return None
        since = query.get("since", "")
        return int(since) if since.isascii() and since.isdigit() and len(since) < 16 else None

    # Room and presence

    def _leave_room(self) -> None:
        if self._room is not None and self._subscriber is not None:
            self._shared.hub.leave(self._room, self._subscriber)
            self._room = self._subscriber = None

    async def _report_presence(self) -> None:
        """Report the performer's panel as come or gone. A refreshed token is neither."""
        is_performer = self._identity.is_performer(self._performer_id)
        if self._is_present is is_performer:
            return
        self._is_present = is_performer
        presence = self._shared.presence
        if is_performer:
            await presence.arrived(self._performer_id)
        elif self._identity.has_expired:
            presence.expired(self._performer_id)
        else:
            await presence.left(self._performer_id)

    def _connection_changed(self) -> None:
        if self._room is not None and self._subscriber is not None:
            self._room.connection_changed(self._subscriber)

    # Frames

    async def _handle(self, value: Any) -> None:
        """Carry out a frame, and answer a refusal. Raises CloseConnection for a value that is no frame."""
        try:
            principal = self._identity.principal
            # As over HTTP: the caller's identity is checked before the command is validated.
            if principal is None and is_command(value):
                raise Unauthorized("Say who you are first (auth).")
            match read_frame(value):
                case AuthFrame() as frame:
                    await self._auth(frame)
                case PingFrame():
                    self._write(frames.pong(self._shared.clock()))
                case ResyncFrame():
                    if self._room is not None and self._subscriber is not None:
                        self._room.show(self._subscriber)
                case CommandFrame() as command if principal is not None:
                    if self._shared.tracer is None:
                        await self._command(principal, command)
                    else:
                        await self._command_traced(self._shared.tracer, principal, command)
        except UnknownFrame:
            raise CloseConnection(CloseCode.BAD_FRAME, "not a frame of this protocol") from None
        except QueueError as refusal:
            item = await self._shared.actions.item_of(self._identity.principal, refusal)
            self._write(frames.error(_id_of(value), refusal, item))

    async def _command_traced(self, tracer: Tracer, principal: Principal, command: CommandFrame) -> None:
        """Carry out a command in a trace of its own, linked to the one in which the client opened its connection."""
        opened_in = traceparent_of(self._websocket.headers.raw)
        span = tracer.begin(
            f"frame {command.type}",
            kind=Kind.SERVER,
            links=[] if opened_in is None else [opened_in],
            queue__performer_id=self._performer_id,
            queue__item_id=command.item_id if isinstance(command, ItemCommandFrame) else None,
        )
        problem: str | None = Internal.code
        try:
            with within(span.traceparent):
                await self._command(principal, command)
            problem = None
        except QueueError as refusal:
            problem = refusal.code
            raise
        finally:
            span.end(problem=problem)

    async def _command(self, principal: Principal, command: CommandFrame) -> None:
        target = command.item_id if isinstance(command, ItemCommandFrame) else self._performer_id
        outcome = await self._shared.actions.command(principal, command.type, target, command, command.id)
        if outcome.item is None:
            self._write(frames.ack(command.id, None, room_shape(outcome.room, self._shared.hub.epoch)))
        else:
            self._write(frames.ack(command.id, whole_item(outcome.item, outcome.position)))

    def _write(self, payload: bytes) -> None:
        if self._connection.is_open:
            self._connection.write(text_frame(payload))

    # The end

    async def _close(self, code: int, reason: str) -> None:
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        if self._connection.is_lagging:
            self._connection.cut_off(code, reason)
            return
        try:
            await self._websocket.close(code, reason)
        except (RuntimeError, OSError, WebSocketDisconnect):
            # The client has closed first.
            return

    def belongs_to(self, sub: str | None, performer_id: str | None) -> bool:
        """Whether its caller is `sub`, or its room the performer's."""
        is_theirs = sub is not None and self._identity.sub == sub
        return is_theirs or self._performer_id == performer_id

    def close_soon(self, code: int, reason: str) -> None:
        """Close with a code, in a task of its own."""
        task = asyncio.create_task(self._close(code, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _bearer(websocket: WebSocket) -> str | None:
    """The token of the handshake, from its Authorization header or from a subprotocol that it offers."""
    scheme, _, token = websocket.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    for offered in websocket.scope["subprotocols"]:
        if offered.startswith(frames.BEARER_PROTOCOL):
            return str(offered).removeprefix(frames.BEARER_PROTOCOL)
    return None


def _id_of(value: Any) -> str | None:
    command_id = value.get("id") if isinstance(value, dict) else None
    return command_id if isinstance(command_id, str) else None
