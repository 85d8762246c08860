"""Backup and restore of a SQLite queue; a backup may be taken while the service runs.

A copy is one file without side files. `restore` replaces nothing before the copy has been checked and brought to the
newest schema. At no moment is the queue's file beside the write-ahead log of another one: SQLite would replay that log
into it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.engine import URL, make_url

from app.store.engines import DatabaseRefusedError, open_engines, sqlite_driver
from app.store.migrating import migrate, refuse_unknown_schema

SIDE_FILES = ("-wal", "-shm", "-journal")
MAGIC = b"SQLite format 3\0"
BUSY_SECONDS = 10.0


def database_path(database_url: str) -> Path:
    """The file of a `sqlite:///` URL, links followed. Raises DatabaseRefusedError if there is none."""
    path = Path(os.path.realpath(make_url(database_url).database or ""))
    if not path.is_file():
        raise DatabaseRefusedError(f"There is no database at {path}.")
    return path


def backup(database_url: str, target: Path) -> None:
    """Write a consistent copy of a queue that may be running, and check it before it gets its name.

    Commits made meanwhile are not in it and do not wait for it. An older copy of that name is replaced.
    Raises DatabaseRefusedError; the target is then unchanged.
    """
    source = database_path(database_url)
    _check_target(source, target)
    with _part_of(target) as part:
        _copy(source, part)
        _check_copy(part)
        _sync(part)
        part.replace(target)
        _sync(target.parent)


def restore(database_url: str, copy: Path, now: datetime) -> Path | None:
    """Put a copy in the place of the queue's file; returns the new name of the file that it has replaced, if any.

    The caller holds the queue's lock (`sole_owner`). The restored queue has a new epoch, and its log continues after
    the lost part. Raises DatabaseRefusedError; nothing has then changed.
    """
    path = Path(os.path.realpath(make_url(database_url).database or ""))
    if not _is_sqlite(copy):
        raise DatabaseRefusedError(f"{copy} is not a copy of a queue.")
    if path.exists() and copy.samefile(path):
        raise DatabaseRefusedError(f"{copy} is the queue's own file.")
    with _part_of(path) as part:
        _copy(copy, part)
        _check_copy(part)
        _renew(part)
        _sync(part)
        replaced = _set_aside(path, now)
        part.replace(path)
        _sync(path.parent)
    return replaced


def _check_target(source: Path, target: Path) -> None:
    if not target.parent.is_dir():
        raise DatabaseRefusedError(f"There is no folder {target.parent}.")
    if not target.exists():
        return
    if target.samefile(source):
        raise DatabaseRefusedError(f"{target} is the queue's own file.")
    if not _is_sqlite(target):
        raise DatabaseRefusedError(f"{target} is there already and is not a copy of a queue.")
    if any(_side_file(target, suffix).exists() for suffix in SIDE_FILES):
        raise DatabaseRefusedError(f"{target} is a database that is in use; choose another name.")


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


@contextmanager
def _part_of(target: Path) -> Iterator[Path]:
    """The name of a temporary file beside the target. It is removed at the end if it still has that name."""
    part = target.with_name(target.name + ".part")
    _remove(part)
    try:
        yield part
    except OSError as error:
        raise DatabaseRefusedError(f"{target} cannot be written: {error.strerror}.") from None
    finally:
        _remove(part)


def _remove(path: Path) -> None:
    for name in (path, *(_side_file(path, suffix) for suffix in SIDE_FILES)):
        with suppress(FileNotFoundError):
            name.unlink()


def _side_file(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[Any]:
    """A driver's connection, in autocommit mode. `mode` is that of a SQLite URI."""
    driver = sqlite_driver()
    quoted = str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    try:
        connection = driver.connect(f"file:{quoted}?{mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        with closing(connection):
            yield connection
    except driver.Error as error:
        raise DatabaseRefusedError(f"{path} cannot be read: {error}.") from None


def _copy(source: Path, part: Path) -> None:
    # A copy may be in a folder that cannot be written; without side files it needs no recovery, which would write.
    is_alone = not any(_side_file(source, suffix).exists() for suffix in SIDE_FILES)
    mode = "immutable=1" if is_alone and not os.access(source.parent, os.W_OK) else "mode=rw"
    with _opened(source, mode) as reading, _opened(part, "mode=rwc") as writing:
        reading.backup(writing)
        # The copy is one file: its header no longer asks for a write-ahead log.
        writing.execute("PRAGMA journal_mode=DELETE")
    shutil.copymode(source, part)


def _check_copy(part: Path) -> None:
    with _opened(part, "mode=rw") as connection:
        problems = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
        if problems != ["ok"]:
            raise DatabaseRefusedError(f"The copy is damaged: {' '.join(problems[0].split())}.")
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"alembic_version", "meta", "rooms", "items", "events"} <= tables:
            raise DatabaseRefusedError("The copy is a database, but not one of a queue.")
    with _engine_on(part) as engine:
        refuse_unknown_schema(engine)


def _renew(part: Path) -> None:
    """Give a copy the newest schema, a new epoch, and a log that continues after the lost part."""
    with _engine_on(part) as engine:
        migrate(engine, restored=True)
    with _opened(part, "mode=rw") as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


@contextmanager
def _engine_on(path: Path) -> Iterator[Engine]:
    engines = open_engines(URL.create("sqlite", database=str(path)))
    try:
        yield engines.writer
    finally:
        engines.dispose()


def _set_aside(path: Path, now: datetime) -> Path | None:
    """Give the present file a second name, with its side files folded in, and remove the side files."""
    if not path.exists():
        _remove(path)
        return None
    driver = sqlite_driver()
    aside = path.with_name(f"{path.name}.replaced-{now:%Y%m%dT%H%M%S%f}")
    # SQLite deletes side files that it cannot use; those of a damaged queue are kept.
    kept = [suffix for suffix in SIDE_FILES if _side_file(path, suffix).exists()]
    for suffix in kept:
        shutil.copy2(_side_file(path, suffix), _side_file(aside, suffix))
    is_whole = True
    try:
        is_whole = _fold_side_files_in(path, driver)
    finally:
        # Their copies are not needed: either the side files were folded in, or an error leaves the originals.
        if is_whole:
            for suffix in kept:
                _side_file(aside, suffix).unlink()
    _give_second_name(path, aside)
    _sync(path.parent)
    for suffix in SIDE_FILES:
        with suppress(FileNotFoundError):
            _side_file(path, suffix).unlink()
    _sync(path.parent)
    return aside


def _fold_side_files_in(path: Path, driver: ModuleType) -> bool:
    """Write the rest of the write-ahead log after a crash into the file. False if the file is too damaged for that."""
    try:
        connection = driver.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        with closing(connection):
            (mode,) = connection.execute("PRAGMA journal_mode=DELETE").fetchone()
            return str(mode) == "delete"
    except driver.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise DatabaseRefusedError("Another program has the database open; close it first.") from None
        return False
    except driver.Error:
        return False


def _give_second_name(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:
        # Not every file system has hard links.
        shutil.copy2(path, other)
        _sync(other)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
