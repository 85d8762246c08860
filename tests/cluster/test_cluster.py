"""Several real processes with one queue: all send the same frames, and none loses anything when another is killed."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx2
import psycopg
import pytest
from websockets.exceptions import WebSocketException

from app.settings import vapid_key
from tests.push.push_service import push_service
from tests.support.cluster import Node, clients, environment_of, faults, nodes, until
from tests.support.cluster import database_url_fixture as database_url_fixture
from tests.support.live_socket import LiveSocket
from tests.support.server import Api, fresh, intake_body, ok, problem
from tests.webhooks.consumer import consumer

ITEMS = "/v1/queue/items"
PROCESSES = 3
TAKEN_OVER_SECONDS = 30.0
"""A lease of presence, and a look at it; a claim's is shorter here."""


@pytest.fixture(scope="module")
def settings(database_url: str, redis_url: str) -> dict[str, str]:
    return environment_of(
        database_url,
        redis_url,
        wallet_timeout_seconds=1,
        max_queue_depth=1000,
        vapid_private_key=vapid_key.private_text(vapid_key.new_private_key()),
        vapid_subject="mailto:ops@queue.example",
    )


@pytest.fixture(scope="module")
def cluster(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(PROCESSES, settings, tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
async def apis(cluster: list[Node], database_url: str) -> AsyncIterator[list[Api]]:
    """A client of each process. Afterwards the records must be consistent."""
    async with clients(cluster) as several:
        yield several
    assert faults(database_url) == []


async def test_every_process_sends_its_sockets_the_same_in_the_same_order(apis: list[Api]) -> None:
    performer_id = fresh("star")
    await apis[0].change(performer_id, announcement="Hello")
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(api.server.live(performer_id)) for api in apis]
        for socket in sockets:
            await socket.until("snapshot")
        # Whichever process somebody watches through, and whichever is asked.
        await asyncio.gather(*(apis[number % PROCESSES].intake(performer_id) for number in range(30)))
        for _ in range(4):
            for api in apis:
                queue = await api.queue(performer_id)
                if queue["items"][0]["status"] == "started":
                    await api.command("complete", {**queue["items"][0], "performerId": performer_id})
                else:
                    await api.start_next(performer_id)
        # Everybody sees this one; of the wallet's answers, which raise the version as well, viewers are told nothing.
        version = (await apis[0].change(performer_id, announcement="Goodbye"))["version"]
        for socket in sockets:
            await socket.reach(version)
        sent = [
            [(event["itemId"], event["event"]) for frame in socket.of("update") for event in frame["events"]]
            for socket in sockets
        ]
        assert sent[0] == sent[1] == sent[2]
        assert [socket.gaps for socket in sockets] == [0, 0, 0]
        assert len(sent[0]) > 40
        now = [(item["itemId"], item["position"]) for item in (await apis[1].queue(performer_id))["items"]]
        for socket in sockets:
            assert [(item["itemId"], item["position"]) for item in socket.view()["items"]] == now


async def test_every_process_lists_the_viewers_of_all_processes(apis: list[Api]) -> None:
    performer_id = fresh("star")

    async def sent(api: Api) -> bool:
        found = ok(await api.get(f"/v1/admin/audiences?performerId={performer_id}", api.server.admin))
        sockets = [audience["sockets"] for audience in found["audiences"]]
        return sockets == [PROCESSES] and found["processes"] == PROCESSES

    async with AsyncExitStack() as stack:
        for api in apis:
            socket = await stack.enter_async_context(api.server.live(performer_id))
            await socket.until("snapshot")
        for api in apis:
            await until(lambda api=api: sent(api))  # type: ignore[misc]


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

    async def settled() -> bool:
        found = ok(await apis[1].get(f"{ITEMS}/{item['itemId']}", apis[1].server.admin))
        return bool(found["settled"])

    async def asked_or_settled() -> bool:
        return asked.is_set() or await settled()

    wallet = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = wallet.sockets[0].getsockname()[1]
    doomed = Node(
        {**settings, "WALLET_URL": f"http://127.0.0.1:{port}", "WALLET_TIMEOUT_SECONDS": "1"}, tmp_path / "log"
    )
    doomed.start()
    try:
        await asyncio.to_thread(doomed.wait_until_ready)
        performer_id = fresh("star")
        async with clients([doomed]) as (doomed_api,), doomed.server.live(performer_id) as viewer:
            await viewer.until("snapshot")
            async with doomed.server.live(performer_id, doomed.server.performer(performer_id)) as panel:
                await panel.until("snapshot")
                while not asked.is_set():
                    item = await doomed_api.intake(performer_id)
                    await panel.until_state(lambda socket: bool(socket.room.get("performerOnline")))
                    await doomed_api.start_next(performer_id)
                    await doomed_api.command("complete", item)
                    # Another process that looks in this moment may be faster: the next one, then.
                    await until(asked_or_settled)
                await viewer.reach(await apis[0].version(performer_id))
                doomed.kill()
                began = time.monotonic()
                await viewer.closed()
        async with apis[0].server.live(performer_id, query=f"?epoch={viewer.epoch}&since={viewer.version}") as again:
            again.continue_from(viewer)
            await apis[1].intake(performer_id)
            await again.reach(viewer.version + 1)
            assert [frame["type"] for frame in again.frames if frame["type"] == "snapshot"] == []
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
    performer_id = fresh("star")
    await apis[0].change(performer_id, maxDepth=1000)
    # Each process is restarted amid this many intakes, however slowly it starts; together they fit into the queue.
    allowed, intakes_a_process = asyncio.Semaphore(0), 300
    stop, complete = asyncio.Event(), asyncio.Event()
    queued: list[str] = []

    async def feature(first: int) -> None:
        """Send each intake until some process has answered, as a feature does."""
        number = first
        while await allowed.acquire() and not stop.is_set():
            body = intake_body(performer_id)
            while True:
                number += 1
                api = apis[number % PROCESSES]
                with suppress(httpx2.TransportError):
                    answer = await api.post(ITEMS, api.server.feature(), body)
                    if answer.status_code in (200, 201):
                        queued.append(answer.json()["itemId"])
                        break
                    problem(answer, 503, "UNAVAILABLE")
            await asyncio.sleep(0.02)

    async def viewer(first: int) -> LiveSocket:
        """Watch until the end, through another process whenever a process ends; returns the last socket."""
        before: LiveSocket | None = None
        number = first
        while True:
            number += 1
            query = f"?epoch={before.epoch}&since={before.version}" if before else ""
            try:
                async with apis[number % PROCESSES].server.live(performer_id, query=query) as socket:
                    if before is not None:
                        socket.continue_from(before)
                    before = socket
                    while not (complete.is_set() and socket.version >= await apis[0].version(performer_id)):
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
            for _ in range(intakes_a_process):
                allowed.release()
            await until(lambda before=before: len(queued) > before + 5)  # type: ignore[misc]
            node.terminate()
            assert await asyncio.to_thread(node.wait) == 0
            node.start()
            await asyncio.to_thread(node.wait_until_ready)
        stop.set()
        for _ in features:
            allowed.release()
        await asyncio.gather(*features)
        complete.set()
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT item_id FROM items WHERE performer_id = %s ORDER BY item_id", [performer_id])
        assert sorted(queued) == [row[0] for row in rows]
    now = [item["itemId"] for item in (await apis[0].queue(performer_id))["items"]]
    for task in viewers:
        assert [item["itemId"] for item in task.result().view()["items"]] == now


async def test_a_viewer_is_notified_once_of_each_moment_whichever_process_it_happens_in(apis: list[Api]) -> None:
    ada = fresh("ada")
    async with push_service() as service:
        token = apis[0].server.viewer(ada)
        ok(await apis[0].send("PUT", "/v1/push/subscriptions/phone", token, service.browser()), 201)
        items = await asyncio.gather(*(api.intake(fresh("star"), userId=ada) for api in apis * 2))
        await service.until(6)
        for api, item in zip(apis * 2, items, strict=True):
            await api.command("start", item)
        received = await service.until(12)
        moments = {(each.content["tag"], each.content["moment"]) for each in received}
        assert len(received) == len(moments) == 12


async def test_exactly_one_process_delivers_to_a_webhook_endpoint(apis: list[Api]) -> None:
    feature, performer_id = fresh("wheel"), fresh("star")
    async with consumer() as hook:
        body = {"url": hook.url}
        ok(await apis[0].send("PUT", "/v1/webhooks/main", apis[0].server.feature(feature), body), 201)
        await asyncio.gather(*(api.intake(performer_id, sourceFeature=feature) for api in apis * 5))
        received = list(await hook.until(15))
        versions = [each.place[1] for each in received]
        assert versions == sorted(versions)

        async def all_taken() -> bool:
            path = "/v1/webhooks/main/deliveries"
            return len(ok(await apis[1].get(path, apis[1].server.feature(feature)))["deliveries"]) == 15

        await until(all_taken)
        assert len(hook.received) == len({each.message_id for each in received}) == 15
