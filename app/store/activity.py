"""Activity: the log counted by feature in spans of ten minutes, so that analytics of all rooms need not read items.

The log is counted once, in its order. A cursor in `meta` marks the end of the counted part, and moves in the same
transaction as the counts, so no process counts an event twice. Events that retention removes later stay counted. An
amount that belongs to an earlier time than its event (a refund that the wallet confirms later) is added to the earlier
span.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Select, case, func, select, type_coerce

from app.domain.activity import (
    CONFIRMING_EVENTS,
    COUNTED_EVENTS,
    DURATIONS,
    KIND_OF_EVENT,
    Amounts,
    Life,
    bucket,
    duration,
    of_event,
)
from app.domain.event import EventName
from app.store import compact, event_log, reading, records
from app.store.engines import upsert
from app.store.facts import fact
from app.store.tables import EVENTS, ITEMS, META, ActivityRow, ActivitySpanRow, moment, table_of

ACTIVITY = table_of(ActivityRow)
SPANS = table_of(ActivitySpanRow)
CURSOR = "activity_cursor"
"""In META: the cursor up to which the log has been counted."""
SPAN_MS = 600_000
EVENTS_AT_ONCE = 5_000
LONGEST_LIFE = timedelta(days=1)
"""How long before a span an item may have been created and still count in it, for reports that read items."""
LONGEST_TAIL = 20_000
"""The most events after the cursor that a report reads itself."""

Key = tuple[str, str, int]
"""Feature, kind, number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The counts of a part of the log."""

    after: str | None
    through: str
    amounts: Mapping[tuple[int, str, str, int], int]
    """By span, feature, kind and number."""
    spans: Mapping[int, str]
    """The cursor before the first event of each span in the part."""
    is_last: bool
    """Whether the log ends with this part."""


def _counted(connection: Connection) -> str | None:
    return fact(connection, CURSOR)


def next_batch(connection: Connection, at_most: int = EVENTS_AT_ONCE) -> Batch | None:
    """The next events that have not been counted; None if there are none."""
    after = _counted(connection)
    through, is_last = event_log.log_stretch(connection, after, at_most)
    if through is None:
        return None
    amounts: Counter[tuple[int, str, str, int]] = Counter()
    spans: dict[int, str] = {}
    for event in _events(connection, after, through):
        if (span := event.at // SPAN_MS) not in spans:
            spans[span] = event.cursor_before
        for at, kind, number, value in event.amounts(with_returned=event.is_confirmed):
            kept = bucket(number) if kind in DURATIONS else number
            amounts[at // SPAN_MS, event.life.source_feature, kind, kept] += value
    return Batch(after=after, through=through, amounts=amounts, spans=spans, is_last=is_last)


def add(connection: Connection, batch: Batch) -> bool:
    """Add a batch to the stored counts; returns False, and adds nothing, if it has been counted already."""
    if batch.after is None:
        first = upsert(connection, META).values(name=CURSOR, value=batch.through).on_conflict_do_nothing()
        moved = connection.execute(first.returning(META.c.name)).first()
    else:
        this = (META.c.name == CURSOR) & (META.c.value == batch.after)
        progress = META.update().where(this).values(value=batch.through)
        moved = connection.execute(progress.returning(META.c.name)).first()
    if moved is None:
        return False
    if batch.amounts:
        added = upsert(connection, ACTIVITY)
        added = added.on_conflict_do_update(
            index_elements=list(ACTIVITY.primary_key), set_={"value": ACTIVITY.c.value + added.excluded.value}
        )
        names = ("span", "source_feature", "kind", "number")
        connection.execute(
            added, [dict(zip(names, key, strict=True), value=value) for key, value in sorted(batch.amounts.items())]
        )
    if batch.spans:
        begun = upsert(connection, SPANS).on_conflict_do_nothing()
        connection.execute(begun, [{"span": span, "cursor": cursor} for span, cursor in sorted(batch.spans.items())])
    return True


def total(connection: Connection, start: int, end: int, *, longest_tail: int = LONGEST_TAIL) -> Counter[Key] | None:
    """The amounts of all rooms from `start` up to but not including `end`, in milliseconds since 1970; None while more
    than `longest_tail` events of the log have not been counted yet.

    Whole spans come from the stored counts; the parts of spans at both ends, and the uncounted events, from the log.
    """
    counted = _counted(connection)
    newest, is_last = event_log.log_stretch(connection, counted, longest_tail)
    if not is_last:
        return None
    first, last = -(-start // SPAN_MS), end // SPAN_MS
    reader = _LogReader(connection, start, end)
    if counted is not None:
        edges = [(start, first * SPAN_MS), (last * SPAN_MS, end)] if first <= last else [(start, end)]
        for edge in edges:
            reader.add_edge(*edge, counted)
    if newest is not None:
        reader.add_tail(counted, newest)
    if counted is not None and first < last:
        _add_spans(connection, reader.found, first, last)
    return reader.found


def _add_spans(connection: Connection, found: Counter[Key], first: int, last: int) -> None:
    columns = (ACTIVITY.c.source_feature, ACTIVITY.c.kind, ACTIVITY.c.number)
    statement = (
        select(*columns, func.sum(ACTIVITY.c.value))
        .where(ACTIVITY.c.span >= first, ACTIVITY.c.span < last)
        .group_by(*columns)
    )
    for feature, kind, number, value in connection.execute(statement):
        found[feature, kind, duration(number) if kind in DURATIONS else number] += int(value)


class _LogReader:
    """Adds up the events read from the log for one report: the edges, then the tail."""

    def __init__(self, connection: Connection, start: int, end: int) -> None:
        self._connection = connection
        self._start = start
        self._end = end
        self._refunded: set[str] = set()
        """Items whose refund has been read here, and counted with the amounts that the wallet has confirmed by now. A
        confirmation in the tail counts only for other items, whose refund is in a stored span."""
        self.found: Counter[Key] = Counter()

    def add_edge(self, start: int, end: int, counted: str) -> None:
        """Add a part of one span. Its events precede the span after the next: clocks differ by less than a span."""
        span = start // SPAN_MS
        place = select(SPANS.c.cursor)
        before = self._connection.execute(place.where(SPANS.c.span == span)).scalar_one_or_none()
        if before is None or start >= end:
            return
        following = place.where(SPANS.c.span > span + 1).order_by(SPANS.c.span).limit(1)
        through = self._connection.execute(following).scalar_one_or_none() or counted
        # Without confirmations, an event counts at its own time, so the database need not look up other items.
        here = _COUNTED_EVENTS.where(EVENTS.c.at >= moment(start), EVENTS.c.at < moment(end))
        self._add(_events(self._connection, before, through, here), start, end, with_confirmations=False)

    def add_tail(self, counted: str | None, newest: str) -> None:
        """Add the events that have not been counted yet."""
        self._add(_events(self._connection, counted, newest), self._start, self._end, with_confirmations=True)

    def _add(self, events: "Iterator[_Event]", start: int, end: int, *, with_confirmations: bool) -> None:
        for event in events:
            is_refund = event.name == EventName.ITEM_REFUNDED.value
            if is_refund:
                self._refunded.add(event.item_id)
            confirms = with_confirmations and event.is_confirmed and event.item_id not in self._refunded
            feature = event.life.source_feature
            for at, kind, number, value in event.amounts(with_returned=is_refund or confirms):
                if start <= at < end:
                    self.found[feature, kind, number] += value


class _Event(NamedTuple):
    name: str
    at: int
    transaction: int | None
    cursor: int
    item_id: str
    is_confirmed: bool
    life: Life

    @property
    def cursor_before(self) -> str:
        before = self.cursor - 1
        return str(before) if self.transaction is None else f"{self.transaction}.{before}"

    def amounts(self, *, with_returned: bool) -> Amounts:
        return of_event(self.name, self.life, with_returned=with_returned)


_LIFE: list[Any] = [
    type_coerce(ITEMS.c[name], BigInteger) if name.endswith("_at") else ITEMS.c[name] for name in Life._fields
]
_COUNTED_EVENTS = (
    select(
        EVENTS.c.name,
        type_coerce(EVENTS.c.at, BigInteger),
        EVENTS.c.transaction_id,
        EVENTS.c.cursor,
        EVENTS.c.item_id,
        case((EVENTS.c.name.in_(compact.stored_names(CONFIRMING_EVENTS)), EVENTS.c.item)),
        *_LIFE,
    )
    .join(ITEMS, ITEMS.c.item_id == EVENTS.c.item_id)
    .where(EVENTS.c.name.in_(compact.stored_names(COUNTED_EVENTS)))
)


def _events(
    connection: Connection, after: str | None, through: str, of: Select[Any] = _COUNTED_EVENTS
) -> Iterator[_Event]:
    """The events after a cursor up to and including another one."""
    statement = event_log.in_stretch(of, connection, after, through)
    for name, at, transaction, cursor, item_id, item, *life in connection.execute(statement):
        is_confirmed = item is not None and records.is_confirmed(item)
        yield _Event(compact.full_name(name), at, transaction, cursor, item_id, is_confirmed, Life._make(life))


def compared(connection: Connection) -> Iterator[tuple[str, int, int]]:
    """For each kind that an event counts: the kind, the stored count, and the number of such events in the counted part
    of the log."""
    counted = _counted(connection)
    if counted is None:
        return
    events = event_log.in_stretch(select(EVENTS.c.name, EVENTS.c.cursor), connection, None, counted).subquery()
    names = select(events.c.name, func.count()).group_by(events.c.name)
    logged: Counter[str] = Counter()
    for name, number in connection.execute(names):
        logged[compact.full_name(name)] += number
    kinds = select(ACTIVITY.c.kind, func.sum(ACTIVITY.c.value)).group_by(ACTIVITY.c.kind)
    sums = {kind: int(number) for kind, number in connection.execute(kinds)}
    for name, kind in KIND_OF_EVENT.items():
        yield kind, sums.get(kind, 0), logged[name]


def lives(connection: Connection, start: datetime, end: datetime, performer_id: str | None) -> Iterator[Life]:
    """The items with amounts that can lie between two times: created before `end`, and at most LONGEST_LIFE before
    `start`; of one room, or of all (None)."""
    columns = select(*_LIFE)
    # A UUIDv7 begins with its millisecond, so a span of creation times is a range of the primary key.
    statement: Any = columns.where(
        ITEMS.c.item_id >= reading.first_id(start - LONGEST_LIFE), ITEMS.c.item_id < reading.first_id(end)
    )
    if performer_id is not None:
        # Two indexes of the room, in place of the primary key's range, which holds the items of all rooms.
        room = columns.where(ITEMS.c.performer_id == performer_id)
        ended = room.where(ITEMS.c.ended_at.is_not(None), ITEMS.c.ended_at >= start - LONGEST_LIFE)
        statement = ended.union_all(room.where(reading.ACTIVE_ITEMS))
    for row in connection.execute(statement.execution_options(yield_per=1000)):
        yield Life(*row)
