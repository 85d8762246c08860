"""A client of the live socket: it stays connected, resumes after a break, and compares its view with every snapshot.

Owns one connection at a time and the client's side of the contract's section 5. The caller (`people`) decides when to
leave and which commands to send.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Any
from uuid import uuid4

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from app.simulate.site import Site, Unreachable
from app.simulate.tally import Tally
from app.simulate.view import Frame, Taken, View

SUBPROTOCOL = Subprotocol("performance-queue.v1")
ANSWER_SECONDS = 10.0
DO_NOT_RETURN = range(4500, 5000)
FRAMES_A_MINUTE = 100
"""Frames that a client sends a minute at most; the contract allows 120."""
LARGEST_FRAME = 16 * 1024 * 1024


class LiveSocket:
    """`token` None: an anonymous viewer. `by_frame`: the token is sent in an `auth` frame, as browsers have to."""

    def __init__(
        self,
        site: Site,
        tally: Tally,
        performer_id: str,
        *,
        token: str | None,
        random: Random,
        by_frame: bool = False,
    ) -> None:
        self.performer_id = performer_id
        self.view = View()
        self.arrived = asyncio.Event()
        """Set when the first snapshot has arrived."""
        self.news = asyncio.Event()
        """Set whenever the view has changed; its reader clears it."""
        self._site = site
        self._tally = tally
        self._token = token
        self._random = random
        self._by_frame = by_frame and token is not None
        self._connection: ClientConnection | None = None
        self._leaving = False
        self._away_until = 0.0
        self._retry = (0.5, 2.0)
        self._answers: dict[str, asyncio.Future[Frame]] = {}
        self._snapshots: list[asyncio.Future[None]] = []
        self._sent: deque[float] = deque(maxlen=FRAMES_A_MINUTE)
        self._ping_sent = 0.0
        # State of the present connection:
        self._authenticated = False
        self._had_snapshot = False
        self._resyncing = False
        self._newest_at: str | None = None

    @property
    def is_live(self) -> bool:
        return self._connection is not None and self._authenticated and self.view.version is not None

    async def run(self) -> None:
        """Stay connected until cancelled, or until the server says not to come back."""
        while True:
            code = await self._connect_once()
            if code is not None:
                self._tally.closes[code] += 1
                if code in DO_NOT_RETURN:
                    return
            pause = max(self._away_until - time.monotonic(), 0) if code is None else self._random.uniform(*self._retry)
            await asyncio.sleep(pause)

    async def leave(self, seconds: float = 0) -> None:
        """Drop the connection and come back after a while, resuming."""
        self._leaving = True
        self._away_until = time.monotonic() + seconds
        if self._connection is not None:
            await self._connection.close()

    async def command(self, name: str, fields: Mapping[str, Any]) -> Frame:
        """Send a command and return its `ack` or `error` frame. Raises Unreachable."""
        command_id = uuid4().hex
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._answers[command_id] = answer
        try:
            await self._send({"type": name, "id": command_id, **fields})
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except TimeoutError:
            raise Unreachable("no answer in time") from None
        finally:
            self._answers.pop(command_id, None)

    async def check(self) -> bool:
        """Request a snapshot and compare the view with it; False if none came within ANSWER_SECONDS."""
        arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._snapshots.append(arrival)
        try:
            await self._send({"type": "resync"})
            async with asyncio.timeout(ANSWER_SECONDS):
                await arrival
        except (TimeoutError, Unreachable):
            return False
        return True

    @property
    def may_send(self) -> bool:
        """Whether another frame fits into this minute."""
        return len(self._sent) < FRAMES_A_MINUTE or time.monotonic() - self._sent[0] > 60

    # The connection

    async def _connect_once(self) -> int | None:
        """Open a connection and use it until it ends. Returns the close code; None if `leave` ended it."""
        headers = {}
        if self._token is not None and not self._by_frame:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            async with connect(
                self._site.live_url(self.performer_id, epoch=self.view.epoch, since=self.view.version),
                additional_headers=headers,
                subprotocols=[SUBPROTOCOL],
                compression=None,
                proxy=None,
                max_size=LARGEST_FRAME,
                close_timeout=1,
            ) as connection:
                return await self._converse(connection)
        except InvalidStatus as refused:
            return refused.response.status_code
        except (OSError, InvalidHandshake, TimeoutError, EOFError):
            return 0

    async def _converse(self, connection: ClientConnection) -> int | None:
        self._connection = connection
        self._authenticated = not self._by_frame
        self._had_snapshot = self._resyncing = self._leaving = False
        self._newest_at = None
        self._sent.clear()
        self._tally.sockets_opened += 1
        self._tally.sockets_open += 1
        try:
            if self._by_frame:
                await self._send({"type": "auth", "token": self._token})
            self._ping_sent = time.time()
            await self._send({"type": "ping"})
            while True:
                await self._take(orjson.loads(await connection.recv()))
        except (ConnectionClosed, Unreachable):
            if self._leaving:
                return None
            return connection.close_code or 1006
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as unreadable:
            self._tally.compared(str(self), [f"a frame that the contract does not have ({type(unreadable).__name__})"])
            return 1002
        finally:
            self._connection = None
            self._tally.sockets_open -= 1
            for waiting in [*self._answers.values()]:
                if not waiting.done():
                    waiting.set_exception(Unreachable("the connection broke"))

    async def _send(self, frame: Frame) -> None:
        if self._connection is None:
            raise Unreachable("not connected")
        self._sent.append(time.monotonic())
        try:
            await self._connection.send(orjson.dumps(frame).decode())
        except ConnectionClosed:
            raise Unreachable("the connection broke") from None

    # Frames

    async def _take(self, frame: Frame) -> None:
        self._tally.frames[frame["type"]] += 1
        match frame["type"]:
            case "welcome":
                self._retry = tuple(frame["retrySeconds"])
                if frame["sub"] is not None:
                    self._authenticated = True
            case "ack" | "error":
                answer = self._answers.get(frame["id"] or "")
                if answer is not None and not answer.done():
                    answer.set_result(frame)
            case "pong":
                self._tally.clock.observe(self._ping_sent, time.time(), frame["serverTime"])
            # Frames before the token is accepted are for an anonymous viewer.
            case "snapshot" if self._authenticated:
                self._take_snapshot(frame)
            case "update" if self._authenticated:
                await self._take_update(frame)
            case "position" if self._authenticated:
                self.view.take(frame)
                if frame["version"] == self.view.version and self._newest_at is not None:
                    self._measure(self._tally.position_latency.add, self._newest_at)
        self.news.set()

    def _take_snapshot(self, frame: Frame) -> None:
        view, version = self.view, frame["version"]
        if view.epoch == frame["epoch"] and view.version is not None:
            if view.version == version:
                self._tally.compared(f"{self} at version {version}", view.differences(frame))
            elif view.version > version and self._had_snapshot:
                self._tally.compared(str(self), [f"went back from version {view.version} to {version}"])
        view.take(frame)
        self.arrived.set()
        self._had_snapshot, self._resyncing, self._newest_at = True, False, None
        for arrival in self._snapshots:
            if not arrival.done():
                arrival.set_result(None)
        self._snapshots.clear()

    async def _take_update(self, frame: Frame) -> None:
        taken = self.view.take(frame)
        if taken is Taken.GAP and not self._resyncing:
            self._tally.gaps += 1
            self._resyncing = True
            await self._send({"type": "resync"})
        elif frame.get("recovered"):
            # A snapshot shows whether the recovered update was complete.
            self._tally.resumed += 1
            self._had_snapshot = True
            await self._send({"type": "resync"})
        if taken is not Taken.APPLIED:
            return
        self._tally.events += len(frame["events"])
        if frame["events"] and not frame.get("recovered"):
            self._newest_at = frame["events"][-1]["at"]
            self._measure(self._tally.update_latency.add, self._newest_at)
        else:
            self._newest_at = None

    def _measure(self, add: Any, at: str) -> None:
        age = self._tally.clock.age(at, time.time())
        if age is not None:
            add(age)

    def __str__(self) -> str:
        who = "an anonymous viewer" if self._token is None else "somebody with a token"
        return f"{who} of {self.performer_id}"
