"""The comparison with the wallet on request, in parts. Each part has a deadline, and only one runs at a time.

A caller requests each part with the place at which the last one ended. After the last part the result of all parts is
recorded, for the metrics of every process. If the wallet cannot be asked, the part fails and nothing is recorded.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Self

from app.domain.errors import FieldError, InvalidRequest, Unavailable
from app.engine.lane import Lanes
from app.engine.queries import Queries
from app.store import wallet_check as rows
from app.store.wallet_check import WalletCheck
from app.wallet.breaker import Breaker, BreakerState
from app.wallet.comparison import RECENT, Difference, EscrowSource, compare

PART_SHARE = 0.5
"""The share of the deadline after which no more escrows are begun, since those under way take time too."""
MOST_DIFFERENCES = 100
"""The number of differences at which a part ends."""
_PLACE = re.compile(r"(\d{1,15})\.(\d{1,9})\.(\d{1,9})\.([A-Za-z0-9-]{1,64})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The progress of a comparison: the last item compared, and the sums up to there. `str` and `read` convert it to
    and from the text that clients send back."""

    examined: int = 0
    different: int = 0
    after: str = ""
    began_ms: int

    def __str__(self) -> str:
        return f"{self.began_ms}.{self.examined}.{self.different}.{self.after}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises InvalidRequest for an invalid place."""
        if (found := _PLACE.fullmatch(text)) is None:
            fault = FieldError(field="next", message="must be taken from the part before")
            raise InvalidRequest("The request is not valid.", errors=[fault])
        began, examined, different, after = found.groups()
        return cls(began_ms=int(began), examined=int(examined), different=int(different), after=after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a comparison: its differences, the sums up to its end, and the place of the next part."""

    differences: list[Difference]
    examined: int
    different: int
    next: Place | None
    """None: this was the last part."""


class WalletChecks:
    def __init__(
        self,
        *,
        queries: Queries,
        lanes: Lanes,
        wallet: EscrowSource,
        breaker: Breaker,
        clock: Callable[[], datetime],
        seconds: float,
        most_differences: int = MOST_DIFFERENCES,
    ) -> None:
        """`seconds`: the time limit of a part. `most_differences`: the number of differences at which a part ends."""
        self._queries = queries
        self._lanes = lanes
        self._wallet = wallet
        self._breaker = breaker
        self._clock = clock
        self._seconds = seconds
        self._most_differences = most_differences
        self._under_way = False

    async def last(self) -> WalletCheck | None:
        """The result of the last complete comparison by any process; None: there has been none."""
        return await self._queries.run(rows.last)

    async def part(self, place: str | None) -> Part:
        """Compare the part that begins at `place`; None: the first part.

        Raises Unavailable while another part is under way in this process, if the wallet or the database cannot be
        asked, or if the time is up; InvalidRequest for an invalid place.
        """
        start = Place(began_ms=round(self._clock().timestamp() * 1000)) if place is None else Place.read(place)
        if self._under_way:
            raise Unavailable("A comparison is under way; try again shortly.", retry_after_seconds=1)
        self._under_way = True
        try:
            async with asyncio.timeout(self._seconds):
                part = await self._compare(start)
                if part.next is None:
                    await self._record(part)
                return part
        except TimeoutError:
            raise _wallet_away() from None
        finally:
            self._under_way = False

    async def _compare(self, start: Place) -> Part:
        until = monotonic() + self._seconds * PART_SHARE
        since = datetime.fromtimestamp(start.began_ms / 1000, self._clock().tzinfo) - RECENT
        found: list[Difference] = []
        examined, after = 0, start.after
        while True:
            if self._breaker.state is not BreakerState.CLOSED:
                raise _wallet_away()
            step = await compare(self._queries.run_slow, self._wallet, since=since, after=after)
            if step.examined and step.unanswered == step.examined:
                raise _wallet_away()
            examined += step.examined
            found += step.differences
            done = step.after is None
            if done or monotonic() >= until or len(found) >= self._most_differences:
                return self._part(start, found, examined, step.after)
            after = step.after or after

    def _part(self, start: Place, found: list[Difference], examined: int, after: str | None) -> Part:
        examined += start.examined
        different = start.different + len(found)
        place = None
        if after is not None:
            place = Place(examined=examined, different=different, after=after, began_ms=start.began_ms)
        return Part(differences=found, examined=examined, different=different, next=place)

    async def _record(self, part: Part) -> None:
        check = WalletCheck(at=self._clock(), examined=part.examined, different=part.different)
        await self._lanes.run(lambda connection: rows.record(connection, check))


def _wallet_away() -> Unavailable:
    return Unavailable("The wallet cannot be asked right now; try again shortly.", retry_after_seconds=5)
