"""Rows of push subscriptions, of notices to them, and of the progress of reading the log for notices."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Connection, RowMapping, and_, delete, exists, func, or_, select, update

from app.domain.command import Role
from app.domain.event import EventName
from app.domain.item import Status
from app.domain.push import LONGEST_NEWS, SUBSCRIPTIONS_OF_A_USER, Language, Moment, Notice, Subscription
from app.domain.room import NEXT_UP
from app.store import compact, event_log
from app.store.engines import upsert
from app.store.push_tables import PUSH_NOTICES, PUSH_PROGRESS, PUSH_SUBSCRIPTIONS
from app.store.reading import ACTIVE_ITEMS
from app.store.tables import EVENTS, ITEMS

PAGE = 500
"""Events that are read together."""
LOG = "log"
"""The name of the one row of progress."""
KEPT_AFTERWARDS = timedelta(minutes=10)
"""How long an expired notice is kept: long enough that it is not made again if a crash has part of the log re-read."""

_SUBSCRIBED = exists().where(PUSH_SUBSCRIPTIONS.c.user_id == ITEMS.c.user_id)
"""Whether an item's user has a subscription. A subquery per item, since there may be many subscribers."""
_MOMENTS: Mapping[str, Moment] = {
    EventName.ITEM_STARTED: Moment.STARTED,
    EventName.ITEM_ABANDONED: Moment.ENDED,
    EventName.ITEM_REFUNDED: Moment.ENDED,
}
_STARTED = compact.stored_names([EventName.ITEM_STARTED])
_DONE = {"next_attempt_at": None}


def save_subscription(connection: Connection, subscription: Subscription) -> bool:
    """Insert or renew a subscription; returns whether it is new. Other subscriptions with its endpoint are removed, and
    the user's oldest ones beyond SUBSCRIPTIONS_OF_A_USER."""
    mine = _is(subscription.user_id, subscription.name)
    before = connection.execute(
        select(PUSH_SUBSCRIPTIONS.c.created_at, PUSH_SUBSCRIPTIONS.c.endpoint).where(mine)
    ).first()
    connection.execute(
        delete(PUSH_SUBSCRIPTIONS).where(or_(mine, PUSH_SUBSCRIPTIONS.c.endpoint == subscription.endpoint))
    )
    values = {**asdict(subscription), "language": str(subscription.language)}
    if before is not None:
        values["created_at"] = before.created_at
    # Two tabs of a browser may do this at the same time in two processes: the first insert wins.
    connection.execute(upsert(connection, PUSH_SUBSCRIPTIONS).on_conflict_do_nothing(), values)
    newest_first = (
        select(PUSH_SUBSCRIPTIONS.c.name)
        .where(PUSH_SUBSCRIPTIONS.c.user_id == subscription.user_id)
        .order_by(PUSH_SUBSCRIPTIONS.c.renewed_at.desc(), PUSH_SUBSCRIPTIONS.c.name)
    )
    for name in connection.execute(newest_first).scalars().all()[SUBSCRIPTIONS_OF_A_USER:]:
        delete_subscription(connection, subscription.user_id, name)
    return before is None


def find_subscription(connection: Connection, user_id: str, name: str) -> Subscription | None:
    row = connection.execute(select(PUSH_SUBSCRIPTIONS).where(_is(user_id, name))).mappings().first()
    return None if row is None else _subscription(row)


def delete_subscription(connection: Connection, user_id: str, name: str, endpoint: str | None = None) -> bool:
    """Delete a subscription and its notices; returns whether it existed. `endpoint`: only if this is still its
    endpoint."""
    this = _is(user_id, name)
    if endpoint is not None:
        this = and_(this, PUSH_SUBSCRIPTIONS.c.endpoint == endpoint)
    if not connection.execute(delete(PUSH_SUBSCRIPTIONS).where(this)).rowcount:
        return False
    connection.execute(delete(PUSH_NOTICES).where(PUSH_NOTICES.c.user_id == user_id, PUSH_NOTICES.c.name == name))
    return True


