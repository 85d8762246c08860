"""Start-up: from the start of the process to its readiness, on an empty database and on one with many rooms."""

import shutil
from functools import partial
from pathlib import Path

from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column
from tests.bench.load.history import build
from tests.bench.scale import Scale

NAME = "startup"
EMPTY = f"{OURS}, empty database"
COLUMNS = (
    Column(measure="seconds", title="seconds to ready", digits=2, ranged=True),
    Column(measure="cpu_seconds", title="of it CPU", digits=2),
    Column(measure="memory_mb", title="MB then", digits=0),
)


def _case(bench: Bench) -> Case:
    return bench.ledger.case(NAME, NAME, f"Start-up: {bench.scale.rooms_at_start:,} rooms in the database", COLUMNS)


def _turns(bench: Bench) -> list[Turn]:
    folder = bench.data / NAME
    shutil.rmtree(folder, ignore_errors=True)
    rooms = bench.scale.rooms_at_start
    build(folder, events=rooms, rooms=rooms, core=bench.server_core)
    return [
        Turn(subject=OURS, take=partial(_take, bench, OURS, folder)),
        Turn(subject=EMPTY, take=partial(_empty, bench)),
    ]


def _finish(bench: Bench) -> None:
    shutil.rmtree(bench.data / NAME, ignore_errors=True)


def _take(bench: Bench, subject: str, folder: Path, round_number: int) -> None:
    server = servers.start_ours(folder, bench.server_core)
    try:
        _case(bench).note(
            round_number,
            subject,
            seconds=server.started_in,
            cpu_seconds=server.cpu(),
            memory_mb=server.memory() / 2**20,
        )
    finally:
        server.stop()


def _empty(bench: Bench, round_number: int) -> None:
    with servers.data_folder(bench.data) as folder:
        # The first start makes the tables; what counts is every later one.
        servers.start_ours(folder, bench.server_core).stop()
        _take(bench, EMPTY, folder, round_number)


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return (Bar(case=NAME, text="seconds to ready", measure="seconds", at_most=2),)


SCENARIO = Scenario(name=NAME, about="time to ready with many rooms", turns=_turns, bars=_bars, finish=_finish)
