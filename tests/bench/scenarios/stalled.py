"""Stalled viewers: as many that stop reading as read; the honest ones must not notice, and memory stays bounded."""

import time
from functools import partial

from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column
from tests.bench.load.callers import percentile
from tests.bench.load.crowd import Crowd, Report, crowd
from tests.bench.load.publishers import SettingsPublisher
from tests.bench.scale import Scale

NAME = "stalled"
EVENTS = 100
PAUSE_SECONDS = 0.06
"""Longer than the coalescing window: each event finds an idle room."""
FILLING = 1_200
"""Events after which a stalled viewer's buffers are full."""
SMALL_BUFFER = 4096
"""Of the stalled viewers' sockets, so that it is the server that has to hold what they do not read."""
WAKE_SECONDS = 10.0
CALM, STALLED = "all read", "half are stalled"
COLUMNS = (
    Column(measure="last_p50_ms", title="to the last honest viewer p50 ms", ranged=True),
    Column(measure="last_p99_ms", title="p99 ms"),
    Column(measure="held_kb", title="KB held for a stalled one", ranged=True),
    Column(measure="current", title="woken: current", digits=0),
    Column(measure="cut", title="cut off", digits=0),
)


def _case(bench: Bench) -> Case:
    count = bench.scale.stalled
    title = f"Stalled: {count:,} viewers that read and {count:,} that stop, an update at a time"
    return bench.ledger.case(NAME, NAME, title, COLUMNS)


def _turns(bench: Bench) -> list[Turn]:
    return [Turn(subject=OURS, take=partial(_ours, bench))]


def _ours(bench: Bench, round_number: int) -> None:
    count = bench.scale.stalled
    path = "/v1/performers/room-0/queue/live"
    with (
        servers.ours(bench.data, bench.server_core) as server,
        crowd(bench.viewers, bench.load_core) as honest,
        crowd(bench.viewers, bench.load_core) as asleep,
    ):
        publisher = SettingsPublisher(server, "room-0")
        publisher.publish(1)
        honest.connect(server.port, path, count)
        asleep.connect(server.port, path, count, receive_buffer=SMALL_BUFFER)
        calm = _updates(honest, publisher, count)
        asleep.pause()
        before = server.memory()
        honest.reset()
        for done in range(24, FILLING + 1, 24):
            publisher.publish(24)
            honest.wait(done * count)
        stalled = _updates(honest, publisher, count)
        held = (server.memory() - before) / count / 1024
        _case(bench).note(round_number, CALM, **_latencies(calm))
        woken = _woken(asleep, honest.report().newest)
        _case(bench).note(round_number, STALLED, **_latencies(stalled), held_kb=held, cut=woken.closed)
        if woken.open:
            # Of those that were not cut off for having lagged too long.
            current = woken.oldest == woken.newest and not woken.gaps
            _case(bench).note(round_number, STALLED, current=float(current))
        bench.check(NAME, OURS, honest.report(), viewers=count, events=EVENTS)


def _updates(honest: Crowd, publisher: SettingsPublisher, count: int) -> list[float]:
    honest.reset()
    times = []
    for number in range(1, EVENTS + 1):
        time.sleep(PAUSE_SECONDS)
        began = time.monotonic_ns()
        publisher.publish(1)
        times.append((honest.wait(number * count) - began) / 1e6)
    return times


def _latencies(times: list[float]) -> dict[str, float]:
    return {"last_p50_ms": percentile(times, 0.5), "last_p99_ms": percentile(times, 0.99)}


def _woken(asleep: Crowd, newest: int) -> Report:
    """Let the stalled ones read again, until all that are left have the room's present version."""
    asleep.reset()
    asleep.resume()
    deadline = time.monotonic() + WAKE_SECONDS
    while (report := asleep.report()).open and report.oldest < newest and time.monotonic() < deadline:
        time.sleep(0.1)
    return report


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return (
        Bar(
            case=NAME,
            text="latency of the honest × that with nobody stalled",
            measure="last_p50_ms",
            subject=STALLED,
            against=CALM,
            at_most=1.25,
        ),
        Bar(case=NAME, text="KB held for a stalled viewer", measure="held_kb", subject=STALLED, at_most=96),
        Bar(
            case=NAME,
            text="those that wake get the present (1: all of them)",
            measure="current",
            subject=STALLED,
            at_least=1,
        ),
    )


SCENARIO = Scenario(name=NAME, about="half of the viewers stop reading", turns=_turns, bars=_bars, rounds=3)
