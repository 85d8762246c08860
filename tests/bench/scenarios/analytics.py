"""Analytics: a day of a whole site and a month of its busiest performer, on both databases.

The day is written by the database itself and counted before the service starts, as the service would have done in the
course of it. The day that is asked for begins and ends within a counted span, so that part of the log is read, too.
"""

import shutil
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import urlencode

from app.domain.command import Role
from app.domain.room import Policy
from app.store import Store, activity
from app.store.engines import open_engines
from app.store.migrating import migrate
from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column
from tests.bench.load.callers import Call, Caller, call
from tests.bench.load.day import BUSY, write_day
from tests.bench.load.requests import get
from tests.bench.load.wallet import wallet
from tests.bench.scale import Scale
from tests.bench.servers import DATABASE, Server, token
from tests.support import environment

NAME = "analytics"
POSTGRESQL = f"{OURS}, PostgreSQL"
CALLS = 5
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
WITHIN_A_SPAN = timedelta(minutes=5)
COLUMNS = (
    Column(measure="day_ms", title="a day of the site p50 ms", digits=0, ranged=True),
    Column(measure="day_cpu_ms", title="of it CPU ms", digits=0),
    Column(measure="month_ms", title="a performer's month p50 ms", digits=0, ranged=True),
    Column(measure="month_cpu_ms", title="of it CPU ms", digits=0),
    Column(measure="count_us", title="counting: CPU µs an event", digits=1),
)


def _case(bench: Bench) -> Case:
    items = bench.scale.items_of_a_day
    return bench.ledger.case(NAME, NAME, f"Analytics: {items:,} items in a day, a hundredth by one performer", COLUMNS)


def _turns(bench: Bench) -> list[Turn]:
    return [
        Turn(subject=OURS, take=partial(_sqlite, bench)),
        Turn(subject=POSTGRESQL, take=partial(_postgresql, bench)),
    ]


def _finish(bench: Bench) -> None:
    shutil.rmtree(bench.data / NAME, ignore_errors=True)


def _sqlite(bench: Bench, round_number: int) -> None:
    folder = bench.data / NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    count_us = _prepare(bench, f"sqlite:///{folder / DATABASE}")
    with wallet(bench.data, bench.load_core) as settings:
        server = servers.start_ours(folder, bench.server_core, settings)
        try:
            _ask(bench, round_number, OURS, server, count_us)
        finally:
            server.stop()


def _postgresql(bench: Bench, round_number: int) -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(servers.data_folder(bench.data))
        postgres = stack.enter_context(environment.postgres_server())
        url = stack.enter_context(environment.database(postgres.url))
        settings = stack.enter_context(wallet(bench.data, bench.load_core))
        count_us = _prepare(bench, url)
        server = servers.start_ours(folder, bench.server_core, {**settings, "DATABASE_URL": url})
        try:
            _ask(bench, round_number, POSTGRESQL, server, count_us)
        finally:
            server.stop()


def _prepare(bench: Bench, url: str) -> float:
    """Write the day and count it. Returns the CPU µs that counting takes this process for an event."""
    engines = open_engines(url)
    try:
        migrate(engines.patient_writer)
        with engines.patient_writer.begin() as connection:
            write_day(connection, bench.scale.items_of_a_day, START)
        store = Store(engines, Policy())
        before = time.process_time()
        is_last = False
        while not is_last:
            with store.reading() as connection:
                batch = activity.next_batch(connection)
            if batch is None:
                break
            with store.writing() as connection:
                activity.add(connection, batch)
            is_last = batch.is_last
        return (time.process_time() - before) / (4 * bench.scale.items_of_a_day) * 1e6
    finally:
        engines.dispose()


def _ask(bench: Bench, round_number: int, subject: str, server: Server, count_us: float) -> None:
    admin = token(Role.ADMIN, "operator")
    begin = START + WITHIN_A_SPAN
    day = {"from": begin.isoformat(), "to": (begin + timedelta(days=1)).isoformat()}
    month = {"from": (begin - timedelta(days=28)).isoformat(), "to": (begin + timedelta(days=2)).isoformat()}

    def caller(path: str) -> Caller:
        for _ in range(CALLS):
            yield Call("analytics", get(path, bearer=admin))

    before = server.cpu()
    of_day = call(server.port, [caller(f"/v1/admin/analytics?{urlencode(day)}")])
    between = server.cpu()
    of_month = call(server.port, [caller(f"/v1/performers/{BUSY}/queue/analytics?{urlencode(month)}")])
    after = server.cpu()
    for tally in (of_day, of_month):
        bench.check_calls(NAME, subject, tally)
    _case(bench).note(
        round_number,
        subject,
        day_ms=of_day.percentile(0.5) * 1000,
        month_ms=of_month.percentile(0.5) * 1000,
        day_cpu_ms=(between - before) / CALLS * 1000,
        month_cpu_ms=(after - between) / CALLS * 1000,
        count_us=count_us,
    )


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return tuple(
        bar
        for subject in (OURS, POSTGRESQL)
        for bar in (
            Bar(case=NAME, text=f"a day, {subject}", measure="day_ms", subject=subject, at_most=1_000),
            Bar(case=NAME, text=f"a performer's month, {subject}", measure="month_ms", subject=subject, at_most=200),
        )
    )


SCENARIO = Scenario(
    name=NAME,
    about="a day of a whole site, a month of a busy performer",
    turns=_turns,
    bars=_bars,
    rounds=1,
    finish=_finish,
)
