"""Adapts `migrate` and `serve` to honcho, which runs the lines of the Procfile side by side on a developer's machine.

Honcho starts all lines at once, and stops them all as soon as one ends. So under honcho `migrate` does not end by
itself, and `serve` waits for the schema. A platform that runs `release` before `web` is not affected.
"""

import os
import signal
import time

from app.settings import Settings
from app.store.engines import DatabaseRefusedError, open_engines
from app.store.migrating import refuse_other_schema

VARIABLE = "HONCHO_PROCESS_NAME"
"""The variable that honcho sets for each line."""
SCHEMA_SECONDS = 60.0
PAUSE_SECONDS = 0.2


def runs_this() -> bool:
    """Whether honcho has started this process."""
    return VARIABLE in os.environ


def stay() -> None:
    """Wait until honcho or Ctrl-C ends this process."""
    endings = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, endings)
    signal.sigwait(endings)


def wait_for_schema(settings: Settings, seconds: float = SCHEMA_SECONDS) -> None:
    """Wait for the schema. Raises DatabaseRefusedError if the database still cannot be used after `seconds`."""
    give_up_at = time.monotonic() + seconds
    engines = open_engines(settings.database_url)
    try:
        while True:
            try:
                return refuse_other_schema(engines.writer)
            except DatabaseRefusedError:
                if time.monotonic() > give_up_at:
                    raise
            time.sleep(PAUSE_SECONDS)
    finally:
        engines.dispose()
