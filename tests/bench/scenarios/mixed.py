"""Mixed load: each caller has a room of its own, queues, asks for positions, starts and completes; viewers watch.

Reported, without a bar. Settlements go to a wallet stub on the load's core.
"""

import json
from functools import partial

from app.domain.command import Role
from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column, Remark
from tests.bench.load.callers import Answer, Call, Caller, call
from tests.bench.load.crowd import crowd
from tests.bench.load.requests import Intakes, get, post
from tests.bench.load.wallet import wallet
from tests.bench.scale import Scale
from tests.bench.servers import FEATURE, token

NAME = "mixed"
VIEWERS = 1_000
WAITING = 5
"""Items in each room from the beginning."""
KINDS = ("intake", "position", "start", "complete")
COLUMNS = (
    Column(measure="rate", title="requests a second", digits=0, ranged=True),
    Column(measure="cpu_us", title="CPU µs a request", digits=0),
    *(Column(measure=f"{kind}_p50_ms", title=f"{kind} p50 ms") for kind in KINDS),
    *(Column(measure=f"{kind}_p99_ms", title=f"{kind} p99 ms") for kind in KINDS),
    Column(measure="deliveries", title="deliveries a second", digits=0),
)


def _turns(bench: Bench) -> list[Turn]:
    return [Turn(subject=OURS, take=partial(_ours, bench))]


def _case(bench: Bench) -> Case:
    title = f"Mixed: {bench.scale.callers} callers (intake, 4 × position, start, complete), {VIEWERS:,} viewers"
    return bench.ledger.case(NAME, NAME, title, COLUMNS)


def _ours(bench: Bench, round_number: int) -> None:
    rooms = bench.scale.callers
    with (
        wallet(bench.data, bench.load_core) as settings,
        servers.ours(bench.data, bench.server_core, settings) as server,
        crowd(bench.viewers, bench.load_core) as watching,
    ):
        filling = Intakes(rooms)
        call(server.port, [filling.caller() for _ in range(8)], calls=rooms * WAITING)
        per_room = -(-VIEWERS // rooms)
        watching.connect(server.port, "/v1/performers/room-%d/queue/live", VIEWERS, per_room=per_room)
        before = server.cpu()
        tally = call(server.port, [_caller(number) for number in range(rooms)], seconds=bench.scale.seconds_of_calls)
        cost = server.cpu() - before
        report = watching.report()
        latencies = {
            f"{kind}_{name}_ms": tally.percentile(share, kind) * 1000
            for kind in KINDS
            for name, share in (("p50", 0.5), ("p99", 0.99))
        }
        _case(bench).note(
            round_number,
            OURS,
            rate=tally.rate,
            cpu_us=cost / tally.calls * 1e6,
            deliveries=report.deliveries / tally.seconds,
            **latencies,
        )
        bench.check_calls(NAME, OURS, tally)
        if report.gaps or report.repeats or report.open != VIEWERS:
            text = f"viewers: {report.open} of {VIEWERS} stayed, {report.gaps} gaps, {report.repeats} repeats"
            bench.ledger.remark(Remark(scenario=NAME, kind="wrong", text=text))


def _caller(number: int) -> Caller:
    """One room's life, over and over."""
    room = f"room-{number}"
    intakes = Intakes(1)
    feature, performer = token(Role.FEATURE, FEATURE), token(Role.PERFORMER, room)
    while True:
        asked = intakes.next(room)
        answer: Answer = yield asked
        path = f"/v1/queue/items/{json.loads(answer.body)['itemId']}"
        for command in ("start", "complete"):
            for _ in range(2):
                yield Call("position", get(f"{path}/position", bearer=feature))
            yield Call(command, post(f"{path}/{command}", b"{}", bearer=performer))


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return ()


SCENARIO = Scenario(name=NAME, about="intake, start, complete, position, with viewers", turns=_turns, bars=_bars)