def forget(connection: Connection, user_id: str) -> None:
    """Delete a user's subscriptions and notices."""
    for table in (PUSH_SUBSCRIPTIONS, PUSH_NOTICES):
        connection.execute(delete(table).where(table.c.user_id == user_id))


def count_subscriptions(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(PUSH_SUBSCRIPTIONS)).scalar_one())


# The progress of reading the log


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    cursor: str | None
    """None: nothing has been read."""
    holder: str
    lease_until: datetime


def progress(connection: Connection) -> Progress | None:
    row = connection.execute(select(PUSH_PROGRESS).where(PUSH_PROGRESS.c.name == LOG)).first()
    return None if row is None else Progress(cursor=row.cursor, holder=row.holder, lease_until=row.lease_until)


def claim(connection: Connection, holder: str, now: datetime, until: datetime) -> Progress | None:
    """Make this process the only one that reads the log and sends; returns the progress, or None if another process is.

    The first claim ever, and the first after more than LONGEST_NEWS without a lease, begin at the end of the log.
    """
    connection.execute(
        upsert(connection, PUSH_PROGRESS)
        .values(name=LOG, cursor=event_log.log_end(connection), holder="", lease_until=now)
        .on_conflict_do_nothing()
    )
    before = progress(connection)
    free = or_(PUSH_PROGRESS.c.holder.in_(["", holder]), PUSH_PROGRESS.c.lease_until <= now)
    values: dict[str, Any] = {"holder": holder, "lease_until": until}
    if before is None or before.lease_until < now - LONGEST_NEWS:
        values["cursor"] = event_log.log_end(connection)
    claimed = update(PUSH_PROGRESS).where(PUSH_PROGRESS.c.name == LOG, free).values(**values)
    return progress(connection) if connection.execute(claimed).rowcount else None


def advance(
    connection: Connection, holder: str, cursor: str | None, until: datetime, notices: Sequence[Notice], now: datetime
) -> bool:
    """Store that the log has been read up to `cursor`, with the `notices` found, and extend the lease to `until`.
    Returns False, and stores nothing, if this process does not hold the lease."""
    held = and_(PUSH_PROGRESS.c.name == LOG, PUSH_PROGRESS.c.holder == holder)
    if not connection.execute(update(PUSH_PROGRESS).where(held).values(cursor=cursor, lease_until=until)).rowcount:
        return False
    if notices:
        rows = [{**asdict(notice), "moment": str(notice.moment), "next_attempt_at": now} for notice in notices]
        connection.execute(upsert(connection, PUSH_NOTICES).on_conflict_do_nothing(), rows)
    return True


def release(connection: Connection, holder: str, cursor: str | None) -> None:
    """Give the lease back, and store the cursor up to which this process has read the log."""
    held = and_(PUSH_PROGRESS.c.name == LOG, PUSH_PROGRESS.c.holder == holder)
    connection.execute(update(PUSH_PROGRESS).where(held).values(holder="", cursor=cursor))


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """The notices that a part of the log gives rise to."""

    cursor: str | None
    """The end of the part: all events up to it have been read."""
    notices: Sequence[Notice]
    """Without those that are stored already."""
    is_end: bool
    """Whether the log ends there."""


def read_news(connection: Connection, after: str | None, now: datetime) -> News:
    """The news in the next PAGE events after a cursor."""
    if not connection.execute(select(exists().select_from(PUSH_SUBSCRIPTIONS))).scalar_one():
        return News(cursor=event_log.log_end(connection) or after, notices=(), is_end=True)
    through, is_end = event_log.log_stretch(connection, after, PAGE)
    if through is None:
        return News(cursor=after, notices=(), is_end=True)
    found = [*_begun_or_ended(connection, after, through, now), *_next_ones(connection, after, through, now)]
    return News(cursor=through, notices=_for_subscriptions(connection, found), is_end=is_end)


