"""Tracing: CPU seconds that an intake costs without a tracer, and with one that sends every span to a collector.

"Again" is the service without a tracer once more: what lies between the two is what this machine cannot tell apart.
"""

from functools import partial

from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column
from tests.bench.load.callers import call
from tests.bench.load.collector import collector
from tests.bench.load.requests import Intakes
from tests.bench.scale import Scale
from tests.bench.servers import Server

NAME = "tracing"
AGAIN = f"{OURS}, again"
TRACED = f"{OURS}, traced"
ROOMS = 500
WARM_UP_CALLS = 500
COLUMNS = (
    Column(measure="cpu_us", title="CPU µs an intake", digits=0, ranged=True),
    Column(measure="rate", title="intakes a second", digits=0),
)


def _case(bench: Bench) -> Case:
    title = f"Tracing: {bench.scale.callers} callers, every request traced or none"
    return bench.ledger.case(NAME, NAME, title, COLUMNS, ("cpu_us", OURS))


def _turns(bench: Bench) -> list[Turn]:
    return [
        Turn(subject=OURS, take=partial(_untraced, bench, OURS)),
        Turn(subject=TRACED, take=partial(_traced, bench)),
        Turn(subject=AGAIN, take=partial(_untraced, bench, AGAIN)),
    ]


def _untraced(bench: Bench, subject: str, round_number: int) -> None:
    with servers.ours(bench.data, bench.server_core) as server:
        _drive(bench, round_number, subject, server)


def _traced(bench: Bench, round_number: int) -> None:
    with (
        collector(bench.data, bench.load_core) as settings,
        servers.ours(bench.data, bench.server_core, settings) as server,
    ):
        _drive(bench, round_number, TRACED, server)


def _drive(bench: Bench, round_number: int, subject: str, server: Server) -> None:
    scale, intakes = bench.scale, Intakes(ROOMS)
    warm = call(server.port, [intakes.caller() for _ in range(scale.callers)], calls=WARM_UP_CALLS)
    before = server.cpu()
    tally = call(server.port, [intakes.caller() for _ in range(scale.callers)], seconds=scale.seconds_of_calls)
    cost = server.cpu() - before
    _case(bench).note(round_number, subject, cpu_us=cost / tally.calls * 1e6, rate=tally.rate)
    for each in (warm, tally):
        bench.check_calls(NAME, subject, each)


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return ()


SCENARIO = Scenario(name=NAME, about="what an intake costs with and without traces", turns=_turns, bars=_bars)
