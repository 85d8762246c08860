"""Latency: from a commit to the last viewer, and what intakes of other rooms suffer while a large room is told.

The C floor sends the same number of frames in a bare loop: that is what the sends themselves take. An intake is
answered as soon as it is committed, and its answer is written just before the first viewer is.
"""

import threading
import time
from functools import partial

from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column
from tests.bench.load.callers import Tally, call, percentile
from tests.bench.load.crowd import Crowd, crowd
from tests.bench.load.publishers import IntakePublisher, Publisher, SocketPublisher
from tests.bench.load.requests import Intakes
from tests.bench.peers import preparing
from tests.bench.peers.catalogue import FLOOR, Wire
from tests.bench.peers.preparing import Prepared
from tests.bench.scale import Scale
from tests.bench.servers import Server

NAME = "latency"
EVENTS = 30
PAUSE_SECONDS = 0.1
"""Longer than the coalescing window: each event finds an idle room."""
PROBE_RATE = 50.0
"""Intakes a second into other rooms, from one caller at a time."""
COLUMNS = (
    Column(measure="last_p50_ms", title="to the last viewer p50 ms", ranged=True),
    Column(measure="last_p99_ms", title="p99 ms"),
    Column(measure="quiet_p50_ms", title="intake, quiet: p50 ms", digits=2),
    Column(measure="quiet_p99_ms", title="p99 ms", digits=2),
    Column(measure="busy_p50_ms", title="during broadcasts: p50 ms", digits=2),
    Column(measure="busy_p99_ms", title="p99 ms", digits=2, ranged=True),
)


def _case(bench: Bench) -> Case:
    title = f"Latency: {bench.scale.crowd_for_latency:,} viewers of one room, an event at a time into an idle room"
    return bench.ledger.case(NAME, NAME, title, COLUMNS, ("last_p50_ms", FLOOR.name))


def _turns(bench: Bench) -> list[Turn]:
    turns = [Turn(subject=OURS, take=partial(_ours, bench))]
    if FLOOR.name in bench.peers:
        try:
            prepared = preparing.prepare(FLOOR, bench.cache)
            turns.append(Turn(subject=FLOOR.name, take=partial(_floor, bench, prepared)))
        except preparing.Absent as reason:
            bench.absent(NAME, FLOOR.name, str(reason))
    return turns


def _floor(bench: Bench, prepared: Prepared, round_number: int) -> None:
    viewers = bench.scale.crowd_for_latency
    with (
        preparing.running(prepared, bench.data, bench.server_core) as server,
        crowd(bench.viewers, bench.load_core, flavour="plain") as watching,
    ):
        watching.connect(server.port, "/live", viewers)
        publisher = SocketPublisher(server.port, Wire.WEBSOCKET, bench.scale.payload_bytes)
        _note_last(bench, round_number, FLOOR.name, _broadcasts(watching, publisher, viewers))
        bench.check(NAME, FLOOR.name, watching.report(), viewers=viewers, events=EVENTS)


def _ours(bench: Bench, round_number: int) -> None:
    viewers = bench.scale.crowd_for_latency
    with (
        servers.ours(bench.data, bench.server_core) as server,
        crowd(["nice", "-n", "5", *bench.viewers], bench.load_core) as watching,
    ):
        # The viewers give way to the probe, which shares their core: what they keep it waiting is not the server's.
        watching.connect(server.port, "/v1/performers/room-0/queue/live", viewers)
        _probe(server, seconds=0.5)
        quiet = _probe(server, seconds=EVENTS * PAUSE_SECONDS)
        publisher = IntakePublisher(server)
        _note_last(bench, round_number, OURS, _broadcasts(watching, publisher, viewers))
        bench.check(NAME, OURS, watching.report(), viewers=viewers, events=EVENTS)
        busy = _probe_during_broadcasts(server, watching, publisher, viewers)
        _case(bench).note(
            round_number,
            OURS,
            quiet_p50_ms=quiet.percentile(0.5) * 1000,
            quiet_p99_ms=quiet.percentile(0.99) * 1000,
            busy_p50_ms=busy.percentile(0.5) * 1000,
            busy_p99_ms=busy.percentile(0.99) * 1000,
        )
        for tally in (quiet, busy):
            bench.check_calls(NAME, OURS, tally)


def _broadcasts(watching: Crowd, publisher: Publisher, viewers: int) -> list[float]:
    """Milliseconds from an event's commit, which is when its publisher has its answer, to its last viewer."""
    times = []
    for number in range(1, EVENTS + 1):
        time.sleep(PAUSE_SECONDS)
        publisher.publish(1)
        began = time.monotonic_ns()
        times.append((watching.wait(number * viewers) - began) / 1e6)
    return times


def _note_last(bench: Bench, round_number: int, subject: str, times: list[float]) -> None:
    _case(bench).note(round_number, subject, last_p50_ms=percentile(times, 0.5), last_p99_ms=percentile(times, 0.99))


def _probe(server: Server, *, seconds: float) -> Tally:
    intakes = Intakes(50, prefix="probed")
    return call(server.port, [intakes.caller() for _ in range(4)], seconds=seconds, rate=PROBE_RATE)


def _probe_during_broadcasts(server: Server, watching: Crowd, publisher: Publisher, viewers: int) -> Tally:
    """Events as fast as the crowd takes them, from another thread, while the probe asks at its own pace."""
    over = threading.Event()

    def broadcast() -> None:
        watching.reset()
        number = 0
        while not over.is_set() and number < 600:
            number += 1
            publisher.publish(1)
            watching.wait(number * viewers)

    thread = threading.Thread(target=broadcast)
    thread.start()
    try:
        return _probe(server, seconds=EVENTS * PAUSE_SECONDS)
    finally:
        over.set()
        thread.join()


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return (
        Bar(
            case=NAME,
            text="to the last viewer × the sends alone (C floor)",
            measure="last_p50_ms",
            against=FLOOR.name,
            at_most=1.5,
        ),
        Bar(
            case=NAME,
            text="intake p99 during broadcasts × quiet p99",
            measure="busy_p99_ms",
            against_measure="quiet_p99_ms",
            at_most=3,
        ),
    )


SCENARIO = Scenario(name=NAME, about="intake to last viewer, and intakes during broadcasts", turns=_turns, bars=_bars)
