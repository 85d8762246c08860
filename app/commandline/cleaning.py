"""prune and forget, in many small transactions with pauses, so that a running service can write in between."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from app.settings import InvalidSettings
from app.store import Store, forgetting, pruning, push
from app.store.pruning import Pruned
from app.wire import admin_shapes, shapes
from app.wire.encoding import encode

PAUSE_SECONDS = 0.02
BLOCK_BYTES = 65_536
"""Bytes read at once to find the last line of an export; most lines are shorter."""

Export = Callable[[Sequence[Pruned]], None]


def prune_all(store: Store, cutoff: datetime, export_file: Path | None) -> int:
    """Move ended items and old answers out of the database, and the items to `export_file`; returns how many items.

    Raises InvalidSettings if the file cannot be written; items that are not in it are then still in the database.
    """
    number = 0
    try:
        with _export_to(export_file) as export:

            def counted(pruned: Sequence[Pruned]) -> None:
                nonlocal number
                export(pruned)
                number += len(pruned)

            answer: tuple[str, str] | None = ("", "")
            while answer is not None:
                with store.writing() as connection:
                    answer = pruning.prune_answers(connection, cutoff, answer)
                time.sleep(PAUSE_SECONDS)
            item: str | None = ""
            with store.writing() as connection:
                cutoff = pruning.held_back(connection, cutoff)
            while item is not None:
                with store.writing() as connection:
                    item = pruning.prune_items(connection, cutoff, item, export=counted)
                time.sleep(PAUSE_SECONDS)
    except OSError as error:
        raise InvalidSettings(f"{export_file} cannot be written: {error.strerror}") from None
    return number


@contextmanager
def _export_to(file: Path | None) -> Iterator[Export]:
    if file is None:
        yield lambda pruned: None
        return
    with file.open("ab") as lines:
        if file.is_file():
            # A second process with the same file waits: it would cut off the line that the first is writing.
            fcntl.flock(lines, fcntl.LOCK_EX)
            _mend_end(file)

        def export(pruned: Sequence[Pruned]) -> None:
            for each in pruned:
                lines.write(_line(each))
            # On the disk before the items leave the database: a crash may repeat a line but loses none.
            lines.flush()
            os.fsync(lines.fileno())

        yield export


def _mend_end(file: Path) -> None:
    """Make the file end with a line break. An incomplete last line, left by a process that was killed while it wrote,
    is cut off: its item is still in the database. A complete line without a line break gets one."""
    with file.open("r+b") as lines:
        start = end = lines.seek(0, os.SEEK_END)
        last = b""
        while start and b"\n" not in last:
            start = max(0, start - BLOCK_BYTES)
            lines.seek(start)
            last = lines.read(end - start)
        last = last[last.rfind(b"\n") + 1 :]
        if not last:
            return
        try:
            json.loads(last)
        except ValueError:
            lines.truncate(end - len(last))
        else:
            lines.seek(end)
            lines.write(b"\n")


def _line(pruned: Pruned) -> bytes:
    return (
        encode(
            {
                "item": shapes.whole_item(pruned.item, 0),
                "events": [shapes.logged_event(logged) for logged in pruned.events],
                "transitions": shapes.transitions_shape([logged.event for logged in pruned.events])["transitions"],
                "operation": admin_shapes.operation_shape(pruned.operation),
            }
        )
        + b"\n"
    )


def forget_user(store: Store, user_id: str) -> int:
    """Replace a user by a random id everywhere; returns the number of items. Raises InvalidSettings while one is
    open."""
    with store.reading() as connection:
        still_open = forgetting.open_items(connection, user_id)
    if still_open:
        raise InvalidSettings(
            f"{still_open} items of this user wait in a queue or for the wallet; end them first, nothing has changed"
        )
    new_id = forgetting.NOBODY + secrets.token_hex(8)
    number, found = 0, forgetting.ITEMS_AT_ONCE
    while found == forgetting.ITEMS_AT_ONCE:
        with store.writing() as connection:
            if store.engines.is_sqlite:
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            found = forgetting.forget_some(connection, user_id, new_id)
            if found < forgetting.ITEMS_AT_ONCE:
                forgetting.forget_answers(connection, user_id, new_id)
                push.forget(connection, user_id)
        number += found
        time.sleep(PAUSE_SECONDS)
    if store.engines.is_sqlite:
        # Overwritten pages stay in the write-ahead log until it is truncated.
        with closing(store.engines.writer.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return number
