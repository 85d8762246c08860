"""PgBouncer between the service and PostgreSQL, in the mode that the guide requires and in the others."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from app.store.engines import LOCK_TIMEOUT_MS, open_engines
from app.store.migrating import migrate
from tests.support.command_line import run, the_line
from tests.support.ports import free_port
from tests.support.server import fresh, serving

START_SECONDS = 20
CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = any
{run_as}
{mode}
"""


@contextmanager
def pooled(program: Path, folder: Path, url: str, mode: str = "pool_mode = session") -> Iterator[str]:
    """The same database through a pooler; `mode`: lines of its configuration."""
    parts, own = urlsplit(url), free_port()
    file = folder / "pgbouncer.ini"
    run_as = "user = nobody" if os.geteuid() == 0 else ""
    file.write_text(
        CONFIGURATION.format(
            host=parts.hostname, port=parts.port, user=parts.username, own=own, run_as=run_as, mode=mode
        )
    )
    with (folder / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen([program, str(file)], stdout=log, stderr=log)
    try:
        through = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{own}"))
        _wait(process, through, folder / "pgbouncer.log")
        yield through
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


async def test_behind_pgbouncer_in_session_mode_all_is_as_without(
    pgbouncer: Path, postgres_url: str, tmp_path: Path
) -> None:
    performer_id = fresh("star")
    with pooled(pgbouncer, tmp_path, postgres_url) as url:
        engines = open_engines(url)
        migrate(engines.writer)
        with engines.writer.begin() as connection:
            shown = connection.exec_driver_sql("SELECT setting FROM pg_settings WHERE name = 'lock_timeout'")
            assert shown.scalar_one() == str(LOCK_TIMEOUT_MS)
        engines.dispose()
        with serving(tmp_path, database_url=url, settle_delay_seconds=0) as server:
            async with server.api() as api:
                items = [await api.intake(performer_id) for _ in range(20)]
                async with server.live(performer_id) as viewer:
                    await viewer.until("snapshot")
                    started = await api.start_next(performer_id)
                    assert started["itemId"] == items[0]["itemId"]
                    await api.command("complete", started)
                    await viewer.until_state(lambda live: len(live.items) == 19)
                assert (await api.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("pool_mode = transaction", "pool_mode = session"),
        ("pool_mode = transaction\nserver_round_robin = 1", "pool_mode = session"),
        ("pool_mode = statement", "statement pooling"),
    ],
    ids=["transaction", "in turn", "statement"],
)
@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_pooler_that_changes_sessions_is_one_line_and_exit_code_2(
    pgbouncer: Path, postgres_url: str, tmp_path: Path, mode: str, said: str, command: str
) -> None:
    with pooled(pgbouncer, tmp_path, postgres_url, mode) as url:
        # Some sessions are at hand, as beside other processes.
        others = [psycopg.connect(url, autocommit=True) for _ in range(3)]
        for other in others:
            other.execute("SELECT 1")
        refused = run(command, url, PORT="0")
        for other in others:
            other.close()
    assert said in the_line(refused)
