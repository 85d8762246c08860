"""A bounded pool of threads for blocking queries, each with a read-only connection for one query.

Slow queries have a pool of their own, so that no number of reports delays the read of a room.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Lock
from typing import TypeVar

from sqlalchemy import Connection

from app.domain.errors import Unavailable
from app.engine.deadline import Deadline
from app.engine.jobs import database_in_trouble
from app.store import TROUBLE, Store

log = logging.getLogger(__name__)

T = TypeVar("T")


class ReaderPool:
    def __init__(self, store: Store, *, threads: int, seconds: float, limit: int, name: str) -> None:
        """`seconds`: the time limit of a query without a deadline. `limit`: the most queries under way and waiting."""
        self._store = store
        self._seconds = seconds
        self._places = BoundedSemaphore(limit)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def close(self) -> None:
        """Drop the queries that wait."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, query: Callable[[Connection], T], deadline: Deadline | None = None) -> T:
        """The result of a function that is given a read-only connection.

        Raises Unavailable if the database is in trouble, too many queries wait, or the time is up.
        """
        if not self._places.acquire(blocking=False):
            raise Unavailable("Too many queries are waiting; try again shortly.", retry_after_seconds=1)
        begun = Lock()

        def execute() -> T:
            if not begun.acquire(blocking=False):
                raise database_in_trouble()  # the caller has stopped waiting
            try:
                with self._store.reading() as connection:
                    return query(connection)
            finally:
                self._places.release()

        def never_begun(future: "asyncio.Future[T]") -> None:
            if begun.acquire(blocking=False):
                self._places.release()

        pending = asyncio.get_running_loop().run_in_executor(self._threads, execute)
        pending.add_done_callback(never_begun)
        try:
            async with asyncio.timeout(self._seconds if deadline is None else deadline.left()):
                return await pending
        except TimeoutError:
            log.error("a query was not answered in time")
            raise database_in_trouble() from None
        except TROUBLE as error:
            # One line without a traceback: while the database is away there are hundreds a minute.
            log.error("a query failed: %s", str(getattr(error, "orig", None) or error).partition("\n")[0])
            raise database_in_trouble() from None
