"""How good the waits were that items were told on arrival, by the number of items that were ahead of them.

Counted in the database: the rows of a month over all rooms need not be read one by one.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, case, func, select, type_coerce

from app.store.reading import ACTIVE_ITEMS, ITEMS, LONGEST_LIFE, first_id

PLACES_AHEAD = ((0, 0), (1, 1), (2, 3), (4, 6), (7, 10), (11, None))
"""From and to; the last one has no end."""

_WAITED: ColumnElement[Any] = (
    type_coerce(ITEMS.c.started_at, BigInteger) - type_coerce(ITEMS.c.created_at, BigInteger)
) / 1000.0
_ERROR = _WAITED - ITEMS.c.quoted_wait_seconds
_PLACE = case(
    *(
        (ITEMS.c.quoted_position <= last + 1, number)
        for number, (_, last) in enumerate(PLACES_AHEAD)
        if last is not None
    ),
    else_=len(PLACES_AHEAD) - 1,
)
_INSIDE = _WAITED.between(ITEMS.c.quoted_low_seconds, ITEMS.c.quoted_high_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldWaits:
    """The waits told to items with so many ahead, against what came. Seconds; None where there is none to count."""

    ahead_from: int
    ahead_to: int | None
    count: int = 0
    mean_absolute_seconds: float | None = None
    bias_seconds: float | None = None
    """Positive: the items waited longer than told."""
    ranged: int = 0
    """How many were told a 10–90 % range."""
    inside: int = 0
    """How many of those waited for a time within it."""


def told_waits(connection: Connection, start: datetime, end: datetime, performer_id: str | None) -> list[ToldWaits]:
    """One entry for each of PLACES_AHEAD, of the items started from `start` up to but not including `end`."""
    told = select(
        _PLACE.label("place"),
        _ERROR.label("error"),
        case((ITEMS.c.quoted_low_seconds.is_not(None), 1), else_=0).label("ranged"),
        case((_INSIDE, 1), else_=0).label("inside"),
    ).where(
        ITEMS.c.started_at >= start,
        ITEMS.c.started_at < end,
        ITEMS.c.pass_through_mode.is_(False),
        ITEMS.c.quoted_wait_seconds.is_not(None),
        ITEMS.c.quoted_position.is_not(None),
    )
    rows: Any
    if performer_id is None:
        rows = told.where(ITEMS.c.item_id >= first_id(start - LONGEST_LIFE), ITEMS.c.item_id < first_id(end))
    else:
        # As in `reading.items_of_span`: two indexes of the room, in place of a range of all rooms' items.
        room = told.where(ITEMS.c.performer_id == performer_id)
        rows = room.where(ITEMS.c.ended_at >= start).union_all(room.where(ACTIVE_ITEMS))
    of = rows.subquery().c
    counted = select(
        of.place,
        func.count(),
        func.avg(func.abs(of.error)),
        func.avg(of.error),
        func.sum(of.ranged),
        func.sum(of.inside),
    ).group_by(of.place)
    found = {place: figures for place, *figures in connection.execute(counted)}
    return [
        _told(first, last, *found.get(number, (0, None, None, 0, 0)))
        for number, (first, last) in enumerate(PLACES_AHEAD)
    ]


def _told(
    first: int, last: int | None, count: int, error: float | None, bias: float | None, ranged: int, inside: int
) -> ToldWaits:
    return ToldWaits(
        ahead_from=first,
        ahead_to=last,
        count=count,
        mean_absolute_seconds=error,
        bias_seconds=bias,
        ranged=int(ranged),
        inside=int(inside),
    )
