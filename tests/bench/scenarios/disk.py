"""Disk: bytes by which a database grows with a plain item, from its intake to its settlement, with its log.

Items go through the real service; the wallet is a stub. Half of them go before and are not counted: with the first
items the small tables and the indexes of open rows get their pages, in which there is room for all later ones. On
PostgreSQL the size is that after VACUUM, as autovacuum leaves it; `live` is that of all items after VACUUM FULL,
without the dead rows, whose room will be used again.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psycopg

from app.domain.command import Role
from app.store.engines import open_engines
from app.store.migrating import migrate
from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column
from tests.bench.load.callers import Answer, Call, Caller, call
from tests.bench.load.requests import Intakes, post
from tests.bench.load.wallet import wallet
from tests.bench.scale import Scale
from tests.bench.servers import DATABASE, Server, token
from tests.support import environment

NAME = "disk"
POSTGRESQL = f"{OURS}, PostgreSQL"
ROOMS = 16
ITEMS_A_ROOM = 125
LOTS = 2
"""Each room is filled and served so many times before the size is taken, and so many times until it is taken again."""
COUNTED = LOTS * ROOMS * ITEMS_A_ROOM
SETTLED_WITHIN = 30.0
COLUMNS = (
    Column(measure="item_bytes", title="bytes an item", digits=0, ranged=True),
    Column(measure="live_bytes", title="of it live", digits=0),
    Column(measure="intake_log_bytes", title="write-ahead log an intake", digits=0),
)
SIZE = (
    "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
    " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
)
WRITTEN = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
OPEN = "SELECT count(*) FROM wallet_operations WHERE status <> 'done'"


def _case(bench: Bench) -> Case:
    return bench.ledger.case(NAME, NAME, f"Disk: growth by {COUNTED:,} items, from intake to settled", COLUMNS)


def _turns(bench: Bench) -> list[Turn]:
    return [
        Turn(subject=OURS, take=partial(_sqlite, bench)),
        Turn(subject=POSTGRESQL, take=partial(_postgresql, bench)),
    ]


def _sqlite(bench: Bench, round_number: int) -> None:
    with servers.data_folder(bench.data) as folder, wallet(bench.data, bench.load_core) as settings:
        file = folder / DATABASE

        def lots() -> int:
            """The bytes that the intakes have written."""
            server = servers.start_ours(folder, bench.server_core, settings)
            log = 0
            try:
                for _ in range(LOTS):
                    before = _bytes_written(server)
                    _intakes(bench, server, OURS)
                    # To the log, and from there to the file now and then.
                    log += _bytes_written(server) - before
                    _serve(bench, server, OURS)
                    _wait_until_settled(partial(_open_on_sqlite, file))
            finally:
                server.stop()
            return log

        lots()
        before = file.stat().st_size
        log = lots()
        size = file.stat().st_size - before
        _note(bench, round_number, OURS, size / COUNTED, size / COUNTED, log)


def _postgresql(bench: Bench, round_number: int) -> None:
    with (
        servers.data_folder(bench.data) as folder,
        environment.postgres_server() as postgres,
        environment.database(postgres.url) as url,
        wallet(bench.data, bench.load_core) as settings,
    ):
        engines = open_engines(url)
        migrate(engines.writer)
        engines.dispose()
        with psycopg.connect(url, autocommit=True) as connection:

            def number(question: str) -> float:
                row = connection.execute(question.encode()).fetchone()
                assert row is not None
                return float(row[0])

            def lots() -> float:
                """The bytes that the intakes have written."""
                log = 0.0
                for _ in range(LOTS):
                    before = number(WRITTEN)
                    _intakes(bench, server, POSTGRESQL)
                    log += number(WRITTEN) - before
                    _serve(bench, server, POSTGRESQL)
                    _wait_until_settled(lambda: bool(number(OPEN)))
                    connection.execute("VACUUM")
                return log

            empty = number(SIZE)
            server = servers.start_ours(folder, bench.server_core, {**settings, "DATABASE_URL": url})
            try:
                lots()
                before = number(SIZE)
                log = lots()
            finally:
                server.stop()
            size = number(SIZE) - before
            connection.execute("VACUUM FULL")
            live = number(SIZE) - empty
        _note(bench, round_number, POSTGRESQL, size / COUNTED, live / (2 * COUNTED), log)


def _note(bench: Bench, round_number: int, subject: str, size: float, live: float, log: float) -> None:
    _case(bench).note(round_number, subject, item_bytes=size, live_bytes=live, intake_log_bytes=log / COUNTED)


def _intakes(bench: Bench, server: Server, subject: str) -> None:
    intakes = Intakes(ROOMS)
    callers = [intakes.caller() for _ in range(ROOMS)]
    bench.check_calls(NAME, subject, call(server.port, callers, calls=ROOMS * ITEMS_A_ROOM))


def _serve(bench: Bench, server: Server, subject: str) -> None:
    callers = [_performances(f"room-{number}") for number in range(ROOMS)]
    bench.check_calls(NAME, subject, call(server.port, callers))


def _performances(room: str) -> Caller:
    performer = token(Role.PERFORMER, room)
    for _ in range(ITEMS_A_ROOM):
        start = post(f"/v1/performers/{room}/queue/start-next", b"{}", bearer=performer)
        answer: Answer = yield Call("start", start)
        path = f"/v1/queue/items/{json.loads(answer.body)['itemId']}"
        yield Call("complete", post(f"{path}/complete", b"{}", bearer=performer))


def _wait_until_settled(is_open: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SETTLED_WITHIN
    while is_open():
        if time.monotonic() > deadline:
            raise ConnectionError("the items were not settled")
        time.sleep(0.1)


def _open_on_sqlite(file: Path) -> bool:
    engines = open_engines(f"sqlite:///{file}")
    try:
        with engines.reader.begin() as connection:
            return bool(connection.exec_driver_sql(OPEN).scalar_one())
    finally:
        engines.dispose()


def _bytes_written(server: Server) -> int:
    lines = Path(f"/proc/{server.process.pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return (
        Bar(case=NAME, text="bytes an item", measure="item_bytes", at_most=2_500),
        Bar(case=NAME, text="bytes an item, PostgreSQL", measure="item_bytes", subject=POSTGRESQL, at_most=2_500),
    )


SCENARIO = Scenario(name=NAME, about="bytes that an item costs on disk", turns=_turns, bars=_bars, rounds=2)
