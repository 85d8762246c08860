"""The limits on traffic, and the token bucket that counts it. Times are monotonic, in seconds."""

from dataclasses import dataclass, field
from typing import NamedTuple

KIB = 1024


class Rate(NamedTuple):
    """`burst` at once, and `per_second` after that."""

    burst: float
    per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one peer, one address and one process. An address is that of `addresses.counted_as`."""

    # HTTP
    head_bytes: int = 32 * KIB
    """Of a request's line and headers together."""
    line_bytes: int = 8 * KIB
    """Of the request line, or one header, of an upgrade."""
    headers: int = 128
    parameters: int = 256
    """Of a query; it may name MOST_PERFORMERS. A head that is full of parameters takes 13 ms to read."""
    body_bytes: int = 512 * KIB
    """Bytes that carry one body, the frames of chunks included; the body itself is bounded by the middleware."""
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    upgrade_seconds: float = 10.0
    """How long the answer to an upgrade may take."""
    write_seconds: float = 30.0
    """How long a peer may leave a full write buffer unread."""
    close_seconds: float = 2.0
    """How long a peer may take to close after we have."""
    slice_bytes: int = 4 * KIB
    """Bytes of one connection that are parsed before the others get their turn."""

    # WebSocket, of one connection
    frames: Rate = Rate(300, 10)
    """Frames of every opcode: enough for 120 messages a minute (contract section 5) in several fragments, and pings."""
    frame_bytes: Rate = Rate(2048 * KIB, 128 * KIB)
    """Enough for 120 messages of 64 KiB a minute, with headers and control frames."""
    fragments: int = 512
    """The frames of one message."""
    free_frames: Rate = Rate(60, 2)
    """Frames that count against the connection alone, not against its address and the process: a connection that only
    answers pings takes nothing from the others."""
    free_bytes: Rate = Rate(64 * KIB, 4 * KIB)

    # WebSocket, of all connections of one address, and of the process, beyond their free frames and bytes
    address_frames: Rate = Rate(3000, 100)
    address_bytes: Rate = Rate(8192 * KIB, 512 * KIB)
    process_frames: Rate = Rate(10_000, 2000)
    process_bytes: Rate = Rate(65536 * KIB, 8192 * KIB)

    # Connections, handshakes and requests
    connections: int = 1_000_000
    """TCP connections of the process at a time, if there are descriptors for as many."""
    sockets: int = 50_000
    """WebSockets among them."""
    sockets_per_principal: int = 100
    """WebSockets of the holder of a token at a time."""
    auth_seconds: float = 5.0
    """How long a private room waits for `auth` (contract section 5)."""
    sockets_per_address: int = 0
    """WebSockets of one address at a time; 0: any number."""
    requests_per_address: int = 0
    """HTTP requests of one address a second, handshakes included; 0: any number."""
    handshakes_per_second: float = 20.0
    """Of one address whose sockets are limited, after a burst of twice `sockets_per_address`, or 20 if that is more."""
    pipelined_requests: Rate = Rate(100, 100)
    """Requests of one address that came before the answer to the one before; above this rate they wait. Browsers and
    proxies send none."""
    process_handshakes: Rate = Rate(1000, 1000)
    """Handshakes above this wait: at this rate they take half of a core, and 10,000 viewers are back in 10 seconds."""
    handshake_wait_seconds: float = 5.0
    """How long a handshake may wait; then it is refused."""


@dataclass(slots=True)
class Bucket:
    """A token bucket: holds `rate.burst` tokens, gets `rate.per_second` new ones."""

    rate: Rate
    _tokens: float = field(init=False)
    _counted_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._tokens = self.rate.burst

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` tokens if there are as many."""
        self._refill(now)
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True

    def wait(self, now: float, longest: float) -> float | None:
        """Take a token, if need be in advance. Returns the seconds until it is there; None, without taking it, if they
        are more than `longest`."""
        self._refill(now)
        seconds = max(0.0, (1 - self._tokens) / self.rate.per_second)
        if seconds > longest:
            return None
        self._tokens -= 1
        return seconds

    def seconds_until(self, amount: float, now: float) -> float:
        """Seconds until `amount` tokens are there."""
        self._refill(now)
        return max(0.0, (amount - self._tokens) / self.rate.per_second)

    def _refill(self, now: float) -> None:
        self._tokens = min(self.rate.burst, self._tokens + max(0.0, now - self._counted_at) * self.rate.per_second)
        self._counted_at = now
