"""`backup` and `restore`: of a running queue, after a crash, of damaged copies, and killed half-way."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from app.domain.command import Role
from app.domain.room import Policy
from app.store import Store, event_log, reading
from app.store.engines import open_engines, sole_owner
from app.store.migrating import migrate
from tests.support.command_line import run, the_line
from tests.support.killed_server import PERFORMERS, ROOT, Client, Load, Request, intake, server, token
from tests.support.stores import Database, assert_consistent, build_writer, queue_item, stored_events
from tests.support.stores import postgres_database_fixture as postgres_database_fixture
from tests.support.stores import sqlite_database_fixture as sqlite_database_fixture

RESTORE_KILLS = int(os.environ.get("KILL_ROUNDS", "3")) * 5


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def opened(path: Path) -> Store:
    return Store(open_engines(url_of(path)), Policy(max_depth=1000))


def queue_with(path: Path, items: int) -> None:
    """A closed queue with this many items."""
    engines = open_engines(url_of(path))
    migrate(engines.writer)
    writer = build_writer(Store(engines, Policy(max_depth=1000)))
    for _ in range(items):
        queue_item(writer)
    engines.dispose()


def depth_of(path: Path) -> int:
    """The number of items of a queue, which must be consistent."""
    store = opened(path)
    try:
        return assert_consistent(store).depth
    finally:
        store.engines.dispose()


def epoch_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        (epoch,) = connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
        return str(epoch)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_backup_of_a_running_queue_holds_what_was_acknowledged_before_it(tmp_path: Path) -> None:
    path, copies = tmp_path / "queue.db", tmp_path / "copies"
    copies.mkdir()
    sent: list[Request] = []
    with server(path) as (port, _):
        with Load(port, 0) as load:
            for number in range(3):
                load.wait_for_acknowledgements(40)
                before = [request for request in load.sent if request.is_acknowledged]
                result = run(f"backup {copies / f'{number}.db'}", url_of(path))
                assert result.exit_code == 0, result.output
                sent = before
        assert load.failed == []
    assert sorted(file.name for file in copies.iterdir()) == ["0.db", "1.db", "2.db"]
    store = opened(copies / "2.db")
    with store.reading() as connection:
        for request in sent:
            assert reading.find_item(connection, request.answer["itemId"]) is not None
    for performer_id in PERFORMERS:
        assert_consistent(store, performer_id)
    store.engines.dispose()


def test_a_newer_backup_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    path, copy = tmp_path / "queue.db", tmp_path / "copy.db"
    for items in (1, 2):
        queue_with(path, 1)
        assert run(f"backup {copy}", url_of(path)).exit_code == 0
        assert depth_of(copy) == items


def test_a_backup_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    path, diary = tmp_path / "queue.db", tmp_path / "diary.txt"
    queue_with(path, 1)
    diary.write_text("Dear diary")
    (tmp_path / "link.db").symlink_to(path)
    shutil.copy(path, tmp_path / "busy.db")
    (tmp_path / "busy.db-wal").write_bytes(b"")
    before = files_of(tmp_path)
    refused = {
        str(path): "own file",
        str(tmp_path / "link.db"): "own file",
        str(diary): "is there already",
        str(tmp_path / "busy.db"): "in use",
        str(tmp_path): "is there already",
        str(tmp_path / "none" / "copy.db"): "no folder",
    }
    for target, reason in refused.items():
        assert reason in the_line(run(f"backup {target}", url_of(path)))
    assert files_of(tmp_path) == before


def test_there_is_no_backup_of_a_database_that_is_not_there(tmp_path: Path) -> None:
    for command in ("backup copy.db", "check"):
        assert "There is no database" in the_line(run(command, url_of(tmp_path / "none.db")))
    assert list(tmp_path.iterdir()) == []


def test_on_postgresql_backup_names_pg_dump_and_restore_pg_restore() -> None:
    url = "postgresql://queue:hush@127.0.0.1:1/queue"
    assert "pg_dump" in the_line(run("backup copy.db", url))
    assert "pg_restore" in the_line(run("restore copy.db", url))


def test_a_restored_postgresql_gets_a_new_epoch(postgres_database: Database) -> None:
    before = postgres_database.open().epoch
    assert run("restore", postgres_database.url).exit_code == 0
    assert postgres_database.open().epoch != before


def test_a_restore_takes_the_place_of_a_crashed_queue_with_its_side_files(tmp_path: Path) -> None:
    path, copy = tmp_path / "queue.db", tmp_path / "copy.db"
    admin = token(Role.ADMIN, "admin")
    with server(path) as (port, process):
        with closing(Client(port)) as client:
            for number in range(5):
                client.send(intake(f"kept-{number}", PERFORMERS[0], "feature"))
            assert run(f"backup {copy}", url_of(path)).exit_code == 0
            for number in range(20):
                client.send(intake(f"lost-{number}", PERFORMERS[0], "feature"))
            newest = client.get("/v1/events?limit=1000", admin)["next"]
        assert "Another process" in the_line(run(f"restore {copy}", url_of(path)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert path.with_name("queue.db-wal").stat().st_size > 0
    epoch = epoch_of(copy)
    result = run(f"restore {copy}", url_of(path))
    assert result.exit_code == 0, result.output
    (kept,) = tmp_path.glob("queue.db.replaced-*")
    assert str(kept) in result.stderr
    assert not list(tmp_path.glob("queue.db-*"))
    assert epoch_of(path) != epoch == epoch_of(copy)
    with server(path) as (port, _), closing(Client(port)) as client:
        queue = client.get(f"/v1/performers/{PERFORMERS[0]}/queue", admin)
        assert [item["title"] for item in queue["items"]] == [f"Request kept-{number}" for number in range(5)]
        client.send(intake("after", PERFORMERS[0], "feature"))
        # A reader of the lost part of the log misses no later event.
        later = client.get(f"/v1/events?after={newest}&limit=1000", admin)["events"]
        assert later[-1]["params"]["title"] == "Request after"
    assert run("check", url_of(path)).exit_code == 0
    # The replaced file is complete: all 25 items, those of the write-ahead log included.
    store = opened(kept)
    assert assert_consistent(store, PERFORMERS[0]).depth == 25
    store.engines.dispose()


def test_a_damaged_queue_is_replaced_and_kept_as_it_was(tmp_path: Path) -> None:
    path, copy = tmp_path / "queue.db", tmp_path / "copy.db"
    queue_with(path, 3)
    assert run(f"backup {copy}", url_of(path)).exit_code == 0
    path.write_bytes(b"\xff" * 5000)
    path.with_name("queue.db-wal").write_bytes(b"\xfe" * 500)
    path.with_name("queue.db-shm").write_bytes(b"\xfd" * 500)
    assert run(f"restore {copy}", url_of(path)).exit_code == 0
    assert depth_of(path) == 3
    kept = {file.name.rpartition("-")[2]: file.read_bytes()[:1] for file in tmp_path.glob("*.replaced-*-*")}
    assert kept == {"wal": b"\xfe", "shm": b"\xfd"}


def test_a_restore_where_there_was_no_queue_makes_one(tmp_path: Path) -> None:
    path, copy = tmp_path / "queue.db", tmp_path / "copy.db"
    queue_with(copy, 3)
    assert run(f"restore {copy}", url_of(path)).exit_code == 0
    assert depth_of(path) == 3
    assert depth_of(copy) == 3


def damage(copy: Path) -> None:
    """Overwrite all pages in the middle of the file except their headers."""
    content = bytearray(copy.read_bytes())
    for start in range(8192, len(content) - 4096, 4096):
        content[start + 8 : start + 2000] = os.urandom(1992)
    copy.write_bytes(content)


def sql(statement: str, copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute(statement)
        connection.commit()


def test_an_invalid_copy_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    path = tmp_path / "live" / "queue.db"
    queue_with(path, 3)
    good = tmp_path / "good.db"
    queue_with(good, 40)
    (tmp_path / "link.db").symlink_to(path)
    copies = {name: tmp_path / f"{name}.db" for name in ("damaged", "short", "newer", "other", "text")}
    for copy in copies.values():
        shutil.copy(good, copy)
    damage(copies["damaged"])
    os.truncate(copies["short"], good.stat().st_size // 2)
    sql("UPDATE alembic_version SET version_num = '9999'", copies["newer"])
    sql("UPDATE meta SET value = '9999' WHERE name = 'oldest_release'", copies["newer"])
    sql("DROP TABLE events", copies["other"])
    copies["text"].write_text("Dear diary")
    with sole_owner(url_of(path)):
        pass  # its lock file is there from now on
    before = files_of(path.parent)
    reasons = {
        copies["damaged"]: "",
        copies["short"]: "",
        copies["newer"]: "newer schema",
        copies["other"]: "not one of a queue",
        copies["text"]: "not a copy of a queue",
        tmp_path / "none.db": "not a copy of a queue",
        tmp_path: "not a copy of a queue",
        path: "own file",
        tmp_path / "link.db": "own file",
    }
    for copy, reason in reasons.items():
        assert reason in the_line(run(f"restore {copy}", url_of(path)))
        assert files_of(path.parent) == before
    assert the_line(run("restore", url_of(path))).endswith("restore needs the FILE that backup wrote")


RESTORER = """
import os, sys
from pathlib import Path
from app.parts import utc_now
from app.store import copies
for _ in sys.stdin:
    if not (child := os.fork()):
        copies.restore(sys.argv[1], Path(sys.argv[2]), utc_now())
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""
"""For each line that it reads it begins a restore in a process of its own, says which, and says when that has ended."""


