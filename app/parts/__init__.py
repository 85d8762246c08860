"""The parts of one process, each made once and wired to the others.

`assembly` is the only module that knows all of them. Nothing is started here: `app.main` has the lifespan, the routes
and the background loops. This module has the clock and the ids that every part is given.
"""

from datetime import datetime
from time import time_ns

import uuid_utils

from app.store.tables import moment


def utc_now() -> datetime:
    """The current time in whole milliseconds, the resolution of every stored time."""
    return moment(time_ns() // 1_000_000)


def new_id() -> str:
    return str(uuid_utils.uuid7())
