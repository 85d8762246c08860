"""Many small rooms: what a delivery costs there, what a room costs that nobody watches, what an idle one weighs.

An intake costs far more than the five deliveries it leads to, so the deliveries' share is the difference to the same
intakes into rooms that nobody watches.
"""

import json
from functools import partial

from app.domain.command import Role
from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column
from tests.bench.load.callers import Call, Caller, call
from tests.bench.load.crowd import crowd
from tests.bench.load.requests import Intakes, post
from tests.bench.scale import Scale
from tests.bench.servers import Server, token

NAME = "rooms"
ONE_ROOM_VIEWERS = 1_000
ONE_ROOM_EVENTS = 100
CALLERS = 32
COLUMNS = (
    Column(measure="delivery_us", title="CPU µs a delivery, small rooms", digits=2, ranged=True),
    Column(measure="one_room_us", title="in one room", digits=2),
    Column(measure="watched_us", title="an intake, watched: CPU µs", digits=0),
    Column(measure="unwatched_us", title="not watched", digits=0, ranged=True),
    Column(measure="alone_us", title="no sockets at all", digits=0),
    Column(measure="idle_kb", title="an idle room: KB", digits=2, ranged=True),
    Column(measure="waiting_kb", title="with an item: KB", digits=2),
)


def _case(bench: Bench) -> Case:
    scale = bench.scale
    title = f"Many rooms: {scale.rooms:,} × {scale.viewers_a_room} viewers, {scale.idle_rooms:,} rooms without"
    return bench.ledger.case(NAME, NAME, title, COLUMNS)


def _turns(bench: Bench) -> list[Turn]:
    return [Turn(subject=OURS, take=partial(_ours, bench)), Turn(subject=OURS, take=partial(_weights, bench))]


def _ours(bench: Bench, round_number: int) -> None:
    scale = bench.scale
    viewers, events = scale.rooms * scale.viewers_a_room, 2 * scale.rooms
    with (
        servers.ours(bench.data, bench.server_core) as server,
        crowd(bench.viewers, bench.load_core) as many,
        crowd(bench.viewers, bench.load_core) as one,
    ):
        _cost(server, Intakes(scale.rooms, prefix="warm"), scale.rooms)
        alone = _cost(server, Intakes(scale.rooms, prefix="alone"), events)
        many.connect(server.port, "/v1/performers/room-%d/queue/live", viewers, per_room=scale.viewers_a_room)
        one.connect(server.port, "/v1/performers/single-0/queue/live", ONE_ROOM_VIEWERS)

        unwatched = _cost(server, Intakes(scale.rooms, prefix="unwatched"), events)
        many.reset()
        before = server.cpu()
        _cost(server, Intakes(scale.rooms), events)
        many.wait(events * scale.viewers_a_room)
        watched = (server.cpu() - before) / events
        bench.check(NAME, OURS, many.report(), viewers=viewers, events=2)

        singly = _one_by_one(server, "lonely")
        one.reset()
        before = server.cpu()
        _one_by_one(server, "single")
        one.wait(ONE_ROOM_EVENTS * ONE_ROOM_VIEWERS)
        in_one = (server.cpu() - before) / ONE_ROOM_EVENTS
        bench.check(NAME, OURS, one.report(), viewers=ONE_ROOM_VIEWERS, events=ONE_ROOM_EVENTS)
        _case(bench).note(
            round_number,
            OURS,
            delivery_us=(watched - unwatched) / scale.viewers_a_room * 1e6,
            one_room_us=(in_one - singly) / ONE_ROOM_VIEWERS * 1e6,
            watched_us=watched * 1e6,
            unwatched_us=unwatched * 1e6,
            alone_us=alone * 1e6,
        )


def _cost(server: Server, intakes: Intakes, events: int) -> float:
    """CPU seconds an intake."""
    before = server.cpu()
    call(server.port, [intakes.caller() for _ in range(CALLERS)], calls=events)
    return (server.cpu() - before) / events


def _one_by_one(server: Server, room: str) -> float:
    """CPU seconds an intake into one room, at a pace at which each event leaves by itself."""
    before = server.cpu()
    intakes = Intakes(1, prefix=room)
    call(server.port, [intakes.caller()], calls=ONE_ROOM_EVENTS, rate=15)
    return (server.cpu() - before) / ONE_ROOM_EVENTS


def _weights(bench: Bench, round_number: int) -> None:
    count = bench.scale.idle_rooms
    with servers.ours(bench.data, bench.server_core) as server:
        settle(server, "first", 500)
        call(server.port, [Intakes(500, prefix="first").caller() for _ in range(CALLERS)], calls=500)
        before = server.memory()
        settle(server, "idle", count)
        idle = server.memory()
        intakes = Intakes(count, prefix="waiting")
        call(server.port, [intakes.caller() for _ in range(CALLERS)], calls=count)
        _case(bench).note(
            round_number,
            OURS,
            idle_kb=(idle - before) / count / 1024,
            waiting_kb=(server.memory() - idle) / count / 1024,
        )


def settle(server: Server, prefix: str, count: int) -> None:
    """Make rooms that have nothing but settings."""
    body = json.dumps({"announcement": "Back at nine"}).encode()
    bearer = token(Role.ADMIN, "bench")

    def caller(first: int) -> Caller:
        for number in range(first, count, CALLERS):
            path = f"/v1/performers/{prefix}-{number}/queue"
            yield Call("settings", post(path, body, bearer=bearer).replace(b"POST", b"PATCH", 1))

    call(server.port, [caller(first) for first in range(CALLERS)])


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return (
        Bar(
            case=NAME,
            text="CPU a delivery × the one-room figure",
            measure="delivery_us",
            against_measure="one_room_us",
            at_most=1.5,
        ),
        Bar(
            case=NAME,
            text="an unwatched intake × one without any sockets",
            measure="unwatched_us",
            against_measure="alone_us",
            at_most=1.1,
        ),
        Bar(case=NAME, text="KB an idle room", measure="idle_kb", at_most=4),
    )


SCENARIO = Scenario(name=NAME, about="2,000 rooms of 5 viewers, and idle ones", turns=_turns, bars=_bars)
