"""Ends the sockets and event streams of one person or one room in every process, for an administrator.

The order travels over the bus and is not stored: a person with a token that is still valid can connect again.
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
        """Close the connections in every process; returns the number closed here, and the number of processes that got
        the order.

        Raises Unavailable, after closing those of this process, if the others cannot get the order now.
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
        """Carry out an order of another process; this one's own, which comes back as well, is carried out already."""
        try:
            order = orjson.loads(payload)
            sender, sub, performer_id = order["from"], order["sub"], order["performerId"]
        except (ValueError, TypeError, KeyError):
            log.warning("an order on the bus could not be read")
            return
        if sender != self._process_id:
            self._close(sub, performer_id)
