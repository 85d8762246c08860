"""prune and forget: many small transactions, between which a running service has its turn."""

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
"""More than most lines of an export."""

Export = Callable[[Sequence[Pruned]], None]


def prune_all(store: Store, cutoff: datetime, export_file: Path | None) -> int:
    """Move out everything that may go; returns how many items that were.

    Raises InvalidSettings if the file cannot be written; rows that it does not hold yet are then still in the database.
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
            # Of two processes with one file the second waits: it would cut off a line that the first is writing.
            fcntl.flock(lines, fcntl.LOCK_EX)
            _mend_end(file)

        def export(pruned: Sequence[Pruned]) -> None:
            for each in pruned:
                lines.write(_line(each))
            # On the disk before it leaves the database: a crash may repeat a line, and loses none.
            lines.flush()
            os.fsync(lines.fileno())

        yield export


def _mend_end(file: Path) -> None:
    """See to it that the next line begins as one. A torn last line, left by a process that was killed while it wrote,
    is cut off: its item is still in the database. A whole one that only lacks its end gets that."""
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
    """Returns in how many items the user is forgotten. Raises InvalidSettings while any of them is open."""
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
        # Overwritten pages stay in the write-ahead log until that begins anew.
        with closing(store.engines.writer.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return number
