"""The operations that the optimisations serve, over HTTP and WebSockets, in a service that runs for one of them."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from app.domain.command import Role
from tests.bench import servers
from tests.bench.bench import Bench
from tests.bench.load.callers import Answer, Call, Caller, Tally, call, call_again, connected
from tests.bench.load.crowd import crowd
from tests.bench.load.publishers import IntakePublisher
from tests.bench.load.requests import Intakes, get, post
from tests.bench.optimisations.measuring import BACK, PLAIN, Begin, Drive, Operation, Switch
from tests.bench.servers import Server, token

CALLERS = 64
ROOMS = 2_000
CALLS = 192
"""At a time: short, so that both ways of a pair have the same neighbours on the machine."""
BUSY_ROOMS = 16
FULL_ROOMS = 100
LONG_QUEUE = 150
LEARNT_SERVICES = 120
QUEUE = 50
VIEWERS = 1_000
JOINS = 100
LEAVING_SECONDS = 0.2
"""Until the service has taken leave of them."""
BROADCASTS = 3
PAUSE_SECONDS = 0.06
"""Longer than the service's coalescing window."""
SWITCH_SECONDS = 10.0
"""Until a service must have switched."""
NEVER_SETTLED = {"SETTLE_DELAY_SECONDS": "86400"}
"""Nothing of what is performed to make ready is settled while it is measured."""


Ready = Callable[[Bench, Server], AbstractContextManager[Drive]]


def _of_service(ready: Ready, settings: Mapping[str, str] | None = None) -> Begin:
    @contextmanager
    def begin(bench: Bench) -> Iterator[tuple[Drive, Switch]]:
        with servers.data_folder(bench.data) as folder:
            named = folder / "optimisation"

            def switch(name: str | None) -> None:
                named.write_text(name or "")
                server.process.send_signal(BACK if name is None else PLAIN)
                until = time.monotonic() + SWITCH_SECONDS
                while named.exists():
                    if time.monotonic() > until:
                        raise servers.DidNotStart(f"the service has not switched to {name}")
                    time.sleep(0.002)

            program = ("-m", "tests.bench.optimisations.service", str(named))
            server = servers.start_ours(folder, bench.server_core, settings, program=program)
            try:
                with ready(bench, server) as drive:
                    yield drive, switch
            finally:
                server.stop()

    return begin


@contextmanager
def _calls(bench: Bench, server: Server, callers: list[Caller]) -> Iterator[Drive]:
    """CPU µs a call of callers that stay connected."""
    with connected(server.port, callers) as connections:

        def drive() -> float:
            before = server.cpu()
            tally = call_again(connections, CALLS)
            cost = (server.cpu() - before) / tally.calls * 1e6
            _check(bench, tally)
            return cost

        yield drive


def _check(bench: Bench, tally: Tally) -> None:
    bench.check_calls("optimisations", "ours", tally)


def _fill(bench: Bench, server: Server, rooms: int, items: int) -> None:
    intakes = Intakes(rooms)
    _check(bench, call(server.port, [intakes.caller() for _ in range(CALLERS)], calls=rooms * items))


# Intakes


@contextmanager
def _intakes(rooms: int, waiting: int, bench: Bench, server: Server) -> Iterator[Drive]:
    _fill(bench, server, rooms, waiting)
    intakes = Intakes(rooms)
    with _calls(bench, server, [intakes.caller() for _ in range(CALLERS)]) as drive:
        yield drive


@contextmanager
def _proxied_intakes(bench: Bench, server: Server) -> Iterator[Drive]:
    """From a thousand IPv6 addresses behind one proxy."""
    intakes = Intakes(ROOMS)

    def caller(number: int) -> Caller:
        header = f"\r\nX-Forwarded-For: 2001:db8:{number % 1000:x}::1\r\nHost: bench\r\n".encode()
        while True:
            each = intakes.next()
            yield Call(each.kind, each.request.replace(b"\r\nHost: bench\r\n", header, 1))

    with _calls(bench, server, [caller(number) for number in range(CALLERS)]) as drive:
        yield drive


def _learn(bench: Bench, server: Server) -> None:
    """Have each of BUSY_ROOMS learn from LEARNT_SERVICES items, of which each waited behind others."""
    admin = token(Role.ADMIN, "bench")

    def caller(room: str) -> Caller:
        intakes = Intakes(1)
        for _ in range(3):
            yield intakes.next(room)
        for _ in range(LEARNT_SERVICES):
            yield intakes.next(room)
            started: Answer = yield Call("start", post(f"/v1/performers/{room}/queue/start-next", b"", bearer=admin))
            item = json.loads(started.body)["itemId"]
            yield Call("complete", post(f"/v1/queue/items/{item}/complete", b"", bearer=admin))

    _check(bench, call(server.port, [caller(f"room-{number}") for number in range(BUSY_ROOMS)]))


# Reads


def _reads(bench: Bench, server: Server, requests: list[bytes]) -> AbstractContextManager[Drive]:
    def caller(first: int) -> Caller:
        number = first
        while True:
            yield Call("read", requests[number % len(requests)])
            number += CALLERS + 1

    return _calls(bench, server, [caller(first) for first in range(CALLERS)])


