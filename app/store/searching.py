"""Finds items by a word: an id, a user, an escrow, a reference of the wallet, an amount.

Exact matches use an index. A feature's event id and the end of a reference have no index, and are searched among the
newest items only, so that the cost of a search does not grow with history.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from app.domain.item import Item
from app.store import records
from app.store.reading import ACTIVE_ITEMS
from app.store.tables import ITEMS

SCANNED = 20_000
"""The most items that are examined without an index: about 50 ms on SQLite."""
SHORTEST_END = 6
"""The least number of characters of the end of a reference; pages show eight."""
LARGEST_AMOUNT = 2**53 - 1
ELLIPSIS = "…"

REFERENCES = ("item_id", "escrow_transaction_id", "settlement_transaction_id", "refund_transaction_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    items: list[Item]
    """Newest first."""
    more: bool
    """Whether there are others beyond the limit."""
    looked_back_to: datetime | None
    """When the oldest item that was examined without an index was created; None: all items were, or none had to be."""


def search_items(connection: Connection, words: str, *, limit: int, scanned: int = SCANNED) -> Found:
    """The newest `limit` items that match `words`. `scanned`: the most items that are examined without an index."""
    # A reference belongs to one item or to a few, so its query needs no order.
    queries = [select(ITEMS.c.item_id).where(ITEMS.c[name] == words).limit(limit + 1) for name in REFERENCES]
    of_user = select(ITEMS.c.item_id).where(ITEMS.c.user_id == words)
    # In the order of that index: in the order of ids PostgreSQL might read all items.
    queries.append(of_user.order_by(ITEMS.c.created_at.desc(), ITEMS.c.item_id.desc()).limit(limit + 1))
    if words.isascii() and words.isdigit() and len(words) < 17 and int(words) <= LARGEST_AMOUNT:
        of_amount = select(ITEMS.c.item_id).where(ITEMS.c.tokens == int(words))
        ended = of_amount.where(ITEMS.c.ended_at.is_not(None)).order_by(ITEMS.c.ended_at.desc())
        queries.append(ended.limit(limit + 1))
        # Without an order, so that the index of active items is used: in the order of ids all items would be read.
        queries.append(of_amount.where(ACTIVE_ITEMS).limit(scanned))
    ids: set[str] = set()
    for query in queries:
        ids.update(connection.execute(query).scalars())
    looked_back_to = None
    if len(ids) <= limit:
        oldest, others = _scan(connection, words, limit + 1, scanned)
        ids.update(others)
        looked_back_to = oldest
    newest = sorted(ids, reverse=True)
    rows = connection.execute(select(ITEMS).where(ITEMS.c.item_id.in_(newest[:limit]))).mappings()
    items = sorted((records.item_from(row) for row in rows), key=lambda item: item.item_id, reverse=True)
    return Found(items=items, more=len(newest) > limit, looked_back_to=looked_back_to)


def _newest(statement: Select[Any], at_most: int) -> Select[Any]:
    return statement.order_by(ITEMS.c.item_id.desc()).limit(at_most)


def _scan(connection: Connection, words: str, at_most: int, scanned: int) -> tuple[datetime | None, list[str]]:
    """The creation time of the oldest item examined (None: all were), and the ids of those of the newest items that
    have this event id of a feature, or a reference that ends in `words`."""
    columns = [ITEMS.c[name] for name in (*REFERENCES, "source_event_id", "created_at")]
    newest = _newest(select(*columns), scanned).subquery()
    alike = [newest.c.source_event_id == words]
    end = words.removeprefix(ELLIPSIS)
    if len(end) >= SHORTEST_END:
        alike += [newest.c[name].endswith(end, autoescape=True) for name in REFERENCES]
    found = select(newest.c.item_id).where(or_(*alike)).order_by(newest.c.item_id.desc()).limit(at_most)
    ids = list(connection.execute(found).scalars())
    beyond = select(ITEMS.c.created_at).order_by(ITEMS.c.item_id.desc()).offset(scanned - 1).limit(2)
    edge = list(connection.execute(beyond).scalars())
    return (edge[0] if len(edge) == 2 else None), ids
