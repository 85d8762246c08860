"""Finds a pooler between the service and PostgreSQL that gives each transaction another session.

PgBouncer does so with `pool_mode = transaction`. Time-outs that a connection has set would then be somebody else's, and
so would a session's lock. Such a pooler says nothing, but it shows: two open connections get the same session in turn.
"""

from typing import Any

from sqlalchemy import Engine

ROUNDS = 24
"""More than PgBouncer has sessions in a pool by default, should it give them in turn."""
_SESSION = "SELECT pg_backend_pid()"


def shares_sessions(engine: Engine) -> bool:
    """Whether another connection's transactions have run in the session of this one."""
    with engine.connect() as one, engine.connect() as other:
        connections: list[Any] = [one.connection.driver_connection, other.connection.driver_connection]
        sessions: list[set[int]] = [set(), set()]
        for _ in range(ROUNDS):
            for connection, seen in zip(connections, sessions, strict=True):
                # A prepared statement would be somebody else's, too.
                seen.add(connection.execute(_SESSION, prepare=False).fetchone()[0])
                connection.rollback()
            if len(sessions[0]) > 1 or not sessions[0].isdisjoint(sessions[1]):
                return True
    return False
