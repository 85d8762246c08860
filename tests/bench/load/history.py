"""A database with a long history, built in bulk.

A few items really go through the service; their rows, whatever columns they have, are then copied inside SQLite with
other names, ids and versions. So the history looks as the service itself would have written it, and the loader knows
nothing of the schema but which names occur in it.
"""

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from sqlalchemy import select

from app.domain.command import Role
from app.domain.room import Policy
from app.store import activity, event_log
from app.store.engines import open_engines, sqlite_driver
from app.store.facts import set_fact
from app.store.histories import HISTORIES, history_values
from app.store.reading import load_rooms
from app.store.tables import ROOMS
from tests.bench import servers
from tests.bench.load.callers import Answer, Call, Caller, call
from tests.bench.load.requests import get, post
from tests.bench.load.wallet import wallet
from tests.bench.servers import DATABASE, FEATURE, Server, token

ROOM = "seed-room"
TABLES = ("items", "events", "wallet_operations", "answers")
FIRST_SERVED, FIRST_WAITING = "00000000-0000-7000-8000-0", "00000000-0000-7000-8000-1"
"""The first digits of the copies' ids."""
AT_ONCE = 50_000
"""Items copied in one transaction."""
ROOMS_AT_ONCE = 500
SETTLED_WITHIN = 20.0
MILLISECONDS_A_VERSION = 720
MILLISECONDS_A_DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class History:
    folder: Path
    events: int
    rooms: int

    def room(self, number: int) -> str:
        return f"room-{number % self.rooms:07d}"

    def ended_items(self) -> int:
        """How many of the items that were served are still there."""
        driver: ModuleType = sqlite_driver()
        with closing(driver.connect(self.folder / DATABASE)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM items WHERE item_id < ?", (FIRST_WAITING,)).fetchone()
        return int(count)

    def size(self) -> int:
        """Bytes of the database's files."""
        return sum(path.stat().st_size for path in self.folder.glob("*.db*"))


def build(folder: Path, *, events: int, rooms: int, core: int, days_ago: int = 0) -> History:
    """At least so many events in `folder`'s database, spread evenly over rooms; each room has one item waiting. The
    last ones were `days_ago`; a room had an event every MILLISECONDS_A_VERSION, ten million in 250 rooms in 8 hours."""
    folder.mkdir(parents=True, exist_ok=True)
    with wallet(folder, core) as settings:
        server = servers.start_ours(folder, core, settings)
        try:
            _live_through(server)
        finally:
            server.stop()
    driver: ModuleType = sqlite_driver()
    connection: sqlite3.Connection = driver.connect(folder / DATABASE, isolation_level=None)
    try:
        history = _multiply(connection, folder, events, rooms, days_ago)
    finally:
        connection.close()
    _learn(folder)
    return history


def _learn(folder: Path) -> None:
    """Give each room the history of estimates that it would have, and leave the service nothing to count."""
    engines = open_engines(f"sqlite:///{folder / DATABASE}")
    try:
        with engines.writer.begin() as writing:
            writing.execute(HISTORIES.delete())
            performer_ids = writing.execute(select(ROOMS.c.performer_id)).scalars().all()
            for at in range(0, len(performer_ids), ROOMS_AT_ONCE):
                rooms = load_rooms(writing, Policy(), performer_ids[at : at + ROOMS_AT_ONCE])
                writing.execute(HISTORIES.insert(), [history_values(room) for room in rooms.values()])
            set_fact(writing, activity.CURSOR, event_log.log_end(writing) or "0")
    finally:
        engines.dispose()


def _live_through(server: Server) -> None:
    """Queue an item that is served and settled, and then one that waits."""
    feature, performer = token(Role.FEATURE, FEATURE), token(Role.PERFORMER, ROOM)

    def intake(name: str) -> Call:
        body = {
            "idempotencyKey": f"key-{name}",
            "sourceFeature": FEATURE,
            "sourceEventId": f"source-{name}",
            "performerId": ROOM,
            "userId": f"user-{name}",
            "escrowTransactionId": f"escrow-{name}",
            "tokens": 120,
            "title": "A song",
            "description": "Anything by Nina Simone",
            "durationSeconds": 180,
        }
        return Call("intake", post("/v1/queue/items", json.dumps(body).encode(), bearer=feature))

    def caller() -> Caller:
        answer: Answer = yield intake("served")
        path = f"/v1/queue/items/{json.loads(answer.body)['itemId']}"
        yield Call("start", post(f"{path}/start", b"{}", bearer=performer))
        yield Call("complete", post(f"{path}/complete", b"{}", bearer=performer))
        deadline = time.monotonic() + SETTLED_WITHIN
        settled = False
        while not settled and time.monotonic() < deadline:
            time.sleep(0.05)
            answer = yield Call("item", get(path, bearer=feature))
            settled = json.loads(answer.body)["settled"]
        if not settled:
            raise ConnectionError("the first item of the history was not settled")
        yield intake("waiting")

    tally = call(server.port, [caller()])
    if tally.failures:
        raise ConnectionError(f"the first items of the history were refused: {dict(tally.statuses)}")


def _multiply(connection: sqlite3.Connection, folder: Path, events: int, rooms: int, days_ago: int) -> History:
    for pragma in ("journal_mode=WAL", "synchronous=OFF", "cache_size=-400000", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    served, waiting = (
        row[0]
        for row in connection.execute("SELECT item_id FROM items WHERE performer_id = ? ORDER BY item_id", (ROOM,))
    )
    (of_served,) = connection.execute("SELECT count(*) FROM events WHERE item_id = ?", (served,)).fetchone()
    a_room = max(1, -(-events // (rooms * of_served)))
    last = (a_room - 1) * of_served
    earlier = last * MILLISECONDS_A_VERSION + days_ago * MILLISECONDS_A_DAY
    copies = {
        "served": (served, rooms * a_room, f"n / {a_room}", f"(n % {a_room}) * {of_served}"),
        # After all that were served: the seed's own events come first there, too.
        "waiting": (waiting, rooms, "n", str(last)),
    }
    for name, (item_id, count, room, version) in copies.items():
        for table in TABLES:
            _copy(connection, table, name, item_id, count, room, version, earlier)
    _copy_rooms(connection, rooms, a_room * of_served + 1)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return History(folder, rooms * a_room * of_served, rooms)


def _copy(
    connection: sqlite3.Connection,
    table: str,
    name: str,
    item_id: str,
    count: int,
    room: str,
    version: str,
    earlier: int,
) -> None:
    """Copy a seed item's rows of a table `count` times, in the order of the indexes; `n` numbers the copies. Versions
    are higher by `version`, times later by as many times MILLISECONDS_A_VERSION, and all of them `earlier`."""
    seed = f"temp.seed_{table}"
    connection.execute(f"DROP TABLE IF EXISTS {seed}")
    connection.execute(f"CREATE TABLE {seed} AS SELECT * FROM main.{table} WHERE item_id = ?", (item_id,))
    columns = [row[1] for row in connection.execute(f"PRAGMA temp.table_info(seed_{table})") if row[1] != "cursor"]
    if "operation_id" in columns:
        for (operation_id,) in connection.execute(f"SELECT operation_id FROM {seed}").fetchall():
            connection.execute(
                f"UPDATE {seed} SET operation_id = replace(operation_id, ?, 'operation')", (operation_id,)
            )
    replaced = {
        item_id: f"printf('{FIRST_SERVED if name == 'served' else FIRST_WAITING}%011x', n)",
        "operation": f"printf('operation-{name}-%d', n)",
        ROOM: f"printf('room-%07d', {room})",
        f"key-{name}": f"printf('key-{name}-%d', n)",
        f"source-{name}": f"printf('source-{name}-%d', n)",
        f"user-{name}": "printf('user-%d', n % 10000)",
        f"escrow-{name}": f"printf('escrow-{name}-%d', n)",
    }
    values = []
    for column in columns:
        value = f's."{column}"'
        if column in ("version", "first_version"):
            value = f"{value} + {version}"
        elif column == "at" or column.endswith("_at"):
            value = f"{value} + {version} * {MILLISECONDS_A_VERSION} - {earlier}"
        for old, new in replaced.items():
            query = f'SELECT count(*) FROM {seed} WHERE typeof("{column}") = \'text\' AND instr("{column}", ?)'
            if connection.execute(query, (old,)).fetchone()[0]:
                value = f"replace({value}, '{old}', {new})"
        values.append(value)
    names = ", ".join(f'"{column}"' for column in columns)
    for first in range(0, count, AT_ONCE):
        connection.execute("BEGIN")
        connection.execute(
            f"WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers "
            f"WHERE n + 1 < {min(count, first + AT_ONCE)}) "
            f"INSERT INTO main.{table} ({names}) SELECT {', '.join(values)} FROM numbers CROSS JOIN {seed} s"
        )
        connection.execute("COMMIT")


def _copy_rooms(connection: sqlite3.Connection, rooms: int, version: int) -> None:
    columns = [row[1] for row in connection.execute("PRAGMA main.table_info(rooms)")]
    special = {"performer_id": "printf('room-%07d', n)", "version": str(version)}
    values = ", ".join(special.get(column, f's."{column}"') for column in columns)
    names = ", ".join(f'"{column}"' for column in columns)
    connection.execute(
        f"WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {rooms}) "
        f"INSERT INTO main.rooms ({names}) "
        f"SELECT {values} FROM numbers CROSS JOIN (SELECT * FROM main.rooms WHERE performer_id = '{ROOM}') s"
    )
