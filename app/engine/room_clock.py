"""The clock by which rooms are timed: this process's own, or the database's where several processes share one."""

from collections.abc import Callable
from datetime import datetime, timedelta

AGREEMENT = timedelta(seconds=2)
"""Clocks that differ by less count as one: two processes then order what happens in a room by who commits first."""


class RoomClock:
    def __init__(self, source: Callable[[], datetime]) -> None:
        self._source = source
        self._correction = timedelta()
        self.skew = timedelta()
        """How far the database's clock is ahead of this process's, when last compared. Zero on SQLite."""

    def __call__(self) -> datetime:
        return self._source() + self._correction

    def compare(self, asked_at: datetime, database_time: datetime) -> None:
        """Take the database's time, asked for at `asked_at` by the process's own clock and answered just now.

        All processes of a cluster then agree, whatever has happened to the clock of one of them.
        """
        answered_at = self._source()
        self.skew = database_time - (asked_at + (answered_at - asked_at) / 2)
        milliseconds = timedelta(milliseconds=round(self.skew / timedelta(milliseconds=1)))
        self._correction = milliseconds if abs(self.skew) > AGREEMENT else timedelta()

    def own_time(self) -> datetime:
        """The process's own clock, uncorrected."""
        return self._source()
