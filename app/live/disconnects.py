"""Sockets and event streams that an administrator ends: one person's, or a room's, in every process.

The order travels over the bus. It is not kept: who comes back with a token that is still valid is let in again.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson

from app.domain.errors import Unavailable

if TYPE_CHECKING:
    from app.live.bus import Bus

Close = Callable[[str | None, str | None], int]
"""Ends this process's connections of a `sub` or of a performer's room; returns how many."""

log = logging.getLogger(__name__)


class Disconnects:
    def __init__(self, close: Close, bus: "Bus | None", *, process_id: str) -> None:
        self._close = close
        self._bus = bus
        self._process_id = process_id

    async def everywhere(self, sub: str | None, performer_id: str | None) -> tuple[int, int]:
        """Close the sockets in every process; returns how many were closed here and how many processes were told.

        Raises Unavailable, with those of this process closed, if the others cannot be told now.
        """
        closed = self._close(sub, performer_id)
        if self._bus is None:
            return closed, 1
        order = {"from": self._process_id, "sub": sub, "performerId": performer_id}
        processes = await self._bus.announce(orjson.dumps(order))
        if processes is None:
            raise Unavailable(
                "The sockets of one process are closed; the others cannot be told right now. Try again.",
                retry_after_seconds=1,
            )
        return closed, processes

    def receive(self, payload: bytes) -> None:
        """An order of another process, or this one's own, which has been carried out."""
        try:
            order = orjson.loads(payload)
            sender, sub, performer_id = order["from"], order["sub"], order["performerId"]
        except (ValueError, TypeError, KeyError):
            log.warning("an order on the bus could not be read")
            return
        if sender != self._process_id:
            self._close(sub, performer_id)
