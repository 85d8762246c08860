"""Making a server send: a message to a peer, or a real intake to the service."""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Protocol

from app.domain.command import Role
from tests.bench.load.callers import Call, Caller, call
from tests.bench.load.requests import Intakes, post
from tests.bench.peers.catalogue import Wire
from tests.bench.servers import Server, token

ANSWER_SECONDS = 30
PING, PONG = 9, 10


class Publisher(Protocol):
    """Makes `events` events at once, for all viewers of a room, and waits until the server has accepted them."""

    def publish(self, events: int) -> None: ...

    def close(self) -> None: ...


def payload(number: int, size: int) -> str:
    """A message as long as asked for, that the viewers can check: it leads from version `number - 1` to `number`."""
    head = f'{{"type":"update","from":{number - 1},"version":{number},"filling":"'
    return head + "x" * max(0, size - len(head) - 2) + '"}'


class SocketPublisher:
    """A WebSocket whose messages go out to everyone else's; with Socket.IO they are its events."""

    def __init__(self, port: int, wire: Wire, size: int, numbers: Iterator[int] | None = None) -> None:
        """`numbers`: of the messages, one after the other; from 1 without it."""
        self._numbers = count(1) if numbers is None else numbers
        self._size = size
        self._wire = wire
        self._held = b""
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        path = "/socket.io/?EIO=4&transport=websocket" if wire is Wire.SOCKETIO else "/publish"
        self._sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._read_until(b"\r\n\r\n")
        if wire is Wire.SOCKETIO:
            self._sock.sendall(masked_frame(b"40"))
            self._read_until(b"40{")

    def _read_until(self, mark: bytes) -> None:
        data = b""
        while mark not in data:
            got = self._sock.recv(65536)
            if not got:
                raise ConnectionError("the peer closed the publisher's connection")
            data += got

    def _answer_pings(self) -> None:
        """Answer pings: servers drop clients that do not, and slow peers take longer than that time limit."""
        self._sock.setblocking(False)
        with suppress(BlockingIOError):
            self._held += self._sock.recv(65536)
        self._sock.settimeout(ANSWER_SECONDS)
        # The server sends us only small frames of housekeeping.
        while len(self._held) >= 2 and len(self._held) >= (end := 2 + (self._held[1] & 127)):
            opcode, data, self._held = self._held[0] & 15, self._held[2:end], self._held[end:]
            if opcode == PING:
                self._sock.sendall(bytes((0x80 | PONG, 0x80 | len(data))) + bytes(4) + data)
            elif data == b"2":
                self._sock.sendall(masked_frame(b"3"))

    def publish(self, events: int) -> None:
        self._answer_pings()
        messages = [payload(next(self._numbers), self._size) for _ in range(events)]
        if self._wire is Wire.SOCKETIO:
            messages = [f'42["publish",{message}]' for message in messages]
        self._sock.sendall(b"".join(masked_frame(message.encode()) for message in messages))

    def close(self) -> None:
        self._sock.close()


def masked_frame(data: bytes) -> bytes:
    """A client's text frame. The key is 0, as every key is allowed to be: the payload stays legible."""
    if len(data) < 126:
        return bytes((0x81, 0x80 | len(data))) + bytes(4) + data
    return b"\x81\xfe" + struct.pack(">H", len(data)) + bytes(4) + data


class PostPublisher:
    """HTTP requests on a connection each: to Nchan's publishing location, or any other path."""

    def __init__(self, port: int, size: int) -> None:
        self._port = port
        self._numbers = count(1)
        self._size = size
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def publish(self, events: int) -> None:
        requests = [
            post("/publish", payload(next(self._numbers), self._size).encode(), accept="text/json")
            for _ in range(events)
        ]
        self._sock.sendall(b"".join(requests))
        answered = 0
        while answered < events:
            answered += self._sock.recv(65536).count(b"HTTP/1.1 20")

    def close(self) -> None:
        self._sock.close()


class IntakePublisher:
    """Events in a room of the service by real intakes, each on a connection of its own."""

    def __init__(self, server: Server, rooms: int = 1, *, prefix: str = "room", connections: int = 8) -> None:
        self._port = server.port
        self._intakes = Intakes(rooms, prefix=prefix)
        self._connections = connections
        self._socks: list[socket.socket] = []

    def _sock(self, number: int) -> socket.socket:
        """Opened when it is first needed: the service closes a connection on which no request comes."""
        while number >= len(self._socks):
            sock = socket.create_connection(("127.0.0.1", self._port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(ANSWER_SECONDS)
            self._socks.append(sock)
        return self._socks[number]

    def publish(self, events: int) -> None:
        asked = [self._sock(number % self._connections) for number in range(events)]
        for sock in asked:
            sock.sendall(self._intakes.next().request)
        for sock in dict.fromkeys(asked):
            expected = asked.count(sock)
            data = b""
            while (got := data.count(b"HTTP/1.1 201")) < expected:
                came = sock.recv(65536)
                data += came
                if not came:
                    raise ConnectionError(f"the service closed a connection after {got} intakes")
                if data.count(b"HTTP/1.1 ") > data.count(b"HTTP/1.1 201"):
                    raise ConnectionError(f"intake refused after {got}: {data[:12]!r}")

    def close(self) -> None:
        for sock in self._socks:
            sock.close()


class SettingsPublisher:
    """Events in a room by changes of its announcement, which leave nothing behind in the queue."""

    def __init__(self, server: Server, room: str, *, connections: int = 8) -> None:
        self._port = server.port
        self._path = f"/v1/performers/{room}/queue"
        self._bearer = token(Role.PERFORMER, room)
        self._numbers = count()
        self._connections = connections

    def publish(self, events: int) -> None:
        def changes(how_many: int) -> Caller:
            for _ in range(how_many):
                body = json.dumps({"announcement": f"Song {next(self._numbers)} is on"}).encode()
                request = post(self._path, body, bearer=self._bearer).replace(b"POST", b"PATCH", 1)
                yield Call("settings", request)

        share, rest = divmod(events, self._connections)
        callers = [changes(share + (number < rest)) for number in range(min(self._connections, events))]
        tally = call(self._port, callers)
        if tally.failures:
            raise ConnectionError(f"settings refused: {dict(tally.statuses)}")

    def close(self) -> None:
        pass
