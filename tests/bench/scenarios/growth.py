"""Growth: what a command costs after a short history and after a long one, both built in bulk.

A room's first intake since the start has to load the room; a later one into each room follows it. Commands are an
item's life: an intake, a start and a completion, with the wallet's answer.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial

from app.domain.command import Role
from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import Bar, Case, Column
from tests.bench.load.callers import Answer, Call, Caller, Tally, call
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
PAGES_A_CALLER = 10
COLUMNS = (
    Column(measure="first_us", title="a room's first intake: CPU µs", digits=0, ranged=True),
    Column(measure="later_us", title="a later one: CPU µs", digits=0, ranged=True),
    Column(measure="command_us", title="a command: CPU µs", digits=0, ranged=True),
    Column(measure="history_us", title="a page of history: CPU µs", digits=0),
    Column(measure="events_us", title="of events: CPU µs", digits=0),
    Column(measure="command_p50_ms", title="a command p50 ms", digits=2),
    Column(measure="command_p99_ms", title="p99 ms", digits=2),
    Column(measure="start_seconds", title="started in s", digits=2),
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
    reference = ("command_us", _subject(SHORT))
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

    def cost(callers: Sequence[Caller], calls: int | None = None) -> tuple[float, Tally]:
        """CPU µs of a call, and the calls' tally."""
        before = server.cpu()
        tally = call(server.port, callers, calls=calls)
        bench.check_calls(NAME, subject, tally)
        return (server.cpu() - before) / tally.calls * 1e6, tally

    def one_into_each_room() -> list[Caller]:
        each = (intakes.next(history.room(number)) for number in range(history.rooms))
        return [_shared(each) for _ in range(CALLERS)]

    rooms = [history.room(number) for number in range(CALLERS)]
    # Something else first, so that the first intake is the room's and not the process's.
    cost([Intakes(20, prefix="warming").caller() for _ in range(CALLERS)], calls=300)
    first_us, _ = cost(one_into_each_room())
    later_us, _ = cost(one_into_each_room())
    command_us, commands = cost([_commands(room, intakes) for room in rooms])
    history_us, _ = cost([_pages(room, f"/v1/performers/{room}/queue/history?limit=20") for room in rooms])
    events_us, _ = cost([_pages(room, f"/v1/events?limit=20&performerId={room}") for room in rooms])
    _case(bench).note(
        round_number,
        subject,
        first_us=first_us,
        later_us=later_us,
        command_us=command_us,
        history_us=history_us,
        events_us=events_us,
        command_p50_ms=commands.percentile(0.5) * 1000,
        command_p99_ms=commands.percentile(0.99) * 1000,
        start_seconds=server.started_in,
        database_mb=history.size() / 2**20,
    )


def _shared(calls: Iterator[Call]) -> Caller:
    """A caller that takes its calls from those of all."""
    while (asked := next(calls, None)) is not None:
        yield asked


def _commands(room: str, intakes: Intakes) -> Caller:
    performer = token(Role.PERFORMER, room)
    for _ in range(ITEMS_A_CALLER):
        answer: Answer = yield intakes.next(room)
        path = f"/v1/queue/items/{json.loads(answer.body)['itemId']}"
        for command in ("start", "complete"):
            yield Call(command, post(f"{path}/{command}", b"{}", bearer=performer))


def _pages(room: str, path: str) -> Caller:
    for _ in range(PAGES_A_CALLER):
        yield Call("page", get(path, bearer=token(Role.PERFORMER, room)))


def _bars(scale: Scale) -> tuple[Bar, ...]:
    long, short = _subject(scale.history_events), _subject(SHORT)
    return (
        Bar(case=NAME, text="CPU a command × short", measure="command_us", subject=long, against=short, at_most=1.15),
        Bar(
            case=NAME, text="CPU a page of events × short", measure="events_us", subject=long, against=short, at_most=2
        ),
        Bar(
            case=NAME,
            text="CPU a first intake × a later one",
            measure="first_us",
            subject=long,
            against_measure="later_us",
            at_most=2,
        ),
    )


SCENARIO = Scenario(
    name=NAME,
    about="cost of a command after short and long history",
    turns=_turns,
    bars=_bars,
    rounds=3,
    finish=_finish,
)