@dataclass(frozen=True, slots=True)
class _Found:
    item_id: str
    moment: Moment
    user_id: str
    performer_id: str
    expires_at: datetime


def _begun_or_ended(connection: Connection, after: str | None, through: str, now: datetime) -> list[_Found]:
    columns = EVENTS.c.name, EVENTS.c.item_id, EVENTS.c.performer_id, EVENTS.c.at, ITEMS.c.user_id
    statement = (
        select(*columns)
        .join(ITEMS, ITEMS.c.item_id == EVENTS.c.item_id)
        .where(
            EVENTS.c.name.in_(compact.stored_names(_MOMENTS)),
            # The user has been notified when the item was abandoned, and knows of a cancellation of their own.
            or_(EVENTS.c.from_status.is_(None), EVENTS.c.from_status != str(Status.ABANDONED)),
            EVENTS.c.actor_role != str(Role.VIEWER),
            # An item that passes through is started and finished in one step.
            or_(ITEMS.c.pass_through_mode.is_(False), EVENTS.c.name.not_in(_STARTED)),
            _SUBSCRIBED,
        )
    )
    rows = connection.execute(event_log.in_stretch(statement, connection, after, through)).all()
    found = []
    for row in rows:
        moment = _MOMENTS[compact.full_name(row.name)]
        found.append(_Found(row.item_id, moment, row.user_id, row.performer_id, row.at + moment.lasts))
    return [each for each in found if each.expires_at > now]


def _next_ones(connection: Connection, after: str | None, through: str, now: datetime) -> list[_Found]:
    """The items that are next to be served in the rooms of these events."""
    rooms = event_log.in_stretch(select(EVENTS.c.performer_id), connection, after, through)
    touched = set(connection.execute(rooms).scalars())
    waiting = select(ITEMS.c.performer_id).where(ITEMS.c.performer_id.in_(sorted(touched)), ACTIVE_ITEMS, _SUBSCRIBED)
    place = func.row_number().over(partition_by=ITEMS.c.performer_id, order_by=(ITEMS.c.created_at, ITEMS.c.item_id))
    columns = ITEMS.c.item_id, ITEMS.c.user_id, ITEMS.c.performer_id, ITEMS.c.notified
    queue = (
        select(*columns, place.label("place"))
        .where(ITEMS.c.performer_id.in_(waiting), ACTIVE_ITEMS, ITEMS.c.status == str(Status.CREATED))
        .subquery()
    )
    subscribed = exists().where(PUSH_SUBSCRIPTIONS.c.user_id == queue.c.user_id)
    heads = select(queue).where(queue.c.place == 1, subscribed)
    return [
        _Found(row.item_id, Moment.NEXT, row.user_id, row.performer_id, now + Moment.NEXT.lasts)
        for row in connection.execute(heads)
        if str(NEXT_UP) in row.notified.split(",")
    ]


def _for_subscriptions(connection: Connection, found: Sequence[_Found]) -> list[Notice]:
    """A notice for each subscription of the users, without those that are stored already."""
    if not found:
        return []
    names: dict[str, list[str]] = {}
    users = PUSH_SUBSCRIPTIONS.c.user_id.in_(sorted({each.user_id for each in found}))
    for row in connection.execute(select(PUSH_SUBSCRIPTIONS.c.user_id, PUSH_SUBSCRIPTIONS.c.name).where(users)):
        names.setdefault(row.user_id, []).append(row.name)
    key = PUSH_NOTICES.c.item_id, PUSH_NOTICES.c.moment, PUSH_NOTICES.c.user_id, PUSH_NOTICES.c.name
    items = PUSH_NOTICES.c.item_id.in_(sorted({each.item_id for each in found}))
    known = {tuple(row) for row in connection.execute(select(*key).where(items))}
    notices = [
        Notice(
            item_id=each.item_id,
            moment=each.moment,
            user_id=each.user_id,
            name=name,
            performer_id=each.performer_id,
            expires_at=each.expires_at,
        )
        for each in found
        for name in names.get(each.user_id, ())
    ]
    return [notice for notice in notices if notice.key not in known]


