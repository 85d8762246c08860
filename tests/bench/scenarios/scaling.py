"""The costs of one process, and of the database and Redis behind it: the figures of `bench.scaling`.

Everything is asked one at a time, as it comes to each of many processes: a busy process commits many intakes together
and each costs less. CPU is read from the process table, what is written from PostgreSQL itself.
"""

import json
import time
from contextlib import ExitStack
from functools import partial
from itertools import cycle

from app.domain.command import Role
from app.live.catch_up import POSITION_CHECK_SECONDS
from app.wire.frames import PING_SECONDS
from tests.bench import places
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import Bar, Column
from tests.bench.load.callers import Call, Caller, CallersError, call
from tests.bench.load.crowd import Crowd, crowd
from tests.bench.load.publishers import IntakePublisher
from tests.bench.load.requests import Intakes, get, post
from tests.bench.load.wallet import wallet
from tests.bench.places import Place, Shared, Spent
from tests.bench.scale import Scale
from tests.bench.scenarios.rooms import settle
from tests.bench.servers import Server, token

NAME = "scaling"
SQLITE, SHARED = "SQLite", "PostgreSQL and Redis"
LIVES = 200
"""Items that are queued, and as many that are also performed and settled."""
ROOMS = 40
CALLERS = 32
TOGETHER = 2_000
EVENTS = 100
PACE = 20.0
"""Events a second: slower than the coalescing window, so that each leaves by itself."""
LISTENERS = 50
LISTEN_SECONDS = 10.0
IDLE_SECONDS = 10.0
SETTLED_WITHIN = 30.0
PROCESS = (
    "What one process pays: rooms and viewers",
    (
        Column(measure="process_mb", title="the process: MB", digits=0),
        Column(measure="idle_ms", title="idle: CPU ms/s", digits=1),
        Column(measure="room_kb", title="a room: KB", digits=2),
        Column(measure="watched_kb", title="watched: KB", digits=1),
        Column(measure="check_us", title="a look at it: CPU µs", digits=1),
        Column(measure="viewer_kb", title="a viewer: KB", digits=1),
        Column(measure="viewer_us", title="CPU µs/s", digits=2),
        Column(measure="join_us", title="to join: CPU µs", digits=0),
        Column(measure="join_bytes", title="bytes", digits=0),
        Column(measure="open_us", title="as the first: more µs", digits=0),
    ),
)
WORK = (
    "What one process pays: items and events, CPU µs",
    (
        Column(measure="intake_us", title="an intake", digits=0, ranged=True),
        Column(measure="elsewhere_us", title="into another's room", digits=0),
        Column(measure="together_us", title="32 at once", digits=0),
        Column(measure="life_us", title="a whole item", digits=0, ranged=True),
        Column(measure="watch_us", title="another's event", digits=0, ranged=True),
        Column(measure="delivery_us", title="a delivery", digits=2, ranged=True),
        Column(measure="delivery_bytes", title="its bytes", digits=0),
    ),
)
DATABASE = (
    "What PostgreSQL pays, CPU µs",
    (
        Column(measure="database_intake_us", title="an intake", digits=0, ranged=True),
        Column(measure="database_elsewhere_us", title="into another's room", digits=0),
        Column(measure="database_together_us", title="32 at once", digits=0),
        Column(measure="database_life_us", title="a whole item", digits=0, ranged=True),
        Column(measure="database_open_us", title="a room's first viewer", digits=0),
        Column(measure="database_check_us", title="a look at a watched room", digits=2),
        Column(measure="database_idle_ms", title="an idle process: ms/s", digits=2),
    ),
)
WRITTEN = (
    "What PostgreSQL writes, and what goes over Redis",
    (
        Column(measure="intake_rows", title="an intake: rows", digits=1),
        Column(measure="intake_wal", title="WAL bytes", digits=0),
        Column(measure="life_commits", title="a whole item: commits", digits=1),
        Column(measure="life_rows", title="rows", digits=1),
        Column(measure="life_wal", title="WAL bytes", digits=0),
        Column(measure="redis_intake_us", title="Redis: an intake CPU µs", digits=0),
        Column(measure="redis_delivery_us", title="a message on", digits=1),
        Column(measure="redis_bytes", title="its bytes", digits=0),
    ),
)


