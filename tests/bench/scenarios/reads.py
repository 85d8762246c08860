"""Reads: an item's position and a room's queue, against two ceilings: the requests that the same stack answers without
a database after validation (the ceiling of the intake scenario), and the same reads answered from constants."""

import json
from collections.abc import Callable
from functools import partial

from app.domain.command import Role
from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column
from tests.bench.load.callers import Answer, Call, Caller, call
from tests.bench.load.requests import Intakes, get
from tests.bench.peers import preparing
from tests.bench.peers.catalogue import NO_DATABASE, OWN_EDGE, OWN_EDGE_ARGUMENT
from tests.bench.peers.preparing import Prepared
from tests.bench.scale import Scale
from tests.bench.servers import FEATURE, Server, token

NAME = "reads"
ROOMS = 50
ITEMS_A_ROOM = 10
"""As many as the ceiling's room has."""
WARM_UP_CALLS = 200
COLUMNS = (
    Column(measure="rate", title="requests a second", digits=0, ranged=True),
    Column(measure="cpu_us", title="CPU µs a request", digits=0),
    Column(measure="p50_ms", title="p50 ms", digits=2),
    Column(measure="p99_ms", title="p99 ms", digits=2),
)
KINDS = ("position", "queue")
INTAKES = f"{NO_DATABASE.name}, its intakes"
CEILINGS: tuple[tuple[str, tuple[str, ...]], ...] = ((NO_DATABASE.name, ()), (OWN_EDGE, (OWN_EDGE_ARGUMENT,)))
"""With what they are started with."""


def _case(bench: Bench, kind: str) -> Case:
    title = f"Reads: {kind}, {bench.scale.callers} callers, {ITEMS_A_ROOM} items a room"
    return bench.ledger.case(NAME, f"{NAME} {kind}", title, COLUMNS, ("cpu_us", NO_DATABASE.name))


def _turns(bench: Bench) -> list[Turn]:
    turns = [Turn(subject=OURS, take=partial(_ours, bench))]
    if NO_DATABASE.name in bench.peers:
        prepared = preparing.prepare(NO_DATABASE, bench.cache)
        for subject, arguments in CEILINGS:
            turns.append(Turn(subject=subject, take=partial(_no_database, bench, prepared, subject, arguments)))
    return turns


def _ours(bench: Bench, round_number: int) -> None:
    with servers.ours(bench.data, bench.server_core) as server:
        items: list[str] = []

        def fill(caller: Caller) -> Caller:
            answer: Answer = yield next(caller)
            items.append(json.loads(answer.body)["itemId"])

        intakes = Intakes(ROOMS)
        # One after the other, so that each room has what it should.
        for _ in range(ROOMS * ITEMS_A_ROOM // 50):
            call(server.port, [fill(intakes.caller()) for _ in range(50)])
        _drive(bench, round_number, OURS, server, items)


def _no_database(bench: Bench, prepared: Prepared, subject: str, arguments: tuple[str, ...], round_number: int) -> None:
    with preparing.running(prepared, bench.data, bench.server_core, *arguments) as server:
        items = [f"i-{number}" for number in range(ROOMS * ITEMS_A_ROOM)]
        _drive(bench, round_number, subject, server, items)
        if subject == NO_DATABASE.name:
            intakes = Intakes(ROOMS)
            figures = _measured(bench, INTAKES, server, lambda start: intakes.caller())
            for kind in KINDS:
                _case(bench, kind).note(round_number, INTAKES, **figures)


def _drive(bench: Bench, round_number: int, subject: str, server: Server, items: list[str]) -> None:
    bearer = token(Role.FEATURE, FEATURE)
    requests = {
        "position": [get(f"/v1/queue/items/{item}/position", bearer=bearer) for item in items],
        "queue": [get(f"/v1/performers/room-{number}/queue") for number in range(ROOMS)],
    }
    for kind in KINDS:

        def reader(start: int, kind: str = kind) -> Caller:
            while True:
                yield Call(kind, requests[kind][start % len(requests[kind])])
                start += 7

        _case(bench, kind).note(round_number, subject, **_measured(bench, subject, server, reader))


def _measured(bench: Bench, subject: str, server: Server, caller: Callable[[int], Caller]) -> dict[str, float]:
    """`caller` makes the one with this number."""
    call(server.port, [caller(start) for start in range(8)], calls=WARM_UP_CALLS)
    before = server.cpu()
    tally = call(
        server.port, [caller(start) for start in range(bench.scale.callers)], seconds=bench.scale.seconds_of_calls
    )
    bench.check_calls(NAME, subject, tally)
    return {
        "rate": tally.rate,
        "cpu_us": (server.cpu() - before) / tally.calls * 1e6,
        "p50_ms": tally.percentile(0.5) * 1000,
        "p99_ms": tally.percentile(0.99) * 1000,
    }


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return tuple(
        Bar(case=f"{NAME} {kind}", text=f"rate × {ceiling}", measure="rate", against=ceiling, at_least=0.8)
        for kind in KINDS
        for ceiling in (INTAKES, *(subject for subject, _ in CEILINGS))
    )


SCENARIO = Scenario(name=NAME, about="position and queue, against the ceiling", turns=_turns, bars=_bars)
