"""The viewers of `viewers.c` where no compiler is at hand: the same commands, answers and checks, at a fraction of the
speed. Run as a program; imports nothing of the project, so that it may run anywhere."""

import errno
import json
import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

LOOKED_AT = 160
A_SOURCE = 20_000
BUFFER = 1 << 20
CLOSE, PING, PONG = 8, 9, 10
RSV1 = 64
OFFER = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
GONE_AT_ONCE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Viewer:
    sock: socket.socket
    room: int
    state: str = "connecting"
    version: int = 0
    deliveries: int = 0
    held: bytes = b""


@dataclass(slots=True)
class Counts:
    deliveries: int = 0
    frames: int = 0
    bytes: int = 0
    gaps: int = 0
    repeats: int = 0
    snapshots: int = 0
    closed: int = 0


@dataclass(slots=True, kw_only=True)
class Dialling:
    """A `connect` that is under way."""

    host: str
    port: int
    count: int
    per_room: int
    window: int
    receive_buffer: int
    path: str
    began: float = field(default_factory=time.monotonic)
    dialled: int = 0
    unfinished: int = 0
    failed: int = 0


class Crowd:
    def __init__(self, flavour: str) -> None:
        self._flavour = flavour
        self._viewers: dict[int, Viewer] = {}
        self._counts = Counts()
        self._poller = select.epoll()
        self._buffer = bytearray(BUFFER)
        self._dialling: Dialling | None = None
        self._wanted = 0
        self._deadline: float | None = None
        self._last_ns = 0
        self._commands = b""

    def run(self) -> None:
        self._poller.register(0, select.EPOLLIN)
        while True:
            self._settle()
            commanded = False
            before = self._counts.deliveries
            for fd, events in self._poller.poll(-1 if self._deadline is None else 0.005, 128):
                if fd == 0:
                    commanded = True
                elif (viewer := self._viewers.get(fd)) is not None:
                    self._serve(viewer, events)
            if self._counts.deliveries != before:
                self._last_ns = time.monotonic_ns()
            if commanded and not self._listen():
                return

    # Commands

    def _listen(self) -> bool:
        text = os.read(0, 4096)
        *lines, self._commands = (self._commands + text).split(b"\n")
        for line in lines:
            self._obey(line.decode().split())
        return bool(text)

    def _obey(self, words: list[str]) -> None:
        match words:
            case ["connect", host, port, count, per_room, window, receive_buffer, path]:
                self._dialling = Dialling(
                    host=host,
                    port=int(port),
                    count=int(count),
                    per_room=int(per_room),
                    window=int(window),
                    receive_buffer=int(receive_buffer),
                    path=path,
                )
            case ["wait", total, milliseconds]:
                self._wanted = int(total)
                self._deadline = time.monotonic() + int(milliseconds) / 1000
            case ["report"]:
                self._report()
            case ["reset"]:
                self._counts = Counts()
                for viewer in self._viewers.values():
                    viewer.deliveries = 0
                print("ok", flush=True)
            case ["pause" | "resume" as word]:
                for fd in self._viewers:
                    self._poller.modify(fd, select.EPOLLIN if word == "resume" else 0)
                print("ok", flush=True)
            case ["close"]:
                for viewer in self._viewers.values():
                    viewer.sock.close()
                self._viewers.clear()
                print("ok", flush=True)
            case _:
                print("what?", flush=True)

    def _settle(self) -> None:
        dialling = self._dialling
        if dialling is not None:
            while dialling.dialled < dialling.count and dialling.unfinished < dialling.window:
                self._dial(dialling)
            if dialling.dialled == dialling.count and not dialling.unfinished:
                self._dialling = None
                seconds = time.monotonic() - dialling.began
                print(f"connected {len(self._viewers)} {dialling.failed} {seconds:.6f}", flush=True)
        if self._deadline is not None:
            reached = self._counts.deliveries >= self._wanted
            if reached or time.monotonic() > self._deadline:
                self._deadline = None
                word = "reached" if reached else "late"
                print(word, self._counts.deliveries, self._last_ns, flush=True)

    def _report(self) -> None:
        deliveries = [viewer.deliveries for viewer in self._viewers.values()]
        versions = [viewer.version for viewer in self._viewers.values()]
        counts = self._counts
        print(
            json.dumps(
                {
                    "open": len(self._viewers),
                    "deliveries": counts.deliveries,
                    "frames": counts.frames,
                    "bytes": counts.bytes,
                    "gaps": counts.gaps,
                    "repeats": counts.repeats,
                    "snapshots": counts.snapshots,
                    "closed": counts.closed,
                    "least": min(deliveries, default=0),
                    "most": max(deliveries, default=0),
                    "oldest": min(versions, default=-1),
                    "newest": max(versions, default=-1),
                    "cpu": time.process_time(),
                }
            ),
            flush=True,
        )

    # Connections

    def _dial(self, dialling: Dialling) -> None:
        number = dialling.dialled
        dialling.dialled += 1
        dialling.unfinished += 1
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, GONE_AT_ONCE)
        if dialling.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, dialling.receive_buffer)
        sock.bind((f"127.0.0.{1 + number // A_SOURCE}", 0))
        viewer = Viewer(sock, number // dialling.per_room)
        self._viewers[sock.fileno()] = viewer
        self._poller.register(sock.fileno(), select.EPOLLOUT)
        if sock.connect_ex((dialling.host, dialling.port)) not in (0, errno.EINPROGRESS):
            self._leave(viewer)

    def _leave(self, viewer: Viewer) -> None:
        if self._viewers.pop(viewer.sock.fileno(), None) is None:
            return
        viewer.sock.close()
        if viewer.state == "ready":
            self._counts.closed += 1
        elif self._dialling is not None:
            self._dialling.unfinished -= 1
            self._dialling.failed += 1

    def _ready(self, viewer: Viewer) -> None:
        viewer.state = "ready"
        if self._dialling is not None:
            self._dialling.unfinished -= 1

    def _serve(self, viewer: Viewer, events: int) -> None:
        if viewer.state == "connecting":
            if viewer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._leave(viewer)
            elif events & select.EPOLLOUT:
                self._request(viewer)
            return
        try:
            size = viewer.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size == 0:
            self._leave(viewer)
            return
        self._counts.bytes += size
        data = viewer.held + self._buffer[:size]
        viewer.held = b""
        if viewer.state == "upgrading":
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                viewer.held = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._leave(viewer)
                return
            viewer.state = "joining"
            if self._flavour == "plain":
                self._ready(viewer)
            elif self._flavour == "centrifuge":
                self._tell(viewer, 1, b'{"id":1}')
        self._feed(viewer, data)

    def _request(self, viewer: Viewer) -> None:
        assert self._dialling is not None
        target = self._dialling.path.replace("%d", str(viewer.room))
        viewer.state = "upgrading"
        viewer.sock.send(
            f"GET {target} HTTP/1.1\r\nHost: {self._dialling.host}:{self._dialling.port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Version: 13\r\n{OFFER if self._flavour == 'deflated' else ''}\r\n".encode()
        )
        self._poller.modify(viewer.sock.fileno(), select.EPOLLIN)

    # Frames

    def _feed(self, viewer: Viewer, data: bytes | bytearray) -> None:
        at = 0
        while len(data) - at >= 2:
            size, start = data[at + 1] & 127, at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if start + size > len(data):
                break
            if data[at] & RSV1:
                self._count_compressed(viewer)
            else:
                self._look(viewer, data[at] & 15, bytes(data[start : start + min(size, LOOKED_AT)]))
            at = start + size
        viewer.held = bytes(data[at:])

    def _look(self, viewer: Viewer, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._leave(viewer)
        elif opcode == PING:
            self._tell(viewer, PONG, payload[:125])
        elif opcode != PONG:
            self._counts.frames += 1
            if self._flavour == "socketio" and self._is_hello(viewer, payload):
                return
            if self._flavour == "centrifuge" and viewer.state == "joining":
                # The answer to our connect.
                if b'"id":1' in payload[:LOOKED_AT]:
                    self._ready(viewer)
                return
            self._count(viewer, payload)

    def _is_hello(self, viewer: Viewer, payload: bytes) -> bool:
        """Socket.IO's own frames: open, ping, and the answer to our `40`."""
        if payload[:1] == b"0":
            self._tell(viewer, 1, b"40")
        elif payload[:1] == b"2":
            self._tell(viewer, 1, b"3")
        elif payload[:2] == b"40":
            self._ready(viewer)
        else:
            return False
        return True

    def _count_compressed(self, viewer: Viewer) -> None:
        """Count frames without inflating them: the first one is the snapshot, each other one a delivery."""
        self._counts.frames += 1
        if viewer.state == "joining":
            self._counts.snapshots += 1
            self._ready(viewer)
        else:
            viewer.version += 1
            viewer.deliveries += 1
            self._counts.deliveries += 1

    def _count(self, viewer: Viewer, payload: bytes) -> None:
        before, after = _number_after(payload, b'"from":'), _number_after(payload, b'"version":')
        counts = self._counts
        if self._flavour == "centrifuge" and after is not None:
            # Messages that are due together come in one frame: a newline with something behind it begins another.
            after += payload.rstrip(b"\n").count(b"\n")
        if before is None and after is not None and b'"snapshot"' in payload:
            counts.snapshots += 1
            viewer.version = after
            if viewer.state == "joining":
                self._ready(viewer)
        elif before is not None and after is not None:
            if after <= viewer.version:
                counts.repeats += 1
                return
            counts.gaps += before != viewer.version
            counts.deliveries += after - before
            viewer.deliveries += after - before
            viewer.version = after

    def _tell(self, viewer: Viewer, opcode: int, payload: bytes) -> None:
        viewer.sock.send(bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload)


def _number_after(payload: bytes, name: bytes) -> int | None:
    at = payload.find(name)
    if at < 0:
        return None
    digits = payload[at + len(name) : at + len(name) + 20]
    end = next((place for place, byte in enumerate(digits) if not 48 <= byte <= 57), len(digits))
    return int(digits[:end] or b"0")


if __name__ == "__main__":
    Crowd(sys.argv[1] if len(sys.argv) > 1 else "plain").run()
