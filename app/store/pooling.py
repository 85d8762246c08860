"""Detects a pooler between the service and PostgreSQL that gives each transaction another session.

PgBouncer does so with `pool_mode = transaction`. The time-outs and locks of a session would then affect other clients.
No setting reveals such a pooler, but two open connections get the same session in turn.
"""

from typing import Any

from sqlalchemy import Engine

ROUNDS = 24
"""More than the number of sessions in a pool of PgBouncer by default, in case it gives them in turn."""
_SESSION = "SELECT pg_backend_pid()"


def shares_sessions(engine: Engine) -> bool:
    """Whether another connection's transactions have run in the session of this one."""
    with engine.connect() as one, engine.connect() as other:
        connections: list[Any] = [one.connection.driver_connection, other.connection.driver_connection]
        sessions: list[set[int]] = [set(), set()]
        for _ in range(ROUNDS):
            for connection, seen in zip(connections, sessions, strict=True):
                # A statement that is prepared in one session would be missing in another.
                seen.add(connection.execute(_SESSION, prepare=False).fetchone()[0])
                connection.rollback()
            if len(sessions[0]) > 1 or not sessions[0].isdisjoint(sessions[1]):
                return True
    return False
