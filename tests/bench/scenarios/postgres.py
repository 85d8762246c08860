"""Intake on PostgreSQL: durable intakes a second of one process with 64 callers, and what they cost both programs.

The service has one core; the database runs where the scheduler puts it, beside the callers. `synchronous_commit` and
`fsync` are on.
"""

from functools import partial

import psycopg

from app.store.engines import open_engines
from app.store.migrating import migrate
from tests.bench import machine, servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column, Remark
from tests.bench.load.callers import call
from tests.bench.load.requests import Intakes
from tests.bench.scale import Scale
from tests.support import environment

NAME = "postgres"
ROOMS = 500
WARM_UP_CALLS = 1_000
COLUMNS = (
    Column(measure="rate", title="requests a second", digits=0, ranged=True),
    Column(measure="cpu_us", title="CPU µs a request", digits=0, ranged=True),
    Column(measure="service_us", title="of it the service", digits=0),
    Column(measure="database_us", title="the database", digits=0),
    Column(measure="p50_ms", title="p50 ms"),
    Column(measure="p99_ms", title="p99 ms"),
)


def _case(bench: Bench) -> Case:
    return bench.ledger.case(NAME, NAME, f"Intake on PostgreSQL: {bench.scale.callers} callers, one process", COLUMNS)


def _turns(bench: Bench) -> list[Turn]:
    return [Turn(subject=OURS, take=partial(_ours, bench))]


def _ours(bench: Bench, round_number: int) -> None:
    with (
        servers.data_folder(bench.data) as folder,
        environment.postgres_server(fsync="on") as postgres,
        environment.database(postgres.url) as url,
    ):
        engines = open_engines(url)
        migrate(engines.writer)
        engines.dispose()
        server = servers.start_ours(folder, bench.server_core, {"DATABASE_URL": url})
        try:
            intakes = Intakes(ROOMS)
            callers = [intakes.caller() for _ in range(bench.scale.callers)]
            warm = call(server.port, callers, calls=WARM_UP_CALLS)
            assert postgres.process is not None
            # After the warm-up: a connection of the service is a process of the database.
            database = machine.family(postgres.process.pid)
            service_before, database_before = server.cpu(), machine.cpu_seconds(database)
            callers = [intakes.caller() for _ in range(bench.scale.callers)]
            tally = call(server.port, callers, seconds=bench.scale.seconds_of_calls)
            service = (server.cpu() - service_before) / tally.calls * 1e6
            database_us = (machine.cpu_seconds(database) - database_before) / tally.calls * 1e6
        finally:
            server.stop()
        _case(bench).note(
            round_number,
            OURS,
            rate=tally.rate,
            cpu_us=service + database_us,
            service_us=service,
            database_us=database_us,
            p50_ms=tally.percentile(0.5) * 1000,
            p99_ms=tally.percentile(0.99) * 1000,
        )
        taken = 0
        for each in (warm, tally):
            bench.check_calls(NAME, OURS, each)
            taken += each.calls - each.failures
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT count(*) FROM items").fetchone()
        if row != (taken,):
            text = f"{taken} intakes were answered, {row} are stored"
            bench.ledger.remark(Remark(scenario=NAME, kind="wrong", text=text))


def _bars(scale: Scale) -> tuple[Bar, ...]:
    return (
        Bar(case=NAME, text="requests a second", measure="rate", at_least=2_000),
        Bar(case=NAME, text="CPU µs a request, service and database", measure="cpu_us", at_most=800),
    )


SCENARIO = Scenario(name=NAME, about="durable intakes a second on PostgreSQL", turns=_turns, bars=_bars)
