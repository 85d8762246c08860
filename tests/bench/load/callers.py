"""HTTP callers: each one connection with one request in flight, all in one loop over raw sockets.

A caller is a generator that yields its next request and is sent the answer to it, so that a caller may use what it was
told (an item's id) in what it asks next. With a rate, requests have due times and a latency counts from the due time:
a server that stalls is charged for everyone who had to wait.
"""

import select
import socket
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

BUFFER = 1 << 18
LONGEST_SILENCE = 30.0


@dataclass(frozen=True, slots=True)
class Call:
    kind: str
    request: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


Caller = Generator[Call, Answer, None]


@dataclass(slots=True)
class Tally:
    """The callers' results. Latencies in seconds, by kind of call."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: dict[str, list[float]] = field(default_factory=dict)
    cpu: float = 0.0
    """CPU seconds of the callers themselves."""

    def __iadd__(self, other: "Tally") -> "Tally":
        self.seconds += other.seconds
        self.cpu += other.cpu
        self.statuses += other.statuses
        for kind, values in other.latencies.items():
            self.latencies.setdefault(kind, []).extend(values)
        return self

    @property
    def calls(self) -> int:
        return sum(self.statuses.values())

    @property
    def rate(self) -> float:
        return self.calls / self.seconds if self.seconds else 0.0

    @property
    def failures(self) -> int:
        return sum(count for status, count in self.statuses.items() if not 200 <= status < 300)

    def percentile(self, share: float, kind: str | None = None) -> float:
        """A percentile in seconds, over one kind of call or all."""
        chosen = self.latencies.get(kind, []) if kind else [value for each in self.latencies.values() for value in each]
        return percentile(chosen, share)


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


@dataclass(slots=True)
class _Connection:
    sock: socket.socket
    caller: Caller
    call: Call
    since: float = 0.0
    held: bytes = b""


class CallersError(Exception):
    """A connection broke, or there was no answer for a long time."""


def call(
    port: int,
    callers: Iterable[Caller],
    *,
    host: str = "127.0.0.1",
    seconds: float | None = None,
    calls: int | None = None,
    rate: float | None = None,
) -> Tally:
    """Let the callers run until a time has passed, a number of calls is sent, or all callers have ended."""
    with connected(port, callers, host=host) as connections:
        return _Loop(connections, seconds, calls, rate).run()


def call_again(connections: list[_Connection], calls: int) -> Tally:
    """Let callers that stay connected send so many more."""
    return _Loop(connections, None, calls, None).run()


@contextmanager
def connected(port: int, callers: Iterable[Caller], *, host: str = "127.0.0.1") -> Iterator[list[_Connection]]:
    """Callers with their connections, for as long as the block lasts."""
    connections = [_Connection(_connect(host, port), caller, next(caller)) for caller in callers]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.sock.close()


def _connect(host: str, port: int) -> socket.socket:
    sock = socket.create_connection((host, port), timeout=LONGEST_SILENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


class _Loop:
    def __init__(
        self, connections: list[_Connection], seconds: float | None, calls: int | None, rate: float | None
    ) -> None:
        self._by_fd = {connection.sock.fileno(): connection for connection in connections}
        self._idle = deque(connections)
        self._busy = 0
        self._seconds = seconds
        self._calls = calls
        self._pace = 1 / rate if rate else 0.0
        self._sent = 0
        self._tally = Tally()
        self._poller = select.epoll()
        for fd in self._by_fd:
            self._poller.register(fd, select.EPOLLIN)
        self._began = time.perf_counter()

    def run(self) -> Tally:
        cpu = time.process_time()
        while True:
            pause = self._send_what_is_due()
            if not self._busy and pause is None:
                break
            self._take(LONGEST_SILENCE if pause is None else pause)
        self._tally.seconds = time.perf_counter() - self._began
        self._tally.cpu = time.process_time() - cpu
        self._poller.close()
        return self._tally

    def _send_what_is_due(self) -> float | None:
        """Returns the seconds until the next request is due, None if that depends on an answer (or none will be)."""
        now = time.perf_counter()
        while self._idle:
            due = self._began + self._sent * self._pace if self._pace else now
            if self._seconds is not None and due - self._began >= self._seconds:
                return None
            if self._calls is not None and self._sent >= self._calls:
                return None
            if due > now:
                return due - now
            connection = self._idle.popleft()
            connection.since = due
            connection.sock.send(connection.call.request)
            self._sent += 1
            self._busy += 1
        return None

    def _take(self, pause: float) -> None:
        ready = self._poller.poll(pause)
        if not ready and pause == LONGEST_SILENCE:
            raise CallersError(f"no answer in {LONGEST_SILENCE:.0f} s to {self._busy} calls")
        for fd, _ in ready:
            connection = self._by_fd[fd]
            data = connection.sock.recv(BUFFER)
            if not data:
                raise CallersError("the server closed a connection")
            data = connection.held + data
            answer = _answer(data)
            connection.held = data if answer is None else b""
            if answer is not None:
                self._answered(connection, answer)

    def _answered(self, connection: _Connection, answer: Answer) -> None:
        took = time.perf_counter() - connection.since
        self._busy -= 1
        tally = self._tally
        tally.statuses[answer.status] += 1
        tally.latencies.setdefault(connection.call.kind, []).append(took)
        try:
            connection.call = connection.caller.send(answer)
        except StopIteration:
            return
        self._idle.append(connection)


def _answer(data: bytes) -> Answer | None:
    """A whole response with a Content-Length, or None while it is incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        raise CallersError(f"a response without a length: {head[:80]!r}")
    stop = head.find(b"\r\n", at)
    length = int(head[at + 15 : stop if stop > 0 else end])
    if len(data) < end + 4 + length:
        return None
    return Answer(int(data[9:12]), data[end + 4 : end + 4 + length])
