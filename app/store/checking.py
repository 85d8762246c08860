"""Checks a whole database against the rules that the other modules rely on, and changes nothing.

Constraints enforce most of the rules. The checks find damage: by a bad disk, by a statement typed by hand, or by an
error of this program.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Connection, text

from app.domain.room import Policy, Room, fold
from app.store import Store, activity, event_log, reading
from app.store.replay import room_at

LISTED = 20
"""The most findings of one rule that are listed; a damaged table may give millions."""
READ_AT_ONCE = 1000
_ENDED = "('finished', 'abandoned', 'refunded')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of one rule: the number of rows examined, the number that are wrong, and the first LISTED of those as
    one line each."""

    rule: str
    examined: int
    wrong: int
    findings: Sequence[str] = ()


def check_database(store: Store) -> Iterator[Result]:
    """The results of all rules, one after the other. Each rule sees the database at one moment."""
    rules: list[tuple[str, Callable[[Connection], tuple[int, Iterator[str]]]]] = [
        ("integrity", _integrity),
        ("versions", _versions),
        ("started", _started),
        ("statuses", _statuses),
        ("positions", lambda connection: _positions(connection, store.policy)),
        ("escrows", _escrows),
        ("keys", _keys),
        ("activity", _activity),
    ]
    for rule, look in rules:
        with store.reading() as connection:
            examined, found = look(connection)
            findings = list(islice(found, LISTED))
            wrong = len(findings) + sum(1 for _ in found)
        yield Result(rule=rule, examined=examined, wrong=wrong, findings=findings)


def _count(connection: Connection, table: str) -> int:
    return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())  # noqa: S608 - a constant


def _findings(connection: Connection, query: str, line: str) -> Iterator[str]:
    """One finding for each row of the query: `line` formatted with the row's columns."""
    for row in connection.execute(text(query)).mappings():
        yield line.format(**row)


def _integrity(connection: Connection) -> tuple[int, Iterator[str]]:
    """The file and its indexes are sound. On PostgreSQL, which checks its pages itself: every index is valid."""

    def found() -> Iterator[str]:
        if connection.dialect.name == "sqlite":
            for (problem,) in connection.execute(text("PRAGMA integrity_check")):
                if problem != "ok":
                    yield " ".join(problem.split())
        else:
            yield from _findings(
                connection,
                "SELECT indexrelid::regclass::text AS name FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
                " WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace",
                "index {name} is not valid",
            )

    return 1, found()


def _versions(connection: Connection) -> tuple[int, Iterator[str]]:
    """A room's events are numbered without a gap, from 1 or from where retention has pruned, up to its version."""

    def found() -> Iterator[str]:
        yield from _findings(
            connection,
            # Pruning leaves gaps up to `pruned_through`.
            "SELECT rooms.performer_id AS performer_id, rooms.version AS version, count(events.version) AS events,"
            " coalesce(max(events.version), coalesce(rooms.pruned_through, 0)) AS newest FROM rooms LEFT JOIN events"
            " ON events.performer_id = rooms.performer_id AND events.version > coalesce(rooms.pruned_through, 0)"
            " GROUP BY rooms.performer_id, rooms.version, rooms.pruned_through"
            " HAVING count(events.version) <> rooms.version - coalesce(rooms.pruned_through, 0)"
            " OR coalesce(max(events.version), coalesce(rooms.pruned_through, 0)) <> rooms.version",
            "room {performer_id} is at version {version}, its log has {events} events up to {newest}",
        )
        yield from _findings(
            connection,
            "SELECT performer_id, count(*) AS events FROM events WHERE NOT EXISTS"
            " (SELECT 1 FROM rooms WHERE rooms.performer_id = events.performer_id) GROUP BY performer_id",
            "there is no room {performer_id}, but {events} events of it",
        )

    return _count(connection, "events"), found()


def _started(connection: Connection) -> tuple[int, Iterator[str]]:
    examined = _count(connection, "rooms")
    return examined, _findings(
        connection,
        "SELECT performer_id, count(*) AS items FROM items WHERE status = 'started'"
        " GROUP BY performer_id HAVING count(*) > 1",
        "room {performer_id} has {items} started items",
    )


def _statuses(connection: Connection) -> tuple[int, Iterator[str]]:
    """An item's row has the status of its last event, and the times that belong to it; items and events match."""

    def found() -> Iterator[str]:
        yield from _findings(
            connection,
            "SELECT items.item_id AS item_id, items.status AS status, events.to_status AS logged FROM"
            " (SELECT item_id, max(version) AS version FROM events WHERE item_id IS NOT NULL GROUP BY item_id) newest"
            " JOIN items ON items.item_id = newest.item_id JOIN events"
            " ON events.performer_id = items.performer_id AND events.version = newest.version"
            " WHERE events.to_status <> items.status",
            "item {item_id} is {status}, its last event says {logged}",
        )
        yield from _findings(
            connection,
            "SELECT item_id, status FROM items WHERE"
            " (status IN ('created', 'started')) = (ended_at IS NOT NULL)"
            " OR (status = 'started' AND started_at IS NULL) OR (status = 'finished' AND finished_at IS NULL)"
            " OR (status = 'abandoned' AND abandoned_at IS NULL) OR (status = 'refunded' AND refunded_at IS NULL)",
            "item {item_id} is {status} without the times that belong to it",
        )
        yield from _findings(
            connection,
            "SELECT items.item_id AS item_id FROM items LEFT JOIN (SELECT DISTINCT item_id FROM events) logged"
            " ON logged.item_id = items.item_id WHERE logged.item_id IS NULL",
            "item {item_id} has no event",
        )
        yield from _findings(
            connection,
            "SELECT item_id, count(*) AS events FROM events WHERE item_id IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM items WHERE items.item_id = events.item_id) GROUP BY item_id",
            "there is no item {item_id}, but {events} events of it",
        )

    return _count(connection, "items"), found()


