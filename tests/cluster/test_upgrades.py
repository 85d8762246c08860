"""A rolling upgrade from the previous release, under load: nobody sees an error other than 1012, nothing is lost.

Where the history does not hold the previous release, these tests are not collected (see tests/conftest.py).
"""

import asyncio
import io
import subprocess
import tarfile
import venv
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx2
import psycopg
import pytest
from websockets.exceptions import ConnectionClosed

from tests.support import previous_release as previous
from tests.support.cluster import Node, environment_of, faults, migrate, unresolved, until
from tests.support.command_line import run
from tests.support.live_socket import LiveSocket
from tests.support.server import Api, Json, fresh, intake_body, ok

RESTARTING = 1012
INSTALL_SECONDS = 300


@pytest.fixture(scope="module")
def previous_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source tree of the previous release, from the repository's history, with an environment of its own."""
    archive = previous.git("archive", previous.commit())
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    venv.create(folder / ".venv", with_pip=True)
    requirements = str(folder / "requirements.txt")
    pip = [str(python_of(folder)), "-m", "pip", "install", "--quiet", "--requirement", requirements]
    subprocess.run(pip, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    return folder


def python_of(release: Path) -> Path:
    return release / ".venv" / "bin" / "python"


@dataclass(eq=False)
class Site:
    """A load balancer's list of processes, and all clients with their answers and errors."""

    performer_ids: list[str]
    serving: list[Node] = field(default_factory=list)
    intakes: list[tuple[Json, Json]] = field(default_factory=list)
    """Body and answer."""
    errors: list[str] = field(default_factory=list)
    closes: set[int] = field(default_factory=set)
    over: bool = False
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    clients: dict[Node, Api] = field(default_factory=dict)
    at_rest: bool = False
    """Nobody asks for anything any more."""
    underway: Counter[Node] = field(default_factory=Counter)
    """Requests that each process has yet to answer."""

    async def more(self, intakes: int) -> None:
        """Wait until this many more requests have been answered."""
        seen = len(self.intakes)
        await until(lambda: len(self.intakes) >= seen + intakes, 60)

    async def feature(self, number: int) -> None:
        for at in count():
            if self.over:
                return
            node = self.serving[at % len(self.serving)]
            body = intake_body(self.performer_ids[at % len(self.performer_ids)], sourceFeature=f"feature-{number}")
            async with self.using(node) as api:
                answer = await self.ask(api, "/v1/queue/items", node.server.feature(f"feature-{number}"), body)
            if answer is not None:
                self.intakes.append((body, answer))
            await asyncio.sleep(0.01)

    async def performer(self, performer_id: str) -> None:
        for at in count():
            if self.over:
                return
            node = self.serving[at % len(self.serving)]
            token = node.server.performer(performer_id)
            async with self.using(node) as api:
                started = await self.ask(api, f"/v1/performers/{performer_id}/queue/start-next", token)
                if started is not None and "itemId" in started:
                    await self.ask(api, f"/v1/queue/items/{started['itemId']}/complete", token)
            await asyncio.sleep(0.02)

    @asynccontextmanager
    async def using(self, node: Node) -> AsyncIterator[Api]:
        self.underway[node] += 1
        try:
            if node not in self.clients:
                self.clients[node] = await self.stack.enter_async_context(node.server.api())
            yield self.clients[node]
        finally:
            self.underway[node] -= 1

    async def take_out(self, node: Node) -> None:
        """Remove a process from the load balancer: it gets no new requests, and its requests under way end."""
        self.serving.remove(node)
        await until(lambda: not self.underway[node])

    async def ask(self, api: Api, path: str, token: str, body: Json | None = None) -> Json | None:
        try:
            response = await api.post(path, token, body)
        except httpx2.HTTPError as error:
            self.errors.append(f"{path}: {type(error).__name__}")
            return None
        if response.status_code >= 500 or response.status_code not in (200, 201, 409):
            self.errors.append(f"{path}: {response.status_code} {response.text}")
        return response.json() if response.status_code in (200, 201) else None

    async def viewer(self, performer_id: str) -> LiveSocket:
        """Watch until the end, and reconnect to the same address; returns the last socket."""
        before: LiveSocket | None = None
        while True:
            resume = "" if before is None else f"?epoch={before.epoch}&since={before.version}"
            async with self.serving[-1].server.live(performer_id, query=resume) as live:
                if before is not None:
                    live.continue_from(before)
                try:
                    while not self.at_rest:
                        try:
                            await live.next(0.2)
                        except TimeoutError:
                            continue
                    await live.settled()
                    return live
                except ConnectionClosed as end:
                    self.closes.add(end.rcvd.code if end.rcvd else 1006)
                    before = live


@pytest.mark.timeout(420)
async def test_a_rolling_upgrade_under_load_shows_nobody_an_error(
    previous_release: Path, postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    chosen = environment_of(postgres_url, redis_url)
    migrate(chosen, root=previous_release, python=python_of(previous_release))
    old = Node(chosen, tmp_path / "old.log", root=previous_release, python=python_of(previous_release))
    new = Node(chosen, tmp_path / "new.log")
    site = Site([fresh("star") for _ in range(3)])
    try:
        old.start()
        await asyncio.to_thread(old.wait_until_ready)
        site.serving = [old]
        async with site.stack, asyncio.TaskGroup() as watching:
            viewers = [watching.create_task(site.viewer(performer_id)) for performer_id in site.performer_ids]
            async with asyncio.TaskGroup() as people:
                for number in range(2):
                    people.create_task(site.feature(number))
                for performer_id in site.performer_ids:
                    people.create_task(site.performer(performer_id))
                await upgrade(site, old, new, chosen)
                site.over = True
            site.at_rest = True
        assert site.errors == []
        assert site.closes == {RESTARTING}
        for viewer in viewers:
            await has_the_room_as_it_is(new, viewer.result())
        await until(lambda: unresolved(postgres_url) == 0, 60)
        assert faults(postgres_url) == []
        await answers_are_given_again(new, site)
        before = await log_of(new)
        # The previous release has gone for good.
        await asyncio.to_thread(migrate, chosen, "--contract")
        new.terminate()
        assert await asyncio.to_thread(new.wait) == 0
        new.start()
        await asyncio.to_thread(new.wait_until_ready)
        await until(lambda: whole_events(postgres_url) == 0, 60)
        assert (await log_of(new))[: len(before)] == before
        await answers_are_given_again(new, site)
    finally:
        old.stop()
        new.stop()
    checked = await asyncio.to_thread(run, "check", postgres_url)
    assert checked.exit_code == 0, checked.output


async def upgrade(site: Site, old: Node, new: Node, chosen: dict[str, str]) -> None:
    """Upgrade all processes as the guide describes it."""
    await site.more(40)
    await asyncio.to_thread(migrate, chosen)
    await site.more(20)
    new.start()
    await asyncio.to_thread(new.wait_until_ready)
    site.serving.append(new)
    await site.more(60)
    await site.take_out(old)
    old.terminate()
    assert await asyncio.to_thread(old.wait) == 0
    await site.more(40)


async def has_the_room_as_it_is(node: Node, viewer: LiveSocket) -> None:
    async with node.server.live(viewer.room["performerId"]) as live:
        await live.until("snapshot")
        now, seen = live.view(), viewer.view()
        # A viewer stays behind what no viewer may see. The previous release shows fewer fields.
        assert seen["epoch"] == now["epoch"]
        assert [item["itemId"] for item in seen["items"]] == [item["itemId"] for item in now["items"]]
        for before, after in [*zip(seen["items"], now["items"], strict=True), (seen["room"], now["room"])]:
            shown = before.keys() - {"version"}
            assert {name: before[name] for name in shown} == {name: after[name] for name in shown}


async def answers_are_given_again(node: Node, site: Site) -> None:
    """Check that every tenth intake gets its first answer again, whichever release gave it."""
    async with node.server.api() as api:
        for body, answer in site.intakes[::10]:
            again = await api.post("/v1/queue/items", node.server.feature(body["sourceFeature"]), body)
            assert again.headers.get("Idempotent-Replayed") == "true"
            assert ok(again)["itemId"] == answer["itemId"]


async def log_of(node: Node) -> list[Json]:
    events: list[Json] = []
    async with node.server.api() as api:
        while page := ok(
            await api.get(
                "/v1/events?limit=1000" + (f"&after={events[-1]['cursor']}" if events else ""), node.server.admin
            )
        )["events"]:
            events.extend(page)
    return events


def whole_events(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM events WHERE item IS NOT NULL AND item NOT LIKE '~%'").fetchone()
    assert row is not None
    return int(row[0])
