"""Facts about the database as a whole: the named values in the table `meta`."""

from sqlalchemy import Connection, bindparam, select

from app.store.engines import upsert
from app.store.tables import META

_FACT = select(META.c.value).where(META.c.name == bindparam("fact_name"))
_LOCKED_FACT = _FACT.with_for_update()


def fact(connection: Connection, name: str, *, lock: bool = False) -> str | None:
    """The value of a fact; None if it is not set. With `lock` no other transaction can set it meanwhile."""
    statement = _LOCKED_FACT if lock else _FACT
    return connection.execute(statement, {"fact_name": name}).scalar_one_or_none()


def set_fact(connection: Connection, name: str, value: str) -> None:
    """Set a fact, or replace its value."""
    statement = upsert(connection, META).values(name=name, value=value)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["name"], set_={"value": statement.excluded.value})
    )
