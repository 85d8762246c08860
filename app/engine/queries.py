"""Reads rooms and items as they are now: from the lanes' cached rooms if those are current, else from the database.

Queries run in two small pools of threads, one for short queries and one for slow ones. Changes nothing.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from app.domain.errors import ItemNotFound, PerformerNotFound
from app.domain.event import Event
from app.domain.item import Item
from app.domain.room import Room
from app.engine.deadline import Deadline
from app.engine.lane import Lanes
from app.engine.reader_pool import ReaderPool
from app.store import Store, event_log, reading
from app.wire.requests import is_identifier

READER_THREADS = 4
QUERY_SECONDS = 5.0
QUERIES_LIMIT = 1000
REPORT_THREADS = 1
"""One: a report computes in Python, and a second one would only compete for the interpreter's lock."""
REPORTS_LIMIT = 8
REMEMBERED_ITEMS = 100_000
"""The most items whose room is remembered. On a shared database some end in another process and are not removed."""
LONGEST_CATCH_UP = 500
"""The most events that are read at once for a room that has missed some."""

T = TypeVar("T")


class Queries:
    def __init__(
        self,
        store: Store,
        lanes: Lanes,
        *,
        seconds: float = QUERY_SECONDS,
        limit: int = QUERIES_LIMIT,
        remembered_items: int = REMEMBERED_ITEMS,
    ) -> None:
        """`seconds`: the time limit of a query without a deadline. `limit`: the most queries under way and waiting.
        `remembered_items`: the most items whose room is remembered."""
        self._store = store
        self._lanes = lanes
        self._seconds = seconds
        self._remembered_items = remembered_items
        self._pool = ReaderPool(store, threads=READER_THREADS, seconds=seconds, limit=limit, name="reader")
        self._reports = ReaderPool(store, threads=REPORT_THREADS, seconds=seconds, limit=REPORTS_LIMIT, name="report")
        self._room_of_item: OrderedDict[str, str] = OrderedDict()
        """The performer ids of active items committed here, by item id, the oldest first. Saves a query, and
        half of the CPU that reads a position among 50 items (`bench --without room-of-item`)."""

    def close(self) -> None:
        """Drop the queries that wait, and free the threads that are stuck in the database."""
        self._pool.close()
        self._reports.close()
        self._store.engines.interrupt()

    async def run(self, query: Callable[[Connection], T], deadline: Deadline | None = None) -> T:
        """The result of a short query. Raises Unavailable as ReaderPool.run does."""
        return await self._pool.run(query, deadline)

    async def run_slow(self, query: Callable[[Connection], T]) -> T:
        """The result of a query over many rows, in the pool for slow queries. Raises Unavailable as ReaderPool.run
        does."""
        return await self._reports.run(query)

    async def room(self, performer_id: str, deadline: Deadline | None = None) -> Room:
        """The room as last committed; one that does not exist yet is empty and has version 0."""
        cached = self._lanes.peek(performer_id)
        if cached is not None and not self._store.shared:
            return cached

        def read(connection: Connection) -> Room:
            if cached is not None:
                versions = reading.versions(connection, [performer_id])
                if versions.get(performer_id, 0) == cached.version:
                    return cached
            return reading.load_rooms(connection, self._store.policy, [performer_id])[performer_id]

        return await self.run(read, deadline)

    async def versions(self, performer_ids: Collection[str]) -> dict[str, int]:
        """The committed versions of those of these rooms that exist."""
        known: dict[str, int] = {}
        if not self._store.shared:
            cached = [self._lanes.peek(performer_id) for performer_id in performer_ids]
            known = {room.performer_id: room.version for room in cached if room is not None}
        if missing := [performer_id for performer_id in performer_ids if performer_id not in known]:
            known |= await self.run(lambda connection: reading.versions(connection, missing))
        return {performer_id: version for performer_id, version in known.items() if version}

    async def existing_room(self, performer_id: str) -> Room:
        """The room as last committed. Raises PerformerNotFound if it does not exist."""
        room = await self.room(performer_id)
        if room.version == 0:
            raise PerformerNotFound("This performer has no queue yet.")
        return room

    async def item(self, item_id: str, deadline: Deadline | None = None) -> tuple[Item, Room]:
        """An item and its room, by several queries that share the deadline. Raises ItemNotFound."""
        deadline = deadline or Deadline(self._seconds)
        performer_id = self._room_of_item.get(item_id)
        if performer_id is not None:
            room = await self.room(performer_id, deadline)
            if (active := room.find(item_id)) is not None:
                return active, room
        elif not is_identifier(item_id):
            raise ItemNotFound("There is no such item.")
        while True:
            item = await self.run(lambda connection: reading.find_item(connection, item_id), deadline)
            if item is None:
                raise ItemNotFound("There is no such item.")
            room = await self.room(item.performer_id, deadline)
            if not item.is_active:
                return item, room
            if (active := room.find(item_id)) is not None:
                return active, room
            # The item ended between the two reads; its row now has the end.

    async def position(self, item: Item) -> tuple[Item, int]:
        """The item as it is now, and its position. An active item is read again, together with its room."""
        if not item.is_active:
            return item, 0
        item, room = await self.item(item.item_id)
        return item, room.position(item.item_id)

    def observe(self, events: Sequence[Event]) -> None:
        """Remember the room of each active item from committed events."""
        for event in events:
            if event.item is None:
                continue
            if event.item.is_active:
                self._room_of_item[event.item.item_id] = event.performer_id
                if len(self._room_of_item) > self._remembered_items:
                    self._room_of_item.popitem(last=False)
            else:
                self._room_of_item.pop(event.item.item_id, None)

    async def missed(self, performer_id: str, after: int, *, limit: int = LONGEST_CATCH_UP) -> Sequence[Event]:
        """A room's events after a version, in order, at most `limit`."""
        return await self.run(lambda connection: event_log.room_events(connection, performer_id, after, limit))
