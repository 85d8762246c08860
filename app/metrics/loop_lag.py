"""Measures how late the event loop is: every delay of the loop delays every answer of the process."""

import asyncio
from collections import deque

WINDOW_SECONDS = 60.0


class LoopLag:
    def __init__(self, seconds: float = 0.5) -> None:
        """`seconds`: between two measurements."""
        self._seconds = seconds
        self._delays: deque[float] = deque(maxlen=max(1, round(WINDOW_SECONDS / seconds)))

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._seconds
            await asyncio.sleep(self._seconds)
            self._delays.append(max(0.0, loop.time() - due))

    @property
    def seconds(self) -> float:
        """The longest delay within the last minute; 0 before the first measurement."""
        return max(self._delays, default=0.0)
