"""The result of the last comparison with the wallet, by any process or command."""

from dataclasses import dataclass
from datetime import datetime

import orjson
from sqlalchemy import Connection

from app.store.facts import fact, set_fact
from app.store.tables import milliseconds, moment

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
    value = fact(connection, NAME)
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
    set_fact(connection, NAME, orjson.dumps(value).decode())
