"""The end of a command that cannot be carried out: one line on standard error, exit code 2."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from app.server.listening import AddressRefusedError
from app.settings import InvalidSettings
from app.store.engines import DatabaseRefusedError


@contextmanager
def explained() -> Iterator[None]:
    """Turn a wrong setting, a wrong argument or an unusable database into one line and exit code 2."""
    try:
        yield
    except (InvalidSettings, DatabaseRefusedError, AddressRefusedError) as problem:
        print(f"performance-queue: {problem}", file=sys.stderr)
        raise typer.Exit(2) from None
