"""Retention: what it costs to remove items of long ago, and what callers notice of it meanwhile."""

import json
import os
import shutil
from functools import partial

from app.domain.command import Role
from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import Bar, Case, Column
from tests.bench.load.callers import Answer, Call, Caller, Tally, call
from tests.bench.load.history import History, build
from tests.bench.load.requests import Intakes, post
from tests.bench.load.wallet import wallet
from tests.bench.scale import Scale
from tests.bench.servers import Server, token

NAME = "retention"
ROOMS = 250
DAYS_AGO = 2
CALLERS = 20
CALLS_A_SECOND = 60.0
"""A third of them intakes, the others a start and a completion of each item."""
WARM_UP_SECONDS = 3.0
KEPT, REMOVED = "all is kept", "what is a day old goes"
COLUMNS = (
    Column(measure="removed_a_second", title="items removed a second", digits=0),
    Column(measure="cpu_percent", title="CPU % of a core", digits=0, ranged=True),
    Column(measure="removed_us", title="an item removed: CPU µs", digits=0, ranged=True),
    Column(measure="intake_p50_ms", title="an intake meanwhile p50 ms", ranged=True),
    Column(measure="intake_p99_ms", title="p99 ms", ranged=True),
    Column(measure="longest_ms", title="longest ms", digits=0),
    Column(measure="database_mb", title="database MB", digits=0),
)


def _turns(bench: Bench) -> list[Turn]:
    folder = bench.data / NAME
    shutil.rmtree(folder, ignore_errors=True)
    history = build(folder, events=bench.scale.history_events, rooms=ROOMS, core=bench.server_core, days_ago=DAYS_AGO)
    return [Turn(subject=KEPT, take=partial(_take, bench, history))]


def _finish(bench: Bench) -> None:
    shutil.rmtree(bench.data / NAME, ignore_errors=True)


def _case(bench: Bench) -> Case:
    title = f"Retention: of {bench.scale.history_events:,} events, beside {CALLS_A_SECOND:.0f} calls a second"
    return bench.ledger.case(NAME, NAME, title, COLUMNS)


def _take(bench: Bench, history: History, round_number: int) -> None:
    """With and without, one after the other: the CPU of a removal is the difference."""
    kept, _ = _measure(bench, history, round_number, KEPT, days=0)
    cpu, removed = _measure(bench, history, round_number, REMOVED, days=1)
    if removed:
        _case(bench).note(round_number, REMOVED, removed_us=(cpu - kept) / removed * 1e6)


def _measure(bench: Bench, history: History, round_number: int, subject: str, *, days: int) -> tuple[float, int]:
    """The CPU seconds of a stretch of time, and how many items were removed in it."""
    seconds = bench.scale.seconds_of_retention
    with wallet(bench.data, bench.load_core) as settings:
        server = servers.start_ours(history.folder, bench.server_core, {**settings, "RETENTION_DAYS": str(days)})
        try:
            # The items that wait since then are refunded at the start.
            _calls(server, WARM_UP_SECONDS)
            items, before = history.ended_items(), server.cpu()
            tally = _calls(server, seconds)
            cpu, removed = server.cpu() - before, items - history.ended_items()
        finally:
            server.stop()
    bench.check_calls(NAME, subject, tally)
    _case(bench).note(
        round_number,
        subject,
        removed_a_second=removed / seconds,
        cpu_percent=cpu / seconds * 100,
        intake_p50_ms=tally.percentile(0.5, "intake") * 1000,
        intake_p99_ms=tally.percentile(0.99, "intake") * 1000,
        longest_ms=tally.percentile(1, "intake") * 1000,
        database_mb=history.size() / 2**20,
    )
    return cpu, removed


def _calls(server: Server, seconds: float) -> Tally:
    # Into other rooms each time: what was started when the time was over stands in nobody's way.
    intakes = Intakes(200, prefix=f"live-{os.urandom(3).hex()}")
    return call(server.port, [_lives(intakes) for _ in range(CALLERS)], seconds=seconds, rate=CALLS_A_SECOND)


def _lives(intakes: Intakes) -> Caller:
    """Items from their intake to their end, one after the other."""
    while True:
        answer: Answer = yield intakes.next()
        item = json.loads(answer.body)
        bearer = token(Role.PERFORMER, item["performerId"])
        for command in ("start", "complete"):
            yield Call(command, post(f"/v1/queue/items/{item['itemId']}/{command}", b"{}", bearer=bearer))


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return (
        Bar(case=NAME, text="an intake p99 ms", measure="intake_p99_ms", subject=REMOVED, at_most=50),
        Bar(case=NAME, text="items removed a second", measure="removed_a_second", subject=REMOVED, at_least=150),
    )


SCENARIO = Scenario(
    name=NAME,
    about="removing items of long ago beside traffic",
    turns=_turns,
    bars=_bars,
    rounds=3,
    finish=_finish,
)
