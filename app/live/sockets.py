"""The endpoint of live sockets: accepts or refuses a handshake, and runs a LiveConnection on it.

Live sockets need the connection that our own WebSocket protocol exposes: another ASGI server is not supported.
"""

from dataclasses import dataclass

from starlette.websockets import WebSocket

from app.access.origins import Origins
from app.domain.errors import Forbidden, NotFound, PerformerNotFound, QueueError, Unavailable
from app.live.live_connection import LiveConnection, SocketContext
from app.server.problems import REQUEST_ID, REQUEST_ID_HEADER, problem_response, request_id_of
from app.server.websocket_protocol import CONNECTION_EXTENSION
from app.wire import frames
from app.wire.requests import is_identifier
from app.wire.websocket import CloseCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets(SocketContext):
    """All live sockets of this process."""

    origins: Origins

    def disconnect(self, sub: str | None, performer_id: str | None) -> int:
        """Close the sockets of a `sub`, or all in a performer's room, as FORBIDDEN; returns how many."""
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
        connection = websocket.scope["extensions"].get(CONNECTION_EXTENSION)
        if connection is None:
            await _refuse(websocket, Unavailable("Live sockets are served by the service's own server only."))
            return
        offered = frames.SUBPROTOCOL in websocket.scope["subprotocols"]
        request_id = (REQUEST_ID_HEADER, request_id_of(websocket.headers.raw).encode())
        await websocket.accept(frames.SUBPROTOCOL if offered else None, headers=[request_id])
        await LiveConnection(self, websocket, connection, performer_id).run()


async def not_found(websocket: WebSocket) -> None:
    """The endpoint of every path that has no live socket."""
    await websocket.receive()
    await _refuse(websocket, NotFound(f"There is no live socket at {websocket.url.path}."))


async def _refuse(websocket: WebSocket, refusal: QueueError) -> None:
    """Refuse the handshake with an HTTP error, which a browser shows in its console but not to its scripts."""
    response = problem_response(refusal)
    response.headers[REQUEST_ID] = request_id_of(websocket.headers.raw)
    await websocket.send_denial_response(response)
