"""Makes a user unrecognisable: replaces the user id and empties descriptions and metadata, in every row.

The order, the amounts, the titles and the audit trail stay, so that rooms replay and money adds up as before.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, func, select, update

from app.domain.operation import OperationStatus
from app.store import compact, event_log
from app.store.reading import ACTIVE_ITEMS
from app.store.tables import ANSWERS, EVENTS, ITEMS, OPERATIONS

ITEMS_AT_ONCE = 100
NOBODY = "forgotten-"
"""The prefix of the ids of forgotten users."""

_ITEMS = select(ITEMS.c.item_id).where(ITEMS.c.user_id == bindparam("user_id")).limit(bindparam("at_most"))
_REWRITE = (
    update(EVENTS)
    .where(EVENTS.c.performer_id == bindparam("room"), EVENTS.c.version == bindparam("key"))
    .values(item=bindparam("new_item"), actor_id=bindparam("new_actor_id"))
)


def open_items(connection: Connection, user_id: str) -> int:
    """The number of a user's items in a queue, and of those that wait for the wallet. Both still need the user's id."""
    mine = ITEMS.c.user_id == user_id
    waiting = select(func.count()).select_from(ITEMS).where(mine, ACTIVE_ITEMS)
    unresolved = (
        select(func.count())
        .select_from(ITEMS.join(OPERATIONS, OPERATIONS.c.item_id == ITEMS.c.item_id))
        .where(mine, OPERATIONS.c.status != OperationStatus.DONE.value)
    )
    return int(connection.execute(waiting).scalar_one()) + int(connection.execute(unresolved).scalar_one())


def forget_some(connection: Connection, user_id: str, new_id: str, at_most: int = ITEMS_AT_ONCE) -> int:
    """Forget the user in at most `at_most` items; returns their number. If it is lower, no items are left."""
    item_ids = list(connection.execute(_ITEMS, {"user_id": user_id, "at_most": at_most}).scalars())
    for item_id in item_ids:
        _forget_events(connection, event_log.item_log(connection, item_id), user_id, new_id)
    these = ITEMS.c.item_id.in_(item_ids)
    connection.execute(update(ITEMS).where(these).values(user_id=new_id, description="", metadata="{}"))
    connection.execute(
        # A wallet may have named the user in its last answer.
        update(OPERATIONS).where(OPERATIONS.c.item_id.in_(item_ids)).values(user_id=new_id, last_problem=None)
    )
    return len(item_ids)


def forget_answers(connection: Connection, user_id: str, new_id: str) -> None:
    """Move the stored answers to the user's own commands to the new id."""
    connection.execute(update(ANSWERS).where(ANSWERS.c.scope == f"viewer:{user_id}").values(scope=f"viewer:{new_id}"))


def _forget_events(connection: Connection, rows: Sequence[Any], user_id: str, new_id: str) -> None:
    changed = []
    for row in rows:
        item, actor_id = row["item"], row["actor_id"]
        if item is not None and not item.startswith(compact.MARK):
            whole = orjson.loads(item) | {"user_id": new_id, "description": "", "metadata": {}}
            item = orjson.dumps(whole).decode()
        if row["actor_role"] == "viewer" and actor_id == user_id:
            actor_id = new_id
        if (item, actor_id) != (row["item"], row["actor_id"]):
            this = {"room": row["performer_id"], "key": row["version"]}
            changed.append({**this, "new_item": item, "new_actor_id": actor_id})
    if changed:
        connection.execute(_REWRITE, changed)
