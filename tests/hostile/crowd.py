"""Honest users of one room, who measure their latencies: viewers, a panel, and a feature that posts intakes."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import httpx2

from app.access import auth
from app.domain.command import Role
from app.parts import utc_now
from app.settings import DEVELOPMENT_AUTH_SECRET
from tests.hostile.attacks import handshake
from tests.support.server import intake_body

ROOM = "mira"
WATCHED = 25
"""Viewers whose frames are looked at; the others only take them."""
ADDRESSES = 50
"""That the viewers come from."""
_TITLE = re.compile(rb'"title":"n-(\d+)"')


def token(role: Role, sub: str) -> str:
    return auth.sign(DEVELOPMENT_AUTH_SECRET, role, sub, now=utc_now())


@dataclass
class Measured:
    """Latencies in seconds, and the number of refusals and closed connections."""

    intakes: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    commands: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    cpu: float = 0.0
    """Share of a core that the server took meanwhile."""


def p99(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else 0.0


class Viewer(asyncio.Protocol):
    def __init__(self, crowd: "Crowd", *, watches: bool) -> None:
        self._crowd = crowd
        self._watches = watches
        self._seen: set[bytes] = set()
        self.begun = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(handshake(ROOM))

    def data_received(self, data: bytes) -> None:
        if not self.begun.done():
            if b'"type":"snapshot"' in data:
                self.begun.set_result(None)
            return
        if self._watches and b'"snapshot"' not in data:
            now = time.perf_counter()
            for number in set(_TITLE.findall(data)) - self._seen:
                self._seen.add(number)
                sent = self._crowd.sent.get(int(number))
                if sent is not None:
                    self._crowd.measured.updates.append(now - sent)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.begun.done():
            self.begun.set_exception(ConnectionError("the server has closed"))
        elif not self._crowd.is_leaving:
            self._crowd.measured.refused.append("a viewer was closed")


def _same(viewer: Viewer) -> Viewer:
    return viewer


class Crowd:
    """`async with` brings them in and has them leave; between, they are at work. `measured` may be replaced."""

    def __init__(self, port: int, *, viewers: int, intakes_per_second: float) -> None:
        self._port = port
        self._viewers = viewers
        self._pause = 1 / intakes_per_second
        self.measured = Measured()
        self.sent: dict[int, float] = {}
        self.is_leaving = False

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator["Crowd"]:
        loop = asyncio.get_running_loop()
        transports = []
        for number in range(self._viewers):
            viewer = Viewer(self, watches=number < WATCHED)
            source = (f"127.0.0.{100 + number % ADDRESSES}", 0)
            made = partial(_same, viewer)
            transport, _ = await loop.create_connection(made, "127.0.0.1", self._port, local_addr=source)
            await viewer.begun
            transports.append(transport)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", trust_env=False, timeout=30) as http:
            tasks = [asyncio.create_task(self._post(http)), asyncio.create_task(self._perform(http))]
            try:
                yield self
            finally:
                self.is_leaving = True
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for transport in transports:
                    transport.abort()

    async def _post(self, http: httpx2.AsyncClient) -> None:
        """Post intakes at fixed times, whether earlier ones are answered or not."""
        headers = {"Authorization": f"Bearer {token(Role.FEATURE, 'wheel')}"}
        async with asyncio.TaskGroup() as group:
            number = 0
            while True:
                number += 1
                group.create_task(self._intake(http, number, headers))
                await asyncio.sleep(self._pause)

    async def _intake(self, http: httpx2.AsyncClient, number: int, headers: dict[str, str]) -> None:
        body = intake_body(ROOM, title=f"n-{number}")
        measured = self.measured
        began = self.sent[number] = time.perf_counter()
        try:
            response = await http.post("/v1/queue/items", json=body, headers=headers)
        except httpx2.HTTPError as problem:
            measured.refused.append(f"intake: {problem!r}")
            return
        measured.intakes.append(time.perf_counter() - began)
        if response.status_code != 201:
            measured.refused.append(f"intake: {response.status_code}")

    async def _perform(self, http: httpx2.AsyncClient) -> None:
        """The performer starts and completes one item after the other."""
        headers = {"Authorization": f"Bearer {token(Role.PERFORMER, ROOM)}"}
        while True:
            await asyncio.sleep(0.5)
            began = time.perf_counter()
            with suppress(httpx2.HTTPError):
                started = await http.post(f"/v1/performers/{ROOM}/queue/start-next", headers=headers)
                self.measured.commands.append(time.perf_counter() - began)
                if started.status_code == 200:
                    item_id = json.loads(started.text)["itemId"]
                    await http.post(f"/v1/queue/items/{item_id}/complete", headers=headers)
