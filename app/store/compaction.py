"""Rewrites the events of an earlier release in the compact layout, in batches, while the service runs.

An event is rewritten only if reading the new row gives the same event. META holds the progress, so that a restart
continues. At the end the index that only the earlier layout needed is dropped.
"""

from typing import Any

from sqlalchemy import Connection, Engine, bindparam, delete, select, text, update

from app.domain.event import Event, EventName
from app.domain.item import Item
from app.store import compact, event_log, records
from app.store.facts import fact, set_fact
from app.store.tables import ANSWERS, EVENTS, ITEMS

EVENTS_AT_ONCE = 100
PROGRESS = "compacted_through"
"""In META: the cursor up to which every event has been examined, or DONE."""
DONE = "done"

_REWRITE = (
    update(EVENTS)
    .where(EVENTS.c.performer_id == bindparam("room"), EVENTS.c.version == bindparam("key"))
    .values(name=bindparam("stored_name"), item=bindparam("compact_item"), params=bindparam("compact_params"))
)
_FIRST_VERSION = (
    update(ITEMS)
    .where(ITEMS.c.item_id == bindparam("key"), ITEMS.c.first_version.is_(None))
    .values(first_version=bindparam("version"))
)
_FINGERPRINT = update(ITEMS).where(ITEMS.c.item_id == bindparam("key")).values(fingerprint=bindparam("own_fingerprint"))


def is_done(connection: Connection) -> bool:
    return fact(connection, PROGRESS) == DONE


def mark_done(connection: Connection) -> None:
    """Record that compaction is complete, after `finish`."""
    set_fact(connection, PROGRESS, DONE)


def compact_batch(connection: Connection, at_most: int = EVENTS_AT_ONCE) -> bool:
    """Examine and rewrite the next events of the log; returns whether there are more."""
    # A second process waits here until this one has committed its batch.
    progress = fact(connection, PROGRESS, lock=True)
    if progress == DONE:
        return False
    batch = event_log.committed_after(event_log.EVENT_ROWS.limit(at_most), connection, progress)
    rows = connection.execute(batch).mappings().all()
    rewritten, created = [], []
    for row in rows:
        if row["item"] is None or row["item"].startswith(compact.MARK) or row["of_item_id"] is None:
            continue
        event = records.event_from(row)
        values = records.compact_event_values(event)
        new = {"name": values["name"], "item": values["item"], "params": values["params"]}
        if records.event_from({**row, **new, "to_status": values["to_status"]}) == event:
            this = {"room": row["performer_id"], "key": row["version"]}
            to = {"stored_name": new["name"], "compact_item": new["item"], "compact_params": new["params"]}
            rewritten.append(this | to)
        if event.name is EventName.ITEM_CREATED:
            created.append(event)
    if rewritten:
        connection.execute(_REWRITE, rewritten)
    _file_intakes(connection, created)
    if rows:
        set_fact(connection, PROGRESS, event_log.cursor_of(rows[-1]))
    return len(rows) == at_most


def _file_intakes(connection: Connection, created: list[Event]) -> None:
    """Write into each item's row the version of its first event, and move the answer of its intake there."""
    items: list[tuple[Item, int]] = [(event.item, event.version) for event in created if event.item is not None]
    if not items:
        return
    connection.execute(_FIRST_VERSION, [{"key": item.item_id, "version": version} for item, version in items])
    keys = {(records.INTAKE_SCOPE + item.source_feature, item.idempotency_key): item.item_id for item, _ in items}
    answers: list[dict[str, Any]] = []
    for scope, key in keys:
        own = (ANSWERS.c.scope == scope) & (ANSWERS.c.key == key) & (ANSWERS.c.item_id == keys[(scope, key)])
        fingerprint = connection.execute(select(ANSWERS.c.fingerprint).where(own)).scalar_one_or_none()
        if fingerprint is not None:
            answers.append({"key": keys[(scope, key)], "own_fingerprint": fingerprint})
            connection.execute(delete(ANSWERS).where(own))
    if answers:
        connection.execute(_FINGERPRINT, answers)


def finish(engine: Engine) -> None:
    """Drop the index of events by item: items now have the version of their first event. It does not lock the table on
    PostgreSQL."""
    if engine.dialect.name == "postgresql":
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("DROP INDEX CONCURRENTLY IF EXISTS ix_event_item"))
    else:
        with engine.begin() as connection:
            connection.execute(text("DROP INDEX IF EXISTS ix_event_item"))