def forking_restorer(path: Path, copy: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", RESTORER, url_of(path), str(copy)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.timeout(60 + 5 * RESTORE_KILLS)
def test_a_restore_that_is_killed_leaves_one_queue_or_the_other_whole(tmp_path: Path) -> None:
    path, copy = tmp_path / "queue.db", tmp_path / "copy.db"
    queue_with(copy, 7)
    ends = set()
    with forking_restorer(path, copy) as restorer:
        assert restorer.stdin is not None
        assert restorer.stdout is not None
        for number in range(RESTORE_KILLS):
            for file in tmp_path.glob("queue.db*"):
                file.unlink()
            queue_with(path, 3)
            # Its last commits are in the write-ahead log alone, as after a crash.
            keeper = sqlite3.connect(path)
            keeper.execute("SELECT 1 FROM meta").fetchone()
            queue_with(path, 1)
            crashed = {file: file.read_bytes() for file in tmp_path.glob("queue.db*") if "shm" not in file.name}
            keeper.close()
            for file, content in crashed.items():
                file.write_bytes(content)
            print(file=restorer.stdin, flush=True)
            child = int(restorer.stdout.readline())
            time.sleep(0.15 * number / RESTORE_KILLS)  # the moment is meant to be any
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            restorer.stdout.readline()
            depth = depth_of(path)
            assert depth in (4, 7)
            ends.add(depth)
            assert run(f"restore {copy}", url_of(path)).exit_code == 0
            assert depth_of(path) == 7
    assert 4 in ends


def test_an_empty_copy_restores_a_log_that_goes_on(sqlite_database: Database, tmp_path: Path) -> None:
    path = Path(sqlite_database.url.removeprefix("sqlite:///"))
    assert run(f"backup {tmp_path / 'empty.db'}", sqlite_database.url).exit_code == 0
    store = sqlite_database.open()
    queue_item(build_writer(store))
    with store.reading() as connection:
        lost = event_log.log_events(connection, after=None, limit=10)[-1].cursor
    store.engines.dispose()
    assert run(f"restore {tmp_path / 'empty.db'}", url_of(path)).exit_code == 0
    restored = sqlite_database.open()
    queue_item(build_writer(restored))
    assert len(stored_events(restored)) == 1
    with restored.reading() as connection:
        assert len(event_log.log_events(connection, after=lost, limit=10)) == 1
