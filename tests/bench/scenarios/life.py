"""An item's life before the viewers of one room: frames and bytes each of them gets, plain and compressed, and the CPU.

An item is taken in, started, completed and settled; the settlement is none of the viewers' business. The viewers of one
turn offer permessage-deflate, those of the other do not.
"""

import json
import time
from functools import partial

from app.domain.command import Role
from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import Bar, Case, Column
from tests.bench.load.callers import Call, Caller, call
from tests.bench.load.crowd import Crowd, Report, crowd
from tests.bench.load.requests import Intakes, post
from tests.bench.scale import Scale
from tests.bench.servers import Server, token

NAME = "life"
PLAIN, COMPRESSED = "plain", "compressed"
ROOM = "room-0"
WARM_UP = 3
ITEMS = 30
PAUSE_SECONDS = 0.1
"""Between two commands, so that each event leaves by itself: longer than the coalescing window."""
QUIET_SECONDS = 0.5
"""After so long without a frame all of it has arrived."""
COLUMNS = (
    Column(measure="frames", title="frames a viewer and item", digits=2),
    Column(measure="bytes", title="bytes", digits=0, ranged=True),
    Column(measure="cpu_us", title="CPU µs a delivery", digits=2, ranged=True),
    Column(measure="memory_kb", title="KB a viewer", ranged=True),
)


def _case(bench: Bench) -> Case:
    return bench.ledger.case(NAME, NAME, f"An item's life before {bench.scale.crowds[0]:,} viewers", COLUMNS)


def _turns(bench: Bench) -> list[Turn]:
    return [Turn(subject=subject, take=partial(_turn, bench, subject)) for subject in (PLAIN, COMPRESSED)]


def _turn(bench: Bench, subject: str, round_number: int) -> None:
    viewers = bench.scale.crowds[0]
    flavour = "live" if subject == PLAIN else "deflated"
    with (
        servers.ours(bench.data, bench.server_core) as server,
        crowd(bench.viewers, bench.load_core, flavour=flavour) as watching,
    ):
        _live(server, watching, WARM_UP)
        empty = server.memory()
        watching.connect(server.port, f"/v1/performers/{ROOM}/queue/live", viewers)
        _live(server, watching, WARM_UP)
        memory = server.memory() - empty
        watching.reset()
        before = server.cpu()
        report = _live(server, watching, ITEMS)
        cpu = server.cpu() - before
        _case(bench).note(
            round_number,
            subject,
            frames=report.frames / viewers / ITEMS,
            bytes=report.bytes / viewers / ITEMS,
            cpu_us=cpu / report.frames * 1e6,
            memory_kb=memory / viewers / 1024,
        )
        # All viewers must have got the same, as far as they count it.
        bench.check(NAME, subject, report, viewers=viewers, events=report.most)


def _live(server: Server, watching: Crowd, items: int) -> Report:
    """Play this many lives one after the other, and wait for their delivery."""
    call(server.port, [_lives(items)])
    report = watching.report()
    while True:
        time.sleep(QUIET_SECONDS)
        known, report = report, watching.report()
        if report.frames == known.frames:
            return report


def _lives(items: int) -> Caller:
    intakes, bearer = Intakes(1), token(Role.PERFORMER, ROOM)
    for _ in range(items):
        time.sleep(PAUSE_SECONDS)
        answer = yield intakes.next(ROOM)
        item_id = json.loads(answer.body)["itemId"]
        for command in ("start", "complete"):
            time.sleep(PAUSE_SECONDS)
            yield Call(command, post(f"/v1/queue/items/{item_id}/{command}", b"{}", bearer=bearer))


def _bars(scale: Scale) -> tuple[Bar, ...]:
    def at_most(limit: float, text: str, measure: str, subject: str, against: str | None = None) -> Bar:
        return Bar(case=NAME, text=text, measure=measure, subject=subject, against=against, at_most=limit)

    return (
        at_most(3, "frames a viewer and item", "frames", PLAIN),
        at_most(1_600, "bytes, plain", "bytes", PLAIN),
        at_most(900, "bytes, compressed", "bytes", COMPRESSED),
        at_most(1.05, "CPU a delivery, compressed × plain", "cpu_us", COMPRESSED, PLAIN),
        at_most(26, "KB a viewer, plain", "memory_kb", PLAIN),
        at_most(26, "KB a viewer, compressed", "memory_kb", COMPRESSED),
    )


SCENARIO = Scenario(
    name=NAME, about="frames, bytes and CPU of an item's life, plain and compressed", turns=_turns, bars=_bars, rounds=3
)