def _turns(bench: Bench) -> list[Turn]:
    return [
        Turn(subject=SQLITE, take=partial(_sqlite, bench)),
        Turn(subject=SHARED, take=partial(_shared, bench)),
    ]


def _sqlite(bench: Bench, round_number: int) -> None:
    with (
        wallet(bench.data, bench.load_core) as settings,
        places.alone(bench.data, bench.server_core, settings) as place,
    ):
        noted = _rest(place) | _rooms(bench, place) | _items(place)
        noted |= _viewers(bench, place, noted["intake_us"])
        noted |= _idle_viewer(bench, noted)
    _note(bench, round_number, SQLITE, noted)


def _shared(bench: Bench, round_number: int) -> None:
    cores = [bench.server_core, bench.server_core]
    with wallet(bench.data, bench.load_core) as settings, places.shared(bench.data, cores, settings) as place:
        noted = _rest(place) | _rooms(bench, place) | _items(place) | _writes(place) | _elsewhere(place)
        noted |= _viewers(bench, place, noted["intake_us"]) | _watching(bench, place)
        noted |= _idle_viewer(bench, noted)
        noted |= _checks(bench, place, noted)
    _note(bench, round_number, SHARED, noted)


def _note(bench: Bench, round_number: int, subject: str, noted: dict[str, float]) -> None:
    # SQLite computes in the process: nothing is behind it.
    for title, columns in (PROCESS, WORK, DATABASE, WRITTEN) if subject is SHARED else (PROCESS, WORK):
        shown = {column.measure for column in columns} & noted.keys()
        case = bench.ledger.case(NAME, title, title, columns)
        case.note(round_number, subject, **{name: noted[name] for name in shown})


# An idle process, and rooms that nobody watches


def _rest(place: Place) -> dict[str, float]:
    _ask(place.servers[0], [Intakes(ROOMS, prefix="warm").caller()], calls=2 * ROOMS)
    spent = _while_idle(place, IDLE_SECONDS)
    count = len(place.servers)
    return {
        "process_mb": place.servers[0].memory() / 2**20,
        "idle_ms": spent.service / count / IDLE_SECONDS * 1e3,
        "database_idle_ms": spent.database / count / IDLE_SECONDS * 1e3,
    }


def _while_idle(place: Place, seconds: float) -> Spent:
    before = place.spent()
    time.sleep(seconds)
    return place.spent() - before


def _rooms(bench: Bench, place: Place) -> dict[str, float]:
    server, count = place.servers[0], bench.scale.idle_rooms
    settle(server, "first", 500)
    before = server.memory()
    settle(server, "idle", count)
    return {"room_kb": (server.memory() - before) / count / 1024}


def _ask(server: Server, callers: list[Caller], *, calls: int | None = None, rate: float | None = None) -> None:
    """Raises CallersError unless everything was answered with success."""
    tally = call(server.port, callers, calls=calls, rate=rate)
    if tally.failures:
        raise CallersError(f"answers {dict(sorted(tally.statuses.items()))}")


# Intakes and whole items, in rooms that nobody watches


def _items(place: Place) -> dict[str, float]:
    server, intakes = place.servers[0], Intakes(ROOMS, prefix="unwatched")
    _ask(server, [intakes.caller()], calls=ROOMS)
    before = place.spent()
    _ask(server, [intakes.caller()], calls=LIVES)
    alone = place.spent() - before
    before = place.spent()
    _ask(server, [intakes.caller() for _ in range(CALLERS)], calls=TOGETHER)
    together = place.spent() - before
    _live(server, "life", ROOMS)
    before = place.spent()
    _live(server, "life", LIVES)
    whole = place.spent() - before
    return {
        "intake_us": alone.service / LIVES * 1e6,
        "together_us": together.service / TOGETHER * 1e6,
        "life_us": whole.service / LIVES * 1e6,
        "database_intake_us": alone.database / LIVES * 1e6,
        "database_together_us": together.database / TOGETHER * 1e6,
        "database_life_us": whole.database / LIVES * 1e6,
        "redis_intake_us": alone.redis / LIVES * 1e6,
    }


def _live(server: Server, prefix: str, lives: int) -> None:
    """Items that are queued, started and completed one after the other, until all of them are settled."""
    _ask(server, [_lives(prefix, lives)])
    deadline = time.monotonic() + SETTLED_WITHIN
    pending = True
    while pending and time.monotonic() < deadline:
        time.sleep(0.05)
        answers: list[int] = []
        _ask(server, [_open_operations(answers)])
        pending = any(answers)


