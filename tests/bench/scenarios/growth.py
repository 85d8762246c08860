"""Growth: what a command costs after a short history and after a long one, both built in bulk.

Cold: the first command of a room since the start, which has to load the room. Warm: the ones after it.
"""

import json
import shutil
from functools import partial
from pathlib import Path

from app.domain.command import Role
from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import Bar, Case, Column
from tests.bench.load.callers import Answer, Call, Caller, call
from tests.bench.load.history import History, build
from tests.bench.load.requests import Intakes, get, post
from tests.bench.load.wallet import wallet
from tests.bench.scale import Scale
from tests.bench.servers import Server, token

NAME = "growth"
SHORT = 1_000
ROOMS = 250
CALLERS = 25
ITEMS_A_CALLER = 40
COLUMNS = (
    Column(measure="cold_us", title="a room's first intake: CPU µs", digits=0, ranged=True),
    Column(measure="warm_us", title="a command after it: CPU µs", digits=0, ranged=True),
    Column(measure="history_us", title="a page of history: CPU µs", digits=0),
    Column(measure="warm_p50_ms", title="a command p50 ms", digits=2),
    Column(measure="warm_p99_ms", title="p99 ms", digits=2),
    Column(measure="database_mb", title="database MB", digits=0),
)


def _subject(events: int) -> str:
    return f"after {events:,} events"


def _turns(bench: Bench) -> list[Turn]:
    turns = []
    for events in (SHORT, bench.scale.history_events):
        folder = bench.data / f"{NAME}-{events}"
        shutil.rmtree(folder, ignore_errors=True)
        history = build(folder, events=events, rooms=ROOMS, core=bench.server_core)
        turns.append(Turn(subject=_subject(events), take=partial(_take, bench, history, events)))
    return turns


def _finish(bench: Bench) -> None:
    for folder in bench.data.glob(f"{NAME}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _case(bench: Bench) -> Case:
    reference = ("warm_us", _subject(SHORT))
    return bench.ledger.case(
        NAME, NAME, "Growth: the cost of a command and the length of the history", COLUMNS, reference
    )


def _take(bench: Bench, history: History, events: int, round_number: int) -> None:
    with wallet(bench.data, bench.load_core) as settings:
        server = servers.start_ours(history.folder, bench.server_core, settings)
        try:
            _note(bench, history, _subject(events), round_number, server)
        finally:
            server.stop()


def _note(bench: Bench, history: History, subject: str, round_number: int, server: Server) -> None:
    intakes = Intakes(1)
    first = (intakes.next(history.room(number)) for number in range(history.rooms))

    def one_each() -> Caller:
        while (asked := next(first, None)) is not None:
            yield asked

    # Something else first, so that "cold" is the room and not the process.
    call(server.port, [Intakes(20, prefix="warming").caller() for _ in range(CALLERS)], calls=300)
    before = server.cpu()
    cold = call(server.port, [one_each() for _ in range(CALLERS)])
    cold_cpu = server.cpu() - before
    before = server.cpu()
    warm = call(server.port, [_commands(history.room(number), intakes) for number in range(CALLERS)])
    warm_cpu = server.cpu() - before
    before = server.cpu()
    pages = call(server.port, [_pages(history.room(number)) for number in range(CALLERS)])
    _case(bench).note(
        round_number,
        subject,
        cold_us=cold_cpu / cold.calls * 1e6,
        warm_us=warm_cpu / warm.calls * 1e6,
        history_us=(server.cpu() - before) / pages.calls * 1e6,
        warm_p50_ms=warm.percentile(0.5) * 1000,
        warm_p99_ms=warm.percentile(0.99) * 1000,
        database_mb=_size(history.folder) / 2**20,
    )
    for tally in (cold, warm, pages):
        bench.check_calls(NAME, subject, tally)


def _commands(room: str, intakes: Intakes) -> Caller:
    performer = token(Role.PERFORMER, room)
    for _ in range(ITEMS_A_CALLER):
        answer: Answer = yield intakes.next(room)
        path = f"/v1/queue/items/{json.loads(answer.body)['itemId']}"
        for command in ("start", "complete"):
            yield Call(command, post(f"{path}/{command}", b"{}", bearer=performer))


def _pages(room: str) -> Caller:
    performer = token(Role.PERFORMER, room)
    for _ in range(4):
        yield Call("history", get(f"/v1/performers/{room}/queue/history?limit=20", bearer=performer))
    yield Call("events", get(f"/v1/events?limit=20&performerId={room}", bearer=performer))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.db*"))


def _bars(scale: Scale) -> tuple[Bar, ...]:
    long, short = _subject(scale.history_events), _subject(SHORT)
    return (
        Bar(case=NAME, text="CPU a command × short", measure="warm_us", subject=long, against=short, at_most=1.15),
        Bar(case=NAME, text="CPU a first intake × short", measure="cold_us", subject=long, against=short, at_most=1.5),
    )


SCENARIO = Scenario(
    name=NAME,
    about="cost of a command after short and long history",
    turns=_turns,
    bars=_bars,
    rounds=3,
    finish=_finish,
)
