"""Fan-out: CPU per delivery in one room, against the peers, one event in flight and bursts of eight.

The service is driven by real intakes; their whole cost (HTTP, decision, commit) counts as its own. What the same
intakes cost in a room that nobody watches is measured beside it. Everybody gets the same arrivals: a server that rests
between two events finds cold caches and sleeping clients, and sends dearer than one that never stops.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column
from tests.bench.load.callers import percentile
from tests.bench.load.crowd import Crowd, crowd
from tests.bench.load.publishers import IntakePublisher, PostPublisher, Publisher, SocketPublisher
from tests.bench.peers import catalogue, preparing
from tests.bench.peers.catalogue import FLOOR, Peer, Wire
from tests.bench.peers.preparing import Prepared
from tests.bench.scale import Scale
from tests.bench.servers import Server

NAME = "fanout"
BURST = 8
WARM_UP = 5
LONGEST_PHASE = 6.0
"""Seconds after which a slow peer has been measured for long enough."""
FEWEST = 5
"""Of publications, however long they take."""
PAUSE_SECONDS = 0.06
"""From one publication to the next, at least: longer than the service's coalescing window."""
OURS_NET = f"{OURS}, less its intakes"
COLUMNS = (
    Column(measure="cpu_us", title="CPU µs a delivery", digits=2, ranged=True),
    Column(measure="bytes", title="bytes a delivery", digits=0),
    Column(measure="frames", title="frames a delivery", digits=2),
    Column(measure="last_p50_ms", title="to the last viewer p50 ms"),
    Column(measure="last_p99_ms", title="p99 ms"),
    Column(measure="memory_kb", title="KB a viewer"),
)


def _name(viewers: int, in_flight: int) -> str:
    return f"fanout {viewers} × {in_flight}"


FLAVOURS = {Wire.SOCKETIO: "socketio", Wire.CENTRIFUGE: "centrifuge"}


def _case(bench: Bench, viewers: int, in_flight: int) -> Case:
    flight = "one event in flight" if in_flight == 1 else f"bursts of {in_flight}"
    return bench.ledger.case(
        NAME,
        _name(viewers, in_flight),
        f"Fan-out: {viewers:,} viewers of one room, {flight}",
        COLUMNS,
        ("cpu_us", FLOOR.name),
    )


def _turns(bench: Bench) -> list[Turn]:
    prepared = []
    for peer in catalogue.FANOUT:
        if peer.name not in bench.peers:
            continue
        try:
            prepared.append(preparing.prepare(peer, bench.cache))
        except preparing.Absent as reason:
            bench.absent(NAME, peer.name, str(reason))
    turns = []
    for viewers in bench.scale.crowds:
        turns.append(Turn(subject=OURS, take=partial(_ours, bench, viewers)))
        for each in prepared:
            turns.append(Turn(subject=each.peer.name, take=partial(_peer, bench, viewers, each)))
    return turns


def _ours(bench: Bench, viewers: int, round_number: int) -> None:
    with servers.ours(bench.data, bench.server_core) as server, crowd(bench.viewers, bench.load_core) as watching:
        empty = server.memory()
        watching.connect(server.port, "/v1/performers/room-0/queue/live", viewers)
        with _published(IntakePublisher(server)) as publisher:
            drive = _Drive(bench, round_number, OURS, server, watching, publisher, viewers, server.memory() - empty)
            drive.warm_up()
            for in_flight, times in _phases(bench.scale):
                intake = _intake_alone(server, in_flight, times)
                net = drive.measure(in_flight, times) - intake / viewers
                _case(bench, viewers, in_flight).note(round_number, OURS_NET, cpu_us=net * 1e6)


def _intake_alone(server: Server, in_flight: int, times: int) -> float:
    """CPU seconds of an intake, at the same pace, into a room that nobody watches."""
    with _published(IntakePublisher(server, prefix="unwatched")) as unseen:
        before = server.cpu()
        for _ in range(times):
            time.sleep(PAUSE_SECONDS)
            unseen.publish(in_flight)
        return (server.cpu() - before) / (in_flight * times)


