"""Brings a database to the newest schema, and refuses a database that this code cannot use."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

from app.store import indexes, pooling
from app.store.compaction import DONE, PROGRESS
from app.store.engines import DatabaseRefusedError
from app.store.event_log import LOG_LEAP
from app.store.facts import fact, set_fact
from app.store.reading import COMPACT, EPOCH, EVENT_FORM, is_compact
from app.store.tables import EVENTS

MIGRATION_LOCK = 0x5155455545  # an arbitrary number that no other program on the server is likely to use
MIGRATION_LOCK_TIMEOUT_MS = 60_000
TABLE_LOCK_TIMEOUT_MS = 1_000
LOCKED = ("55P03", "40P01")
"""PostgreSQL's codes for a lock timeout and for a deadlock."""
NOT_ALLOWED = "42501"
"""PostgreSQL's code for a missing privilege."""
LOCK_ATTEMPTS = 30
LOCK_PAUSE_SECONDS = 0.5
OLDEST_RELEASE = "oldest_release"
"""In META: the newest revision that the oldest release that may use the database knows. A release that does not know
the database's revision may use it if it knows this one."""
PREVIOUS_HEAD = "0004"
"""The newest revision of the previous release, whose processes may use the database until `contract`."""
LEAP = 2**32
"""More transactions, or events, than there can have been between a backup and its restore."""


def migrate(engine: Engine, *, restored: bool = False, contract: bool = False) -> None:
    """Upgrade to the newest schema in one transaction, then update the indexes.

    `restored`: the database is a restored backup. It gets a new epoch, so that every client starts afresh, and its log
    continues after the lost part. `contract`: no process of the previous release runs any more; processes that start
    from now on may write rows that it cannot read. This holds without `contract` for a new database, and for SQLite,
    which has one process. Raises DatabaseRefusedError for a database that newer code has made, or that cannot be opened
    or written.
    """
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            with _opened(engine) as connection, connection.begin():
                _upgrade(connection, restored=restored, contract=contract)
            break
        except DBAPIError as error:
            code = getattr(error.orig, "sqlstate", None)
            if code not in LOCKED and code != NOT_ALLOWED and type(error) not in (OperationalError, DatabaseError):
                raise  # a migration is wrong
            if code not in LOCKED or attempt == LOCK_ATTEMPTS:
                engine.dispose()
                raise _refusal(error) from None
        time.sleep(LOCK_PAUSE_SECONDS)
    indexes.update(engine)


def _upgrade(connection: Connection, *, restored: bool, contract: bool) -> None:
    if connection.dialect.name == "postgresql":
        # Several machines may start the same release at once; after this lock each sees the first one's migration.
        connection.execute(text(f"SET LOCAL lock_timeout = {MIGRATION_LOCK_TIMEOUT_MS}"))
        connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        # A session that waits for a table lock blocks all later ones, so it gives up soon and tries again.
        connection.execute(text(f"SET LOCAL lock_timeout = {TABLE_LOCK_TIMEOUT_MS}"))
    config = _config(connection)
    newer = _is_newer(connection, config)
    if not newer:
        is_new = _revision(connection) is None
        command.upgrade(config, "head")
        if is_new or contract or connection.dialect.name == "sqlite":
            _contract(connection, is_new=is_new)
        elif not is_compact(connection):
            set_fact(connection, OLDEST_RELEASE, PREVIOUS_HEAD)
    if restored:
        _leap(connection)
    if restored or fact(connection, EPOCH) is None:
        set_fact(connection, EPOCH, secrets.token_hex(8))


def _contract(connection: Connection, *, is_new: bool) -> None:
    if not is_compact(connection):
        set_fact(connection, EVENT_FORM, COMPACT)
    set_fact(connection, OLDEST_RELEASE, str(_revision(connection)))
    if is_new:
        # In other databases `compaction` drops it at its end; until then it is needed to find some items' events.
        connection.execute(text("DROP INDEX IF EXISTS ix_event_item"))
        set_fact(connection, PROGRESS, DONE)


def _leap(connection: Connection) -> None:
    """Give new events cursors above those of all events, also of those that were lost since the backup. Otherwise a
    reader whose cursor is a lost event's would miss new events with lower cursors."""
    place = EVENTS.c.transaction_id if connection.dialect.name == "postgresql" else EVENTS.c.cursor
    newest = connection.execute(select(func.coalesce(func.max(place), 0))).scalar_one()
    known = fact(connection, LOG_LEAP)
    set_fact(connection, LOG_LEAP, str(max(newest, int(known or 0)) + LEAP))


def refuse_unknown_schema(engine: Engine) -> None:
    """Raise DatabaseRefusedError for a database that newer code has made and that this code may not use."""
    with _opened(engine) as connection:
        _is_newer(connection, _config(connection))


def refuse_other_schema(engine: Engine) -> None:
    """Raise DatabaseRefusedError unless the schema is this code's own, or a newer one that this code may use."""
    with _opened(engine) as connection:
        config = _config(connection)
        if not _is_newer(connection, config) and _revision(connection) != _head(config):
            raise DatabaseRefusedError("The database has an older schema; run: python -m app migrate")


@contextmanager
def _opened(engine: Engine) -> Iterator[Connection]:
    """A connection. If the database is refused, the engine is disposed of, as nothing else will use it."""
    try:
        connection = engine.connect()
    except DBAPIError as error:
        raise _refusal(error) from None
    try:
        with connection:
            if engine.dialect.name == "postgresql":
                _refuse_shared_sessions(engine)
            yield connection
    except DatabaseRefusedError:
        engine.dispose()
        raise


def _refuse_shared_sessions(engine: Engine) -> None:
    try:
        is_shared = pooling.shares_sessions(engine)
    except (DBAPIError, engine.dialect.loaded_dbapi.Error) as error:
        raise _refusal(error) from None
    if is_shared:
        raise DatabaseRefusedError(
            "The pooler before PostgreSQL changes sessions with each transaction; set its pool_mode = session."
        )


def _refusal(error: Exception) -> DatabaseRefusedError:
    """`error`: SQLAlchemy's, or the driver's own."""
    reason = str(getattr(error, "orig", error)).strip().partition("\n")[0]
    return DatabaseRefusedError(f"The database cannot be used: {reason}")


def _is_newer(connection: Connection, config: Config) -> bool:
    """Whether newer code has made the database. Raises DatabaseRefusedError if this code may then not use it."""
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if (revision := _revision(connection)) is None or revision in known:
        return False
    oldest = fact(connection, OLDEST_RELEASE)
    if oldest not in known:
        raise DatabaseRefusedError(
            "The database has a newer schema than this version of the program; install the newer version."
        )
    return True


def _head(config: Config) -> str | None:
    return ScriptDirectory.from_config(config).get_current_head()


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