def _items_of(server: Server) -> list[str]:
    """The active items of BUSY_ROOMS."""
    found: list[str] = []

    def caller() -> Caller:
        for number in range(BUSY_ROOMS):
            answer: Answer = yield Call("queue", get(f"/v1/performers/room-{number}/queue"))
            found.extend(item["itemId"] for item in json.loads(answer.body)["items"])

    call(server.port, [caller()])
    return found


@contextmanager
def _position_reads(bench: Bench, server: Server) -> Iterator[Drive]:
    _learn(bench, server)
    _fill(bench, server, BUSY_ROOMS, QUEUE)
    bearer = token(Role.ADMIN, "bench")
    requests = [get(f"/v1/queue/items/{item}/position", bearer=bearer) for item in _items_of(server)]
    with _reads(bench, server, requests) as drive:
        yield drive


@contextmanager
def _outlooks(bench: Bench, server: Server) -> Iterator[Drive]:
    _learn(bench, server)
    requests = [get(f"/v1/performers/room-{number}/queue/outlook") for number in range(BUSY_ROOMS)]
    with _reads(bench, server, requests) as drive:
        yield drive


@contextmanager
def _queue_reads(bench: Bench, server: Server) -> Iterator[Drive]:
    _fill(bench, server, BUSY_ROOMS, QUEUE)
    with _reads(bench, server, [get(f"/v1/performers/room-{number}/queue") for number in range(BUSY_ROOMS)]) as drive:
        yield drive


@contextmanager
def _ended_item_reads(bench: Bench, server: Server) -> Iterator[Drive]:
    bearer = token(Role.ADMIN, "bench")
    _fill(bench, server, BUSY_ROOMS, QUEUE)
    items = _items_of(server)

    def caller() -> Caller:
        for item in items:
            yield Call("abandon", post(f"/v1/queue/items/{item}/abandon", b"", bearer=bearer))

    call(server.port, [caller()])
    time.sleep(2)  # until the wallet's part is over
    with _reads(bench, server, [get(f"/v1/queue/items/{item}", bearer=bearer) for item in items]) as drive:
        yield drive


# Sockets


@contextmanager
def _broadcasts(bench: Bench, server: Server) -> Iterator[Drive]:
    with crowd(bench.viewers, bench.load_core) as watching:
        watching.connect(server.port, "/v1/performers/room-0/queue/live", VIEWERS)
        publisher = IntakePublisher(server)
        watching.reset()
        sent = 0

        def drive() -> float:
            nonlocal sent
            before = server.cpu()
            for _ in range(BROADCASTS):
                time.sleep(PAUSE_SECONDS)
                publisher.publish(1)
                sent += 1
                watching.wait(sent * VIEWERS)
            return (server.cpu() - before) / BROADCASTS * 1e6

        yield drive
        publisher.close()


@contextmanager
def _joins(bench: Bench, server: Server) -> Iterator[Drive]:
    _fill(bench, server, 1, QUEUE)

    def drive() -> float:
        with crowd(bench.viewers, bench.load_core) as joining:
            before = server.cpu()
            joining.connect(server.port, "/v1/performers/room-0/queue/live", JOINS)
            cost = (server.cpu() - before) / JOINS * 1e6
        time.sleep(LEAVING_SECONDS)
        return cost

    yield drive


@contextmanager
def _weights(bench: Bench, server: Server) -> Iterator[Drive]:
    with ExitStack() as staying:

        def drive() -> float:
            joining = staying.enter_context(crowd(bench.viewers, bench.load_core))
            before = server.memory()
            joining.connect(server.port, "/v1/performers/room-0/queue/live", 5 * JOINS)
            return (server.memory() - before) / (5 * JOINS) / 1024

        yield drive


INTAKE = Operation(name="an intake", begin=_of_service(partial(_intakes, ROOMS, 1)))
LONG_QUEUE_INTAKE = Operation(
    name=f"an intake behind {LONG_QUEUE} and more", begin=_of_service(partial(_intakes, FULL_ROOMS, LONG_QUEUE))
)
PROXIED_INTAKE = Operation(
    name="an intake that comes by a proxy",
    begin=_of_service(_proxied_intakes, {"TRUSTED_PROXIES": "127.0.0.1", "REQUESTS_PER_ADDRESS": "100000"}),
)
POSITION_READ = Operation(name=f"reading a position among {QUEUE}", begin=_of_service(_position_reads, NEVER_SETTLED))
OUTLOOK = Operation(name="an outlook", begin=_of_service(_outlooks, NEVER_SETTLED))
QUEUE_READ = Operation(name=f"reading a queue of {QUEUE}", begin=_of_service(_queue_reads))
ENDED_ITEM_READ = Operation(name="reading an item that has ended", begin=_of_service(_ended_item_reads))
BROADCAST = Operation(name=f"an intake that {VIEWERS:,} watch", begin=_of_service(_broadcasts))
JOIN = Operation(name=f"joining a room of {QUEUE} items", begin=_of_service(_joins))
VIEWER = Operation(name="a viewer", unit="KB", pairs=8, begin=_of_service(_weights))