def _lives(prefix: str, lives: int) -> Caller:
    intakes = Intakes(ROOMS, prefix=prefix)
    for number in range(lives):
        room = f"{prefix}-{number % ROOMS}"
        performer = token(Role.PERFORMER, room)
        answer = yield intakes.next(room)
        path = f"/v1/queue/items/{json.loads(answer.body)['itemId']}"
        for command in ("start", "complete"):
            yield Call(command, post(f"{path}/{command}", b"{}", bearer=performer))


def _open_operations(found: list[int]) -> Caller:
    bearer = token(Role.ADMIN, "bench")
    for status in ("pending", "retrying"):
        answer = yield Call("look", get(f"/v1/admin/wallet-operations?status={status}&limit=1", bearer=bearer))
        found.append(json.loads(answer.body)["total"])


def _writes(place: Shared) -> dict[str, float]:
    """Rows and log of an intake and of a whole item; each statement that writes writes one row."""
    server, intakes = place.servers[0], Intakes(ROOMS, prefix="written")
    _ask(server, [intakes.caller()], calls=ROOMS)
    before = place.written()
    _ask(server, [intakes.caller()], calls=LIVES)
    between = place.written()
    _live(server, "life", LIVES)
    after = place.written()
    with place.statements() as for_intakes:
        _ask(server, [intakes.caller()], calls=ROOMS)
    with place.statements() as for_lives:
        _live(server, "life", ROOMS)
    return {
        "intake_rows": len(for_intakes) / ROOMS,
        "intake_wal": (between.wal_bytes - before.wal_bytes) / LIVES,
        "life_commits": (after.commits - between.commits) / LIVES,
        "life_rows": len(for_lives) / ROOMS,
        "life_wal": (after.wal_bytes - between.wal_bytes) / LIVES,
    }


def _elsewhere(place: Shared) -> dict[str, float]:
    """Intakes into rooms that another process has changed since this one's last change."""
    intakes = Intakes(ROOMS, prefix="shared")
    turns = cycle(place.servers)
    _ask(next(turns), [intakes.caller()], calls=ROOMS)
    _ask(next(turns), [intakes.caller()], calls=ROOMS)
    rounds = LIVES // ROOMS
    before = place.spent()
    for _ in range(rounds):
        _ask(next(turns), [intakes.caller()], calls=ROOMS)
    spent = place.spent() - before
    return {
        "elsewhere_us": spent.service / (rounds * ROOMS) * 1e6,
        "database_elsewhere_us": spent.database / (rounds * ROOMS) * 1e6,
    }


# Viewers


def _viewers(bench: Bench, place: Place, intake_us: float) -> dict[str, float]:
    """The costs of viewers of one room on one process: idle ones, new ones, and a broadcast."""
    server, viewers = place.servers[0], bench.scale.crowd_for_memory
    _ask(server, [Intakes(1, prefix="stage").caller()], calls=5)
    with crowd(bench.viewers, bench.load_core) as watching:
        resting, before = server.memory(), server.cpu()
        watching.connect(server.port, "/v1/performers/stage-0/queue/live", viewers)
        joined, seen = server.cpu() - before, watching.report()
        # Each of them is pinged once in this time.
        idle = _while_idle(place, PING_SECONDS)
        return {
            "viewer_kb": (server.memory() - resting) / viewers / 1024,
            "join_us": joined / viewers * 1e6,
            "join_bytes": seen.bytes / viewers,
            "viewers_idle_ms": idle.processes[0] / PING_SECONDS * 1e3,
        } | _deliveries(bench, place, watching, intake_us)


def _idle_viewer(bench: Bench, noted: dict[str, float]) -> dict[str, float]:
    """The cost of an idle viewer: pings and their answers."""
    return {"viewer_us": (noted["viewers_idle_ms"] - noted["idle_ms"]) / bench.scale.crowd_for_memory * 1e3}


