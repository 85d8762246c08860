"""The result of the last comparison with the wallet, by any process or command."""

from dataclasses import dataclass
from datetime import datetime

import orjson
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from app.store.tables import META, milliseconds, moment

NAME = "wallet_check"
"""In META: the result of the last complete comparison, as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletCheck:
    """The result of a comparison of all open and recent escrows."""

    at: datetime
    """When it ended."""
    examined: int
    different: int


def last(connection: Connection) -> WalletCheck | None:
    """The result of the last complete comparison; None: there has been none."""
    value = connection.execute(select(META.c.value).where(META.c.name == NAME)).scalar_one_or_none()
    if value is None:
        return None
    known = orjson.loads(value)
    return WalletCheck(at=moment(known["at"]), examined=known["examined"], different=known["different"])


def record(connection: Connection, check: WalletCheck) -> None:
    """Store a result, unless a later one is stored already."""
    known = last(connection)
    if known is not None and known.at > check.at:
        return
    value = {"at": milliseconds(check.at), "examined": check.examined, "different": check.different}
    upsert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = upsert(META).values(name=NAME, value=orjson.dumps(value).decode())
    connection.execute(
        statement.on_conflict_do_update(index_elements=["name"], set_={"value": statement.excluded.value})
    )
