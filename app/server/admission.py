"""Admission: which connections, handshakes, requests and frames a process takes, and from whom.

An application has one `Admission`. It knows every open connection, counts the use of each address, and refuses with a
cause. A refusal is counted in `refusals` and not logged, because a client can cause thousands.
"""

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil, inf
from typing import Protocol

from app.server.addresses import Proxies, counted_as
from app.server.limits import Bucket, Limits, Rate

REST_SECONDS = 120.0
"""How long an address without a connection is remembered: until every bucket of its own is full again."""
ADDRESSES_REMEMBERED = 100_000
"""Beyond it the address that has had no connection for longest is forgotten early, and its counts with it."""
HINT_SECONDS = 60.0
"""The shortest time between two log lines about a proxy that is not trusted."""

log = logging.getLogger(__name__)


class Cause(StrEnum):
    """Why something was refused or ended: the label of a metric."""

    CONNECTION_FRAMES = "connection_frames"
    CONNECTION_BYTES = "connection_bytes"
    FRAGMENTS = "fragments"
    ADDRESS_FRAMES = "address_frames"
    ADDRESS_BYTES = "address_bytes"
    PROCESS_FRAMES = "process_frames"
    PROCESS_BYTES = "process_bytes"
    ADDRESS_SOCKETS = "address_sockets"
    ADDRESS_HANDSHAKES = "address_handshakes"
    ADDRESS_REQUESTS = "address_requests"
    PROCESS_HANDSHAKES = "process_handshakes"
    CONNECTIONS = "connections"
    """No descriptor was left and no silent connection to end."""
    SILENT_CONNECTION = "silent_connection"
    """Ended because another connection needed its descriptor."""
    HEAD_SIZE = "head_size"
    HEAD_TIME = "head_time"
    BODY_SIZE = "body_size"
    BODY_TIME = "body_time"
    BAD_REQUEST = "bad_request"
    HANDSHAKE = "handshake"
    """An invalid WebSocket handshake."""
    STALLED = "stalled"
    """The peer read nothing for too long."""


class Connection(Protocol):
    """An open TCP connection, of HTTP or a WebSocket."""

    def abort(self) -> None:
        """End the connection at once, without a response or a close frame."""


@dataclass(eq=False, slots=True)
class Address:
    """The budgets and counts of one address."""

    name: str
    frames: Bucket
    bytes: Bucket
    handshakes: Bucket
    """Handshakes; those beyond it are refused."""
    handshake_turns: Bucket
    """Handshakes; those beyond it wait."""
    requests: Bucket
    pipelined: Bucket
    """Requests that came before the answer to the one before; those beyond it wait."""
    sockets: int = 0
    holders: int = 0
    """Requests and connections that hold this object now."""


@dataclass(eq=False, slots=True)
class SocketBudget:
    """The frames and bytes that one WebSocket connection may send."""

    address: Address
    admission: "Admission"
    _frames: Bucket = field(init=False)
    _bytes: Bucket = field(init=False)
    _free_frames: Bucket = field(init=False)
    _free_bytes: Bucket = field(init=False)
    _fragments: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        limits = self.admission.limits
        self._frames, self._bytes = Bucket(limits.frames), Bucket(limits.frame_bytes)
        self._free_frames, self._free_bytes = Bucket(limits.free_frames), Bucket(limits.free_bytes)

    def take_frame(self, *, is_fragment: bool, is_last: bool) -> Cause | None:
        """Count a frame of any opcode; returns the cause if it is one too many. `is_fragment`: the frame is a part of a
        message in several frames, `is_last`: its last one."""
        if is_fragment:
            self._fragments = 0 if is_last else self._fragments + 1
            if self._fragments > self.admission.limits.fragments:
                return Cause.FRAGMENTS
        now = self.admission.now()
        if not self._frames.take(1, now):
            return Cause.CONNECTION_FRAMES
        if self._free_frames.take(1, now):
            return None
        if not self.address.frames.take(1, now):
            return Cause.ADDRESS_FRAMES
        return None if self.admission.frames.take(1, now) else Cause.PROCESS_FRAMES

    def take_bytes(self, size: int) -> Cause | None:
        """Count bytes as they come; returns the cause if they are too many."""
        now = self.admission.now()
        if not self._bytes.take(size, now):
            return Cause.CONNECTION_BYTES
        if self._free_bytes.take(size, now):
            return None
        if not self.address.bytes.take(size, now):
            return Cause.ADDRESS_BYTES
        return None if self.admission.bytes.take(size, now) else Cause.PROCESS_BYTES