# The notices to send


def due_notices(
    connection: Connection, now: datetime, *, limit: int, without: Collection[str] = ()
) -> list[tuple[Notice, Subscription]]:
    """The notices that may be sent now, those with the fewest attempts first; none to the origins in `without`."""
    owed = and_(
        PUSH_SUBSCRIPTIONS.c.user_id == PUSH_NOTICES.c.user_id, PUSH_SUBSCRIPTIONS.c.name == PUSH_NOTICES.c.name
    )
    columns = [PUSH_NOTICES.c[field] for field in Notice.__struct_fields__]
    others = [
        PUSH_SUBSCRIPTIONS.c[field] for field in Subscription.__struct_fields__ if field not in ("user_id", "name")
    ]
    statement = (
        select(*columns, *others)
        .join(PUSH_SUBSCRIPTIONS, owed)
        .where(
            PUSH_NOTICES.c.next_attempt_at <= now,
            PUSH_NOTICES.c.expires_at > now,
            PUSH_SUBSCRIPTIONS.c.origin.not_in(sorted(without)),
        )
        .order_by(PUSH_NOTICES.c.attempts, PUSH_NOTICES.c.next_attempt_at)
        .limit(limit)
    )
    return [(_notice(row), _subscription(row)) for row in connection.execute(statement).mappings()]


def finish(connection: Connection, notice: Notice) -> None:
    """Mark a notice as done."""
    connection.execute(update(PUSH_NOTICES).where(_is_notice(notice)).values(**_DONE))


def postpone(connection: Connection, notice: Notice, until: datetime) -> None:
    """Count a failed attempt of a notice, and set the time of the next one."""
    values = {"attempts": notice.attempts + 1, "next_attempt_at": until}
    connection.execute(update(PUSH_NOTICES).where(_is_notice(notice)).values(**values))


def clear(connection: Connection, now: datetime, stale_before: datetime) -> int:
    """Mark expired notices as done, and remove old notices of items that are not in a queue and subscriptions that were
    last renewed before `stale_before`. Returns the number of notices that expired unsent."""
    late = and_(PUSH_NOTICES.c.next_attempt_at.is_not(None), PUSH_NOTICES.c.expires_at <= now)
    expired = connection.execute(update(PUSH_NOTICES).where(late).values(**_DONE)).rowcount
    active = select(ITEMS.c.item_id).where(ITEMS.c.item_id == PUSH_NOTICES.c.item_id, ACTIVE_ITEMS)
    old = PUSH_NOTICES.c.expires_at <= now - KEPT_AFTERWARDS
    connection.execute(delete(PUSH_NOTICES).where(old, ~active.exists()))
    connection.execute(delete(PUSH_SUBSCRIPTIONS).where(PUSH_SUBSCRIPTIONS.c.renewed_at < stale_before))
    return expired


def _is(user_id: str, name: str) -> Any:
    return and_(PUSH_SUBSCRIPTIONS.c.user_id == user_id, PUSH_SUBSCRIPTIONS.c.name == name)


def _is_notice(notice: Notice) -> Any:
    return and_(
        PUSH_NOTICES.c.item_id == notice.item_id,
        PUSH_NOTICES.c.moment == str(notice.moment),
        PUSH_NOTICES.c.user_id == notice.user_id,
        PUSH_NOTICES.c.name == notice.name,
    )


def _subscription(row: RowMapping) -> Subscription:
    values = {field: row[field] for field in Subscription.__struct_fields__}
    return Subscription(**{**values, "language": Language(row["language"])})


def _notice(row: RowMapping) -> Notice:
    values = {field: row[field] for field in Notice.__struct_fields__}
    return Notice(**{**values, "moment": Moment(row["moment"])})