def _deliveries(bench: Bench, place: Place, watching: Crowd, intake_us: float) -> dict[str, float]:
    server, viewers = place.servers[0], bench.scale.crowd_for_memory
    publisher = IntakePublisher(server, prefix="stage")
    watching.reset()
    before = server.cpu()
    for number in range(1, EVENTS + 1):
        publisher.publish(1)
        watching.wait(number * viewers)
    spent, report = server.cpu() - before, watching.report()
    publisher.close()
    bench.check(NAME, SHARED if isinstance(place, Shared) else SQLITE, report, viewers=viewers, events=EVENTS)
    return {
        "delivery_us": (spent * 1e6 - EVENTS * intake_us) / (EVENTS * viewers),
        "delivery_bytes": report.bytes / (EVENTS * viewers),
    }


# Events of another process


def _watching(bench: Bench, place: Shared) -> dict[str, float]:
    """Intakes at one process into rooms that one viewer each watches at the other; less what nobody watches."""
    ours, theirs = place.servers
    intakes, unwatched = Intakes(ROOMS, prefix="far"), Intakes(ROOMS, prefix="nobody")
    _ask(ours, [intakes.caller()], calls=ROOMS)
    _ask(ours, [unwatched.caller()], calls=ROOMS)
    with crowd(bench.viewers, bench.load_core) as watching:
        watching.connect(theirs.port, "/v1/performers/far-%d/queue/live", ROOMS, per_room=1)
        before = place.spent()
        _ask(ours, [unwatched.caller()], calls=EVENTS, rate=PACE)
        quiet = place.spent() - before
        watching.reset()
        sent, before = _sent_by_redis(place), place.spent()
        _ask(ours, [intakes.caller()], calls=EVENTS, rate=PACE)
        watching.wait(EVENTS)
        loud, bytes_sent = place.spent() - before, _sent_by_redis(place) - sent
    size = bytes_sent / EVENTS
    return {
        "watch_us": (loud.processes[1] - quiet.processes[1]) / EVENTS * 1e6,
        "redis_delivery_us": _passed_on(place, round(size)) * 1e6,
        "redis_bytes": size,
    }


def _passed_on(place: Shared, size: int) -> float:
    """CPU seconds that Redis takes to pass a message on to one more listener: many listeners less none, as with one
    listener the difference is lost in the noise."""
    with place.valkey.client() as redis, ExitStack() as stack:
        listeners = [stack.enter_context(redis.pubsub()) for _ in range(LISTENERS)]
        for listener in listeners:
            listener.ssubscribe("heard")
            listener.get_message(timeout=LISTEN_SECONDS)
        spent = dict.fromkeys(("unheard", "heard"), 0.0)
        for channel in spent:
            before = place.spent()
            for _ in range(EVENTS):
                redis.spublish(channel, b"x" * size)
                if channel == "heard":
                    for listener in listeners:
                        assert listener.get_message(timeout=LISTEN_SECONDS)["type"] == "smessage"
            spent[channel] = (place.spent() - before).redis
    return (spent["heard"] - spent["unheard"]) / EVENTS / LISTENERS


def _sent_by_redis(place: Shared) -> int:
    with place.valkey.client() as redis:
        return int(redis.info("stats")["total_net_output_bytes"])


def _checks(bench: Bench, place: Shared, noted: dict[str, float]) -> dict[str, float]:
    """Rooms that somebody begins to watch, and then are compared with the database now and again, whatever happens."""
    server, count = place.servers[1], bench.scale.idle_rooms
    memory, before = server.memory(), place.spent()
    with crowd(bench.viewers, bench.load_core) as watching:
        watching.connect(server.port, "/v1/performers/idle-%d/queue/live", count, per_room=1)
        memory, opened = server.memory() - memory, place.spent() - before
        spent = _while_idle(place, PING_SECONDS)
    looks = count * PING_SECONDS / POSITION_CHECK_SECONDS
    processes = len(place.servers)
    resting = noted["idle_ms"] / 1e3 * PING_SECONDS + noted["viewer_us"] / 1e6 * count * PING_SECONDS
    return {
        "open_us": opened.processes[1] / count * 1e6 - noted["join_us"],
        "database_open_us": opened.database / count * 1e6,
        "watched_kb": memory / count / 1024 - noted["viewer_kb"],
        "check_us": (spent.processes[1] - resting) / looks * 1e6,
        "database_check_us": (spent.database - noted["database_idle_ms"] / 1e3 * PING_SECONDS * processes)
        / looks
        * 1e6,
    }


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return ()


SCENARIO = Scenario(
    name=NAME, about="what a room, a viewer, an item and an event cost", turns=_turns, bars=_bars, rounds=3
)