class Admission:
    """All connections of this process. Used from the event loop only."""

    def __init__(
        self,
        limits: Limits,
        *,
        now: Callable[[], float],
        proxies: Proxies | None = None,
        capacity: int | None = None,
        closes: Counter[int] | None = None,
        addresses_remembered: int = ADDRESSES_REMEMBERED,
    ) -> None:
        """`now`: monotonic time in seconds. `capacity`: the number of connections that there are descriptors for; None:
        not known. `closes` counts the sockets that end before the application sees them, by close code."""
        self.limits = limits
        self.now = now
        self.proxies = proxies or Proxies()
        self.capacity = capacity
        self.closes: Counter[int] = Counter() if closes is None else closes
        self.refusals: Counter[str] = Counter()
        """By cause."""
        self.frames = Bucket(limits.process_frames)
        self.bytes = Bucket(limits.process_bytes)
        self._handshakes = Bucket(limits.process_handshakes)
        self._connections: dict[Connection, None] = {}
        self._ending: dict[Connection, None] = {}
        """Connections whose last bytes are written and that wait for the peer to close, the oldest first."""
        self._unspoken: dict[Connection, None] = {}
        """Connections on which no complete head of a request has come yet, the oldest first."""
        self._idle: dict[Connection, None] = {}
        """Connections that wait for their next request, the oldest first."""
        self._addresses_remembered = addresses_remembered
        self._addresses: dict[str, Address] = {}
        self._resting: OrderedDict[str, float] = OrderedDict()
        """Addresses that nothing holds, and since when, the longest first."""
        self._hinted_at = -HINT_SECONDS

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def silent_connections(self) -> int:
        return len(self._unspoken) + len(self._idle)

    @property
    def addresses(self) -> int:
        """Addresses with a connection or a request, or that had one a short while ago."""
        return len(self._addresses)

    # Connections

    def open(self, connection: Connection) -> bool:
        """Take a new connection. If there is no place, the oldest one that is ending is aborted for it, else the oldest
        silent one; False if there is neither."""
        if self.capacity is not None and len(self._connections) >= self.capacity:
            silent = self._ending or self._unspoken or self._idle
            if not silent:
                self.refuse(Cause.CONNECTIONS)
                return False
            oldest = next(iter(silent))
            self.close(oldest)
            self.refuse(Cause.SILENT_CONNECTION)
            oldest.abort()
        self._connections[connection] = None
        self._unspoken[connection] = None
        return True

    def busy(self, connection: Connection) -> None:
        """Note that a request has come on a connection, or that its turn has come."""
        self._unspoken.pop(connection, None)
        self._idle.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """Note that the last request on a connection is answered."""
        if connection in self._connections:
            self._idle[connection] = None

    def ending(self, connection: Connection) -> None:
        """Note that a connection's last bytes are written; it stays open for the peer to read them."""
        if connection in self._connections:
            self._ending[connection] = None

    def replace(self, connection: Connection, successor: Connection) -> None:
        """Put a WebSocket in the place of the HTTP connection that has become it."""
        self.close(connection)
        self._connections[successor] = None

    def close(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._ending.pop(connection, None)
        self.busy(connection)

    def refuse(self, cause: Cause) -> None:
        self.refusals[cause] += 1

    # Addresses

    def hold(self, client: str | None) -> Address:
        """The address of a client, kept until `release`."""
        name = counted_as(client)
        address = self._addresses.get(name)
        if address is None:
            self._forget_rested()
            address = self._addresses[name] = self._new_address(name)
        else:
            self._resting.pop(name, None)
        address.holders += 1
        return address

    def release(self, address: Address) -> None:
        address.holders -= 1
        if not address.holders:
            self._resting[address.name] = self.now()

    def _new_address(self, name: str) -> Address:
        limits = self.limits
        at_once = max(20, 2 * limits.sockets_per_address)
        return Address(
            name,
            frames=Bucket(limits.address_frames),
            bytes=Bucket(limits.address_bytes),
            handshakes=Bucket(Rate(at_once, limits.handshakes_per_second)),
            # All sockets that it may have, in some four seconds.
            handshake_turns=Bucket(Rate(max(40, at_once / 10), max(50, at_once / 8))),
            requests=Bucket(Rate(max(1, limits.requests_per_address), max(1, limits.requests_per_address))),
            pipelined=Bucket(limits.pipelined_requests),
        )

    def _forget_rested(self) -> None:
        """Forget up to two addresses that have rested long enough, or are too many. Called for each new one: more can
        be forgotten than come, and no call takes long."""
        before = self.now() - REST_SECONDS
        for _ in range(2):
            if not self._resting:
                return
            if next(iter(self._resting.values())) > before and len(self._addresses) < self._addresses_remembered:
                return
            name, _since = self._resting.popitem(last=False)
            del self._addresses[name]

    # Requests and handshakes

    def request(self, client: str | None) -> int | None:
        """Count a request: None if it may go on, else after how many seconds the next may come."""
        if not self.limits.requests_per_address:
            return None
        address = self.hold(client)
        try:
            now = self.now()
            if address.requests.take(1, now):
                return None
            self.refuse(Cause.ADDRESS_REQUESTS)
            return ceil(address.requests.seconds_until(1, now)) or 1
        finally:
            self.release(address)

    def handshake(self, address: Address) -> int | None:
        """Count a handshake: None if it may go on, else after how many seconds the next may come."""
        if not self.limits.sockets_per_address:
            return None
        now = self.now()
        if address.handshakes.take(1, now):
            return None
        self.refuse(Cause.ADDRESS_HANDSHAKES)
        return ceil(address.handshakes.seconds_until(1, now)) or 1

    def handshake_delay(self, address: Address) -> float | None:
        """Seconds until one more handshake of this address may go on: until both the rate of the process and, if
        sockets are limited, that of the address allow it. None if that of the process does not allow it within
        `handshake_wait_seconds`."""
        now = self.now()
        delay = self._handshakes.wait(now, self.limits.handshake_wait_seconds)
        if delay is None:
            self.refuse(Cause.PROCESS_HANDSHAKES)
            return None
        own = address.handshake_turns.wait(now, inf) if self.limits.sockets_per_address else None
        return max(delay, own or 0.0)

    def pipelined_delay(self, address: Address) -> float:
        """Seconds until a request that came before the answer to the one before it may go on."""
        return address.pipelined.wait(self.now(), inf) or 0.0

    def open_socket(self, address: Address, *, is_forwarded: bool) -> bool:
        """Count a WebSocket until `close_socket`; False if its address has as many as it may. `is_forwarded`: it came
        with an X-Forwarded-For from a peer that is no trusted proxy."""
        if self.limits.sockets_per_address and address.sockets >= self.limits.sockets_per_address:
            self.refuse(Cause.ADDRESS_SOCKETS)
            if is_forwarded and self.now() - self._hinted_at >= HINT_SECONDS:
                self._hinted_at = self.now()
                log.warning(
                    "sockets are refused: an address that sends X-Forwarded-For has reached SOCKETS_PER_ADDRESS; "
                    "if it is your proxy, name it in TRUSTED_PROXIES"
                )
            return False
        address.sockets += 1
        return True

    def close_socket(self, address: Address) -> None:
        address.sockets -= 1


def admission_of(app: object) -> Admission:
    """The admission of the application that a server runs (`app.state.admission`)."""
    admission: Admission = app.state.admission  # type: ignore[attr-defined]
    return admission
