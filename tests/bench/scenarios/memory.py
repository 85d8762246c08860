"""Memory: what a viewer costs, and whether it stays so over an hour's worth of updates."""

from functools import partial

from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column
from tests.bench.load.crowd import crowd
from tests.bench.load.publishers import IntakePublisher, SettingsPublisher
from tests.bench.scale import Scale

NAME = "memory"
BURST = 24
COLUMNS = (
    Column(measure="viewer_kb", title="KB a viewer", ranged=True),
    Column(measure="after_kb", title="after the updates: KB a viewer", ranged=True),
    Column(measure="growth_percent", title="growth % of all", digits=2, ranged=True),
    Column(measure="updates", title="updates", digits=0),
)


def _case(bench: Bench) -> Case:
    return bench.ledger.case(NAME, NAME, f"Memory: {bench.scale.crowd_for_memory:,} viewers of one room", COLUMNS)


def _turns(bench: Bench) -> list[Turn]:
    return [Turn(subject=OURS, take=partial(_ours, bench))]


def _ours(bench: Bench, round_number: int) -> None:
    viewers, updates = bench.scale.crowd_for_memory, bench.scale.updates_for_memory
    with servers.ours(bench.data, bench.server_core) as server, crowd(bench.viewers, bench.load_core) as watching:
        intakes = IntakePublisher(server)
        intakes.publish(10)
        empty = server.memory()
        watching.connect(server.port, "/v1/performers/room-0/queue/live", viewers)
        # Updates that leave nothing behind: what grows is not the queue.
        publisher = SettingsPublisher(server, "room-0")
        watching.reset()
        done = 0
        joined = 0
        while done < updates:
            publisher.publish(BURST)
            done += BURST
            watching.wait(done * viewers)
            # The room's memory of its last events is full by then.
            if not joined and done >= min(300, updates // 2):
                joined = server.memory()
        after = server.memory()
        _case(bench).note(
            round_number,
            OURS,
            viewer_kb=(joined - empty) / viewers / 1024,
            after_kb=(after - empty) / viewers / 1024,
            growth_percent=(after - joined) / joined * 100,
            updates=done,
        )
        bench.check(NAME, OURS, watching.report(), viewers=viewers, events=done)


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return (
        Bar(case=NAME, text="KB a viewer, after the updates", measure="after_kb", at_most=26),
        Bar(case=NAME, text="growth over the updates, %", measure="growth_percent", at_most=1),
    )


SCENARIO = Scenario(name=NAME, about="KB a viewer, flat over many updates", turns=_turns, bars=_bars, rounds=3)
