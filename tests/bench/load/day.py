"""A day of a busy site, written by the database itself: items that have been performed and settled, with their events.

The rows are laid out as the service lays them out, in the compact form of its events; the log is in the order of time.
One performer in PERFORMERS has had a hundredth of them.
"""

from datetime import datetime

from sqlalchemy import Connection, text

from app.store.tables import milliseconds

PERFORMERS = 2_000
BUSY = "busy"
DAY_MS = 86_400_000
_EVENTS = (
    ("created", "created_at", "NULL", "created"),
    ("started", "started_at", "'created'", "started"),
    ("finished", "finished_at", "'started'", "finished"),
    ("settled", "settled_at", "'finished'", "finished"),
)
_ROW = {
    "performer_id": f"CASE WHEN n % 100 = 0 THEN '{BUSY}' ELSE 'performer-' || (n % {PERFORMERS}) END",
    "user_id": "'user-' || (n % 50000)",
    "source_feature": "'feature-' || (n % 5)",
    "source_event_id": "'event-' || n",
    "escrow_transaction_id": "'escrow-aaaaaaaa-bbbb-cccc-' || n",
    "idempotency_key": "'key-aaaaaaaa-bbbb-cccc-dddd-' || n",
    "tokens": "100",
    "title": "'A song for the evening'",
    "description": "'Anything by Nina Simone, please, and make it a slow one'",
    "duration_seconds": "180",
    "metadata": """'{"wheel": "gold", "slot": 7}'""",
    "queue_mode": "'on'",
    "pass_through_mode": "{no}",
    "status": "'finished'",
    "paused": "{no}",
    "created_at": "t",
    "started_at": "t + wait",
    "finished_at": "t + wait + service",
    "settled_at": "t + wait + service + 900",
    "updated_at": "t + wait + service + 900",
    "ended_at": "t + wait + service",
    "wallet_status": "'done'",
    "settled": "{yes}",
    "settlement_transaction_id": "'settlement-' || n",
    "settled_tokens": "100",
    "clock_used_seconds": "service / 1000.0",
    "notified": "'3,1'",
    "quoted_wait_seconds": "300.0",
    "quoted_position": "1 + n % 9",
    "first_version": "4 * n + 1",
}


def write_day(connection: Connection, items: int, start: datetime) -> None:
    """Write this many items, evenly over the day that begins at `start`, into an empty, migrated database."""
    is_sqlite = connection.dialect.name == "sqlite"
    words = {"yes": "1", "no": "0"} if is_sqlite else {"yes": "true", "no": "false"}
    row = {"item_id": _item_id(is_sqlite), **_ROW}
    row |= {name: words[value[1:-1]] for name, value in _ROW.items() if value in ("{yes}", "{no}")}
    numbers = (
        f"SELECT 0 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < {items - 1}"
        if is_sqlite
        else f"SELECT n FROM generate_series(0, {items - 1}::bigint) n"
    )
    life = (
        f"SELECT n, {milliseconds(start)} + n * {DAY_MS} / {items} AS t, 20000 + (n * 7919) % 900000 AS wait,"
        " 5000 + (n * 104729) % 200000 AS service FROM numbers"
    )
    connection.execute(
        text(
            f"WITH RECURSIVE numbers AS ({numbers}), lives AS ({life})"
            f" INSERT INTO items ({', '.join(row)}) SELECT {', '.join(row.values())} FROM lives"
        )
    )
    events = " UNION ALL ".join(
        f"SELECT performer_id, first_version + {number}, '{name}', {at} AS at, 'feature', 'feature', item_id,"
        f" source_feature, {before}, '{after}', 1, '', '~' FROM items"
        for number, (name, at, before, after) in enumerate(_EVENTS)
    )
    connection.execute(
        text(
            "INSERT INTO events (performer_id, version, name, at, actor_role, actor_id, item_id, source_feature,"
            f" from_status, to_status, position, params, item) SELECT * FROM ({events}) AS life ORDER BY at"
        )
    )
    no = words["no"]
    connection.execute(
        text(
            "INSERT INTO rooms (performer_id, version, last_at, mode, accepting, paused, strict_fifo, performer_online)"
            f" SELECT performer_id, max(version), max(at), 'on', {words['yes']}, {no}, {no}, {no}"
            " FROM events GROUP BY performer_id"
        )
    )


def _item_id(is_sqlite: bool) -> str:
    """Shaped like a UUIDv7 of the item's time."""
    time = "printf('%012x', t)" if is_sqlite else "lpad(to_hex(t), 12, '0')"
    number = "printf('%012x', n)" if is_sqlite else "lpad(to_hex(n), 12, '0')"
    return f"substr({time}, 1, 8) || '-' || substr({time}, 9, 4) || '-7000-8000-' || {number}"