def _positions(connection: Connection, policy: Policy) -> tuple[int, Iterator[str]]:
    """Every event has the position that folding gives, and a room's queue is the fold of its events."""
    performer_ids = list(connection.execute(text("SELECT performer_id FROM rooms ORDER BY performer_id")).scalars())

    def found() -> Iterator[str]:
        for performer_id in performer_ids:
            room = _room_at_floor(connection, policy, performer_id)
            while events := event_log.room_events(connection, performer_id, room.version, READ_AT_ONCE):
                for event in events:
                    if event.version != room.version + 1:
                        return  # the rule "versions" reports it
                    room = fold(room, event.name, event.at, item=event.item, settings=event.settings)
                    if event.item is not None and room.position(event.item.item_id) != event.position:
                        yield f"event {event.version} of room {performer_id} gives a wrong position"
            stored = reading.load_rooms(connection, policy, [performer_id])[performer_id]
            if [(item.item_id, item.status) for item in room.items] != [
                (item.item_id, item.status) for item in stored.items
            ]:
                yield f"the queue of room {performer_id} is not the one that its log gives"

    return len(performer_ids), found()


def _room_at_floor(connection: Connection, policy: Policy, performer_id: str) -> Room:
    """The room at the version where its gapless log begins."""
    pruned = text("SELECT coalesce(pruned_through, 0) FROM rooms WHERE performer_id = :performer_id")
    floor = int(connection.execute(pruned, {"performer_id": performer_id}).scalar_one())
    return room_at(connection, policy, performer_id, floor) or Room(performer_id=performer_id, policy=policy)


def _escrows(connection: Connection) -> tuple[int, Iterator[str]]:
    """An escrow has one item and at most one operation, which resolves exactly the item's tokens once it has ended."""

    def found() -> Iterator[str]:
        for table in ("items", "wallet_operations"):
            yield from _findings(
                connection,
                f"SELECT escrow_transaction_id, count(*) AS number FROM {table}"  # noqa: S608 - a constant
                " GROUP BY escrow_transaction_id HAVING count(*) > 1",
                "escrow {escrow_transaction_id} has {number} " + table.replace("_", " "),
            )
        yield from _findings(
            connection,
            f"SELECT item_id, status FROM items WHERE status IN {_ENDED} AND NOT EXISTS"  # noqa: S608 - a constant
            " (SELECT 1 FROM wallet_operations WHERE wallet_operations.item_id = items.item_id)",
            "item {item_id} is {status}, and nothing resolves its escrow",
        )
        yield from _findings(
            connection,
            "SELECT wallet_operations.item_id AS item_id FROM wallet_operations JOIN items"
            " ON items.item_id = wallet_operations.item_id WHERE"
            " items.escrow_transaction_id <> wallet_operations.escrow_transaction_id"
            " OR items.status IN ('created', 'started')"
            " OR settle_tokens + refund_tokens <> items.tokens"
            " OR (items.wallet_status IN ('done', 'written_off')) <> (wallet_operations.status = 'done')"
            " OR coalesce(items.settled_tokens, 0) + coalesce(items.refunded_tokens, 0) > items.tokens",
            "item {item_id} and its wallet operation do not agree",
        )
        yield from _findings(
            connection,
            "SELECT item_id FROM wallet_operations WHERE NOT EXISTS"
            " (SELECT 1 FROM items WHERE items.item_id = wallet_operations.item_id)",
            "there is no item {item_id}, but a wallet operation of it",
        )

    return _count(connection, "items"), found()


def _keys(connection: Connection) -> tuple[int, Iterator[str]]:
    """The stored answer of an idempotency key points to an event of its item, that of an intake to the item's first."""

    def found() -> Iterator[str]:
        yield from _findings(
            connection,
            "SELECT answers.performer_id AS performer_id, answers.version AS version FROM answers"
            " LEFT JOIN events ON events.performer_id = answers.performer_id AND events.version = answers.version"
            " WHERE answers.item_id <> '' AND (events.item_id IS NULL OR events.item_id <> answers.item_id)",
            "an answer points to event {version} of room {performer_id}, which is not of its item",
        )
        yield from _findings(
            connection,
            "SELECT items.item_id AS item_id FROM items LEFT JOIN events ON events.performer_id = items.performer_id"
            " AND events.version = items.first_version WHERE items.first_version IS NOT NULL"
            " AND (events.item_id IS NULL OR events.item_id <> items.item_id OR events.from_status IS NOT NULL)",
            "item {item_id} does not begin where its row says",
        )
        yield from _findings(
            connection,
            "SELECT source_feature, count(*) AS number FROM items"
            " GROUP BY source_feature, idempotency_key HAVING count(*) > 1",
            "{number} items of feature {source_feature} have one idempotency key",
        )

    return _count(connection, "answers"), found()


def _activity(connection: Connection) -> tuple[int, Iterator[str]]:
    """The stored counts equal the counted part of the log, or exceed it where retention has removed events."""

    def found() -> Iterator[str]:
        pruned = "SELECT count(*) FROM rooms WHERE pruned_through > 0"
        is_whole = connection.execute(text(pruned)).scalar_one() == 0
        for kind, counted, logged in activity.compared(connection):
            if counted < logged or (is_whole and counted > logged):
                yield f"{counted} items have been counted as {kind}, the log holds {logged}"

    return _count(connection, "activity"), found()
