"""Being one of several lines of the Procfile that honcho runs side by side, as `honcho start` does on a developer's
machine.

Honcho begins all lines at once, and ends them all as soon as one has ended. So under honcho `migrate` stays until it is
told to end, and `serve` waits until the schema is there. A platform that runs `release` before `web` is not concerned.
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
    return VARIABLE in os.environ


def stay() -> None:
    """Until honcho says that it is over, or somebody presses Ctrl-C."""
    endings = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, endings)
    signal.sigwait(endings)


def wait_for_schema(settings: Settings, seconds: float = SCHEMA_SECONDS) -> None:
    """Raises DatabaseRefusedError if the database cannot be used when the time is up."""
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
