"""Bringing a database to the newest schema, and refusing one that this code does not know."""

import secrets
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, delete, insert, select

from app.store.engines import DatabaseRefusedError
from app.store.reading import META


def migrate(engine: Engine, *, restored: bool = False) -> None:
    """Upgrade to the newest schema, all in one transaction.

    With `restored` the database says that its history is another one from now on (a new epoch), so that every client
    starts afresh. Raises DatabaseRefusedError for a database made by newer code.
    """
    with engine.begin() as connection:
        config = _config(connection)
        _refuse_newer(connection, config)
        command.upgrade(config, "head")
        if restored:
            connection.execute(delete(META).where(META.c.name == "epoch"))
        if connection.execute(select(META.c.value).where(META.c.name == "epoch")).first() is None:
            connection.execute(insert(META).values(name="epoch", value=secrets.token_hex(8)))


def check(engine: Engine) -> None:
    """Raise DatabaseRefusedError unless the database has exactly the schema of this code."""
    with engine.connect() as connection:
        config = _config(connection)
        _refuse_newer(connection, config)
        if _revision(connection) != ScriptDirectory.from_config(config).get_current_head():
            raise DatabaseRefusedError("The database has an older schema; run: python -m app migrate")


def _refuse_newer(connection: Connection, config: Config) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if (revision := _revision(connection)) is not None and revision not in known:
        raise DatabaseRefusedError(
            "The database has a newer schema than this version of the program; install the newer version."
        )


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
