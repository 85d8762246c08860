"""Reads a room as it was at an earlier version, by folding its log."""

from msgspec.structs import replace
from sqlalchemy import Connection, bindparam, func, select

from app.domain.room import Policy, Room, fold
from app.store import event_log, reading, records
from app.store.reading import ACTIVE_ITEMS
from app.store.tables import EVENTS, ITEMS

REPLAYED_AT_ONCE = 500


class PrunedError(Exception):
    """Retention has removed the version from the room's log; `floor` is the oldest version that can be replayed."""

    def __init__(self, floor: int) -> None:
        super().__init__(f"the oldest version kept is {floor}")
        self.floor = floor


_QUEUED_AT = select(func.min(func.coalesce(ITEMS.c.first_version, 1))).where(
    ITEMS.c.performer_id == bindparam("performer_id"), ITEMS.c.pass_through_mode.is_(False)
)
_SETTINGS_AT = (
    event_log.EVENT_ROWS.where(
        EVENTS.c.performer_id == bindparam("performer_id"),
        EVENTS.c.version <= bindparam("version"),
        EVENTS.c.settings.is_not(None),
    )
    .order_by(EVENTS.c.version.desc())
    .limit(1)
)


def room_at(connection: Connection, policy: Policy, performer_id: str, version: int) -> Room | None:
    """A room as it was at a version: its settings and its queue.

    The log is folded from the creation of the oldest item that was in the queue at that version. Fields that viewers do
    not see (clocks of waiting items, the history) may be incomplete. None if the room has not reached that version.
    Raises PrunedError if retention has removed it.
    """
    row = connection.execute(reading.ROOM_ROWS, {"performer_ids": [performer_id]}).mappings().first()
    if row is None or not 0 < version <= row["version"]:
        return None
    floor = row["pruned_through"] or 0
    if version < floor:
        raise PrunedError(floor)
    here = {"performer_id": performer_id, "version": version}
    next_at = connection.execute(event_log.AT_OF_NEXT, here).scalar_one_or_none()
    oldest = _QUEUED_AT.where(ACTIVE_ITEMS)
    ends = [oldest] if next_at is None else [oldest, _QUEUED_AT.where(ITEMS.c.ended_at >= next_at)]
    firsts = [connection.execute(each, {"performer_id": performer_id}).scalar_one() for each in ends]
    begin = min((first for first in firsts if first is not None), default=version + 1) - 1
    begin = min(begin, version)
    settings = connection.execute(_SETTINGS_AT, {"performer_id": performer_id, "version": begin}).mappings().first()
    room = Room(performer_id=performer_id, policy=policy, version=begin)
    if settings is not None:
        known = records.event_from(settings)
        room = replace(room, settings=known.settings or room.settings, last_at=known.at)
    while room.version < version:
        events = event_log.room_events(
            connection, performer_id, room.version, min(version - room.version, REPLAYED_AT_ONCE)
        )
        events = [event for event in events if event.version <= version]
        for event in events:
            room = fold(room, event.name, event.at, item=event.item, settings=event.settings)
            room = replace(room, version=event.version)
        if not events:
            break
    return replace(room, version=version)
