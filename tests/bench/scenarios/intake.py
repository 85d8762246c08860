"""Intake: requests a second of the whole path with 64 callers, against the ceiling without a database, the usual
session a request, and Fastify with BullMQ. Then the latencies at 80 % of what each could do."""

import sqlite3
from functools import partial
from pathlib import Path

from tests.bench import servers
from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import OURS, Bar, Case, Column, Remark
from tests.bench.load.callers import call
from tests.bench.load.requests import Intakes
from tests.bench.peers import preparing, redis
from tests.bench.peers.catalogue import BULLMQ, NAIVE, NO_DATABASE, OWN_EDGE, OWN_EDGE_ARGUMENT
from tests.bench.peers.preparing import Prepared
from tests.bench.scale import Scale
from tests.bench.servers import Server

NAME = "intake"
ROOMS = 500
WARM_UP_CALLS = 500
EVERYSEC = f"{BULLMQ.name}, fsync a second"
COLUMNS = (
    Column(measure="rate", title="requests a second", digits=0, ranged=True),
    Column(measure="cpu_us", title="CPU µs a request", digits=0),
    Column(measure="p50_ms", title="p50 ms"),
    Column(measure="p99_ms", title="p99 ms"),
    Column(measure="steady_p50_ms", title="at 80 %: p50 ms"),
    Column(measure="steady_p99_ms", title="p99 ms", ranged=True),
)


def _case(bench: Bench) -> Case:
    title = f"Intake: {bench.scale.callers} callers, SQLite with synchronous FULL where there is a database"
    return bench.ledger.case(NAME, NAME, title, COLUMNS, ("cpu_us", NO_DATABASE.name))


def _turns(bench: Bench) -> list[Turn]:
    turns = [Turn(subject=OURS, take=partial(_ours, bench))]
    for peer in (NO_DATABASE, NAIVE, BULLMQ):
        if peer.name not in bench.peers:
            continue
        try:
            prepared = preparing.prepare(peer, bench.cache)
            if peer is BULLMQ:
                redis.program()
        except preparing.Absent as reason:
            bench.absent(NAME, peer.name, str(reason))
            continue
        if peer is NO_DATABASE:
            turns.append(Turn(subject=peer.name, take=partial(_no_database, bench, prepared, peer.name, ())))
            turns.append(
                Turn(subject=OWN_EDGE, take=partial(_no_database, bench, prepared, OWN_EDGE, (OWN_EDGE_ARGUMENT,)))
            )
        elif peer is NAIVE:
            turns.append(Turn(subject=peer.name, take=partial(_naive, bench, prepared)))
        else:
            turns.append(Turn(subject=peer.name, take=partial(_bullmq, bench, prepared, peer.name, True)))
            turns.append(Turn(subject=EVERYSEC, take=partial(_bullmq, bench, prepared, EVERYSEC, False)))
    return turns


def _ours(bench: Bench, round_number: int) -> None:
    with servers.data_folder(bench.data) as folder:
        server = servers.start_ours(folder, bench.server_core)
        try:
            taken = _drive(bench, round_number, OURS, server)
        finally:
            server.stop()
        _check_stored(bench, OURS, folder / "queue.db", "items", taken)


def _no_database(bench: Bench, prepared: Prepared, subject: str, arguments: tuple[str, ...], round_number: int) -> None:
    with preparing.running(prepared, bench.data, bench.server_core, *arguments) as server:
        _drive(bench, round_number, subject, server)


def _naive(bench: Bench, prepared: Prepared, round_number: int) -> None:
    with servers.data_folder(bench.data) as folder:
        database = folder / "naive.db"
        with preparing.running(prepared, bench.data, bench.server_core, str(database)) as server:
            taken = _drive(bench, round_number, NAIVE.name, server)
        _check_stored(bench, NAIVE.name, database, "naiveitem", taken)


def _bullmq(bench: Bench, prepared: Prepared, subject: str, durable: bool, round_number: int) -> None:
    with (
        redis.running(bench.data, bench.server_core, durable=durable) as store,
        preparing.running(prepared, bench.data, bench.server_core, str(store.port)) as server,
    ):
        server.pids += store.pids
        _drive(bench, round_number, subject, server)


def _drive(bench: Bench, round_number: int, subject: str, server: Server) -> int:
    """Returns how many intakes were taken."""
    scale, intakes = bench.scale, Intakes(ROOMS)
    callers = [intakes.caller() for _ in range(scale.callers)]
    warm = call(server.port, callers, calls=WARM_UP_CALLS)
    before = server.cpu()
    callers = [intakes.caller() for _ in range(scale.callers)]
    tally = call(server.port, callers, seconds=scale.seconds_of_calls)
    cost = server.cpu() - before
    callers = [intakes.caller() for _ in range(scale.callers)]
    steady = call(server.port, callers, seconds=scale.seconds_of_calls, rate=0.8 * tally.rate)
    _case(bench).note(
        round_number,
        subject,
        rate=tally.rate,
        cpu_us=cost / tally.calls * 1e6,
        p50_ms=tally.percentile(0.5) * 1000,
        p99_ms=tally.percentile(0.99) * 1000,
        steady_p50_ms=steady.percentile(0.5) * 1000,
        steady_p99_ms=steady.percentile(0.99) * 1000,
    )
    for each in (warm, tally, steady):
        bench.check_calls(NAME, subject, each)
    return sum(each.calls - each.failures for each in (warm, tally, steady))


def _check_stored(bench: Bench, subject: str, database: Path, table: str, taken: int) -> None:
    """Every intake that was answered 201 is in the database, once."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        (stored,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    finally:
        connection.close()
    if stored != taken:
        text = f"{subject}: {taken} intakes were answered, {stored} are stored"
        bench.ledger.remark(Remark(scenario=NAME, kind="wrong", text=text))


def _bars(scale: Scale) -> tuple[Bar, ...]:
    rate = "rate"
    return (
        Bar(case=NAME, text="rate × no database", measure=rate, against=NO_DATABASE.name, at_least=0.5),
        Bar(case=NAME, text=f"rate × {OWN_EDGE}", measure=rate, against=OWN_EDGE, at_least=0.5),
        Bar(case=NAME, text="rate × session a request", measure=rate, against=NAIVE.name, at_least=8),
        Bar(case=NAME, text="rate × Fastify + BullMQ", measure=rate, against=BULLMQ.name, at_least=1),
        Bar(case=NAME, text="rate × Fastify + BullMQ, fsync a second", measure=rate, against=EVERYSEC, at_least=1),
        Bar(case=NAME, text="p99 ms at 80 % of its rate", measure="steady_p99_ms", at_most=50),
    )


SCENARIO = Scenario(name=NAME, about="durable intakes a second, the whole path", turns=_turns, bars=_bars)