def _peer(bench: Bench, viewers: int, prepared: Prepared, round_number: int) -> None:
    peer = prepared.peer
    path = "/socket.io/?EIO=4&transport=websocket" if peer.wire is Wire.SOCKETIO else "/live"
    with (
        preparing.running(prepared, bench.data, bench.server_core) as server,
        crowd(bench.viewers, bench.load_core, flavour=FLAVOURS.get(peer.wire, "plain")) as watching,
    ):
        empty = server.memory()
        watching.connect(server.port, path, viewers)
        with _published(_publisher(peer, server, bench.scale.payload_bytes)) as publisher:
            drive = _Drive(
                bench, round_number, peer.name, server, watching, publisher, viewers, server.memory() - empty
            )
            drive.warm_up()
            for in_flight, times in _phases(bench.scale):
                drive.measure(in_flight, times)


def _publisher(peer: Peer, server: Server, size: int) -> Publisher:
    if peer.wire is Wire.NCHAN:
        return PostPublisher(server.port, size)
    return SocketPublisher(server.port, peer.wire, size)


@contextmanager
def _published(publisher: Publisher) -> Iterator[Publisher]:
    try:
        yield publisher
    finally:
        publisher.close()


def _phases(scale: Scale) -> tuple[tuple[int, int], ...]:
    return (1, scale.single_events), (BURST, scale.bursts)


@dataclass(frozen=True, slots=True)
class _Drive:
    """A server with its crowd, ready to be published to."""

    bench: Bench
    round_number: int
    subject: str
    server: Server
    watching: Crowd
    publisher: Publisher
    viewers: int
    memory: int
    """Bytes the viewers have taken by joining."""

    def warm_up(self) -> None:
        for number in range(1, WARM_UP + 1):
            self.publisher.publish(1)
            self.watching.wait(number * self.viewers)

    def measure(self, in_flight: int, times: int) -> float:
        """Publish, wait until all of it has arrived, and again; returns CPU seconds a delivery."""
        watching, viewers = self.watching, self.viewers
        watching.reset()
        client_before, began, before = watching.report().cpu, time.monotonic(), self.server.cpu()
        latencies: list[float] = []
        due = began
        while len(latencies) < times and (time.monotonic() < began + LONGEST_PHASE or len(latencies) < FEWEST):
            time.sleep(max(0.0, due - time.monotonic()))
            due = time.monotonic() + PAUSE_SECONDS
            asked = time.monotonic_ns()
            self.publisher.publish(in_flight)
            latencies.append((watching.wait((len(latencies) + 1) * in_flight * viewers) - asked) / 1e6)
        seconds, cpu, report = time.monotonic() - began, self.server.cpu() - before, watching.report()
        events = in_flight * len(latencies)
        deliveries = viewers * events
        _case(self.bench, viewers, in_flight).note(
            self.round_number,
            self.subject,
            cpu_us=cpu / deliveries * 1e6,
            bytes=report.bytes / deliveries,
            frames=report.frames / deliveries,
            last_p50_ms=percentile(latencies, 0.5),
            last_p99_ms=percentile(latencies, 0.99),
            memory_kb=self.memory / viewers / 1024,
        )
        self.bench.check(NAME, self.subject, report, viewers=viewers, events=events)
        self.bench.check_load(NAME, self.subject, report.cpu - client_before, seconds)
        return cpu / deliveries


def _bars(scale: Scale) -> tuple[Bar, ...]:
    bars = []
    for viewers in scale.crowds:
        one, eight = _name(viewers, 1), _name(viewers, BURST)
        cpu = "cpu_us"
        bars.append(Bar(case=one, text="CPU a delivery × C floor", measure=cpu, against=FLOOR.name, at_most=1.3))
        for peer in ("Nchan", "Node ws"):
            bars.append(Bar(case=one, text=f"CPU a delivery × {peer}", measure=cpu, against=peer, at_most=1.0))
        bars.append(
            Bar(case=eight, text="CPU a delivery × uWebSockets", measure=cpu, against="uWebSockets", at_most=1.0)
        )
    return tuple(bars)


SCENARIO = Scenario(name=NAME, about="CPU per delivery in one room, against the peers", turns=_turns, bars=_bars)
