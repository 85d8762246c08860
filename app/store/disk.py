"""The disk space that the database takes on this machine, and the space that is left."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from app.store.engines import Engines


@dataclass(frozen=True, slots=True)
class DiskUsage:
    used: int
    """Bytes of the database's file and its write-ahead log."""
    free: int
    """Bytes, for a user without privileges."""


def usage(engines: Engines) -> DiskUsage | None:
    """The disk usage of a SQLite database; None for PostgreSQL, or if its files cannot be read."""
    name = engines.writer.url.database
    if not engines.is_sqlite or name is None:
        return None
    file = Path(name)
    try:
        log = file.with_name(f"{file.name}-wal")
        used = file.stat().st_size + (log.stat().st_size if log.exists() else 0)
        return DiskUsage(used, shutil.disk_usage(file.parent).free)
    except OSError:
        return None
