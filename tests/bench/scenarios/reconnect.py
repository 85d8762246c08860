"""Reconnect storm: the service restarts under its viewers, and all of them come back at once while intakes go on."""

import threading
from functools import partial

from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column
from tests.bench.load.callers import Tally, call
from tests.bench.load.crowd import Crowd, CrowdError, crowd
from tests.bench.load.requests import Intakes
from tests.bench.scale import Scale
from tests.bench.servers import Server

NAME = "reconnect"
INTAKE_RATE = 20.0
STEP_SECONDS = 0.5
COLUMNS = (
    Column(measure="a_second", title="viewers served a second", digits=0, ranged=True),
    Column(measure="seconds", title="seconds for all", digits=2),
    Column(measure="accept_us", title="CPU µs a viewer", digits=0),
    Column(measure="stop_seconds", title="seconds to stop", digits=2),
    Column(measure="intake_p50_ms", title="intake meanwhile p50 ms"),
    Column(measure="intake_p99_ms", title="p99 ms"),
)


def _turns(bench: Bench) -> list[Turn]:
    return [Turn(subject=OURS, take=partial(_ours, bench))]


def _case(bench: Bench) -> Case:
    title = f"Reconnect storm: {bench.scale.reconnecting:,} viewers come back at once after a restart"
    return bench.ledger.case(NAME, NAME, title, COLUMNS)


def _ours(bench: Bench, round_number: int) -> None:
    viewers = bench.scale.reconnecting
    with (
        servers.data_folder(bench.data) as folder,
        crowd(["nice", "-n", "5", *bench.viewers], bench.load_core) as watching,
    ):
        server = servers.start_ours(folder, bench.server_core)
        try:
            call(server.port, [Intakes(1).caller()], calls=10)
            watching.connect(server.port, "/v1/performers/room-0/queue/live", viewers)
            stopping = server.stop()
            watching.close()
            server = servers.start_ours(folder, bench.server_core, port=server.port)
            before = server.cpu()
            seconds, tally = _storm(server, watching, viewers)
            _case(bench).note(
                round_number,
                OURS,
                a_second=viewers / seconds,
                seconds=seconds,
                accept_us=(server.cpu() - before) / viewers * 1e6,
                stop_seconds=stopping,
                intake_p50_ms=tally.percentile(0.5) * 1000,
                intake_p99_ms=tally.percentile(0.99) * 1000,
            )
            bench.check_calls(NAME, OURS, tally)
        finally:
            server.stop()


def _storm(server: Server, watching: Crowd, viewers: int) -> tuple[float, Tally]:
    """How long until the last one has its snapshot, and what intakes into other rooms met meanwhile."""
    took: list[float] = []
    problems: list[CrowdError] = []

    def come_back() -> None:
        try:
            took.append(watching.connect(server.port, "/v1/performers/room-0/queue/live", viewers, at_once=viewers))
        except CrowdError as problem:
            problems.append(problem)

    intakes, met = Intakes(50, prefix="other"), Tally()
    thread = threading.Thread(target=come_back)
    thread.start()
    while thread.is_alive():
        met += call(server.port, [intakes.caller() for _ in range(4)], seconds=STEP_SECONDS, rate=INTAKE_RATE)
    thread.join()
    if problems:
        raise problems[0]
    return took[0], met


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return (Bar(case=NAME, text="viewers served a second (10,000 in 10 s)", measure="a_second", at_least=1000),)


SCENARIO = Scenario(name=NAME, about="all viewers come back after a restart", turns=_turns, bars=_bars, rounds=3)
