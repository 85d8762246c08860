"""Webhooks end to end: the real service, a consumer on loopback, signatures checked by the reference library."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic

import anyio
import pytest
from standardwebhooks import Webhook

from app.parts import utc_now
from app.webhooks.posting import ATTEMPT_SECONDS
from tests.support.cluster import until
from tests.support.server import Api, Json, Server, fresh, ok, problem, serving
from tests.webhooks.consumer import Consumer, consumer

WEBHOOKS = "/v1/webhooks"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("webhooks")) as running:
        yield running


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with server.api() as client:
        yield client


@pytest.fixture
async def hook() -> AsyncIterator[Consumer]:
    async with consumer() as consuming:
        yield consuming


async def register(api: Api, feature: str, hook: Consumer, status: int = 201, **body: object) -> Json:
    response = await api.send("PUT", f"{WEBHOOKS}/main", api.server.feature(feature), {"url": hook.url, **body})
    return ok(response, status)


async def look(api: Api, feature: str, path: str = "") -> Json:
    return ok(await api.get(f"{WEBHOOKS}/main{path}", api.server.feature(feature)))


async def until_shown(api: Api, feature: str, path: str = "", *, token: str | None = None, **wanted: object) -> Json:
    """Read the endpoint until every wanted field has its value; `deliveries`: the wanted number of attempts."""
    found: Json = {}

    async def shown() -> bool:
        found.update(ok(await api.get(f"{WEBHOOKS}/main{path}", token or api.server.feature(feature))))
        found["attempts"] = len(found.get("deliveries", ()))
        return all(found[name] == value for name, value in wanted.items())

    await until(shown)
    return found


async def test_a_feature_gets_its_own_events_signed_and_in_order(api: Api, hook: Consumer) -> None:
    feature, performer_id = fresh("wheel"), fresh("mira")
    secret = (await register(api, feature, hook))["secret"]
    item = await api.intake(performer_id, sourceFeature=feature)
    await api.intake(performer_id, sourceFeature=fresh("dice"))
    await api.command("start", item)
    await api.command("complete", item)
    received = await hook.until(3)
    assert [each.content["type"] for each in received] == [
        "queue.item.created",
        "queue.item.started",
        "queue.item.finished",
    ]
    for each in received:
        Webhook(secret).verify(each.body.decode(), each.headers)
        assert each.content["data"]["itemId"] == item["itemId"]
        assert each.message_id == f"evt_{each.content['data']['cursor']}"
    page = ok(await api.get("/v1/events?limit=1000", api.server.feature(feature)))
    assert [each.content["data"] for each in received] == page["events"]


async def test_a_new_endpoint_gets_later_events_and_only_those_it_asks_for(api: Api, hook: Consumer) -> None:
    feature, performer_id = fresh("wheel"), fresh("mira")
    item = await api.intake(performer_id, sourceFeature=feature)
    await register(api, feature, hook, events=["queue.item.finished"])
    await api.command("start", item)
    await api.command("complete", item)
    (received,) = await hook.until(1)
    assert received.content["type"] == "queue.item.finished"


async def test_the_secret_is_shown_once_and_both_are_valid_while_it_changes(api: Api, hook: Consumer) -> None:
    feature, performer_id = fresh("wheel"), fresh("mira")
    old = (await register(api, feature, hook))["secret"]
    assert "secret" not in await look(api, feature)
    assert "secret" not in await register(api, feature, hook, 200)
    new = (await register(api, feature, hook, 200, rotateSecret=True))["secret"]
    assert new != old
    await api.intake(performer_id, sourceFeature=feature)
    (received,) = await hook.until(1)
    for secret in (old, new):
        Webhook(secret).verify(received.body.decode(), received.headers)


async def test_a_failed_delivery_is_repeated_with_the_same_id_before_anything_later_of_its_room(
    api: Api, hook: Consumer
) -> None:
    feature, performer_id = fresh("wheel"), fresh("mira")
    answers = iter([500, 503])
    hook.answer = lambda _: (next(answers, 204), "")
    await register(api, feature, hook)
    first = await api.intake(performer_id, sourceFeature=feature)
    second = await api.intake(performer_id, sourceFeature=feature)
    received = await hook.until(4)
    assert [each.content["data"]["itemId"] for each in received] == [first["itemId"]] * 3 + [second["itemId"]]
    assert len({each.message_id for each in received[:3]}) == 1
    deliveries = await until_shown(api, feature, "/deliveries", attempts=4)
    assert [each["statusCode"] for each in deliveries["deliveries"]] == [204, 204, 503, 500]
    assert [each["delivered"] for each in deliveries["deliveries"]] == [True, True, False, False]
    assert (await look(api, feature))["failures"] == 0


async def test_one_slow_endpoint_holds_up_no_other(api: Api, hook: Consumer) -> None:
    slow, quick, performer_id = fresh("wheel"), fresh("dice"), fresh("mira")
    hook.hold = asyncio.Event()
    await register(api, slow, hook)
    async with consumer() as other:
        await register(api, quick, other)
        await api.intake(performer_id, sourceFeature=slow)
        await hook.until(1)
        for _ in range(3):
            await api.intake(performer_id, sourceFeature=quick)
            await other.until(1)
        assert len(await other.until(3)) == 3
    hook.hold.set()


async def test_a_consumer_that_is_killed_and_restarted_ends_with_every_event_once_and_each_room_in_order(
    api: Api, tmp_path: Path
) -> None:
    feature, rooms = fresh("wheel"), [fresh("mira") for _ in range(3)]
    ledger = tmp_path / "ledger"
    ledger.touch()

    def kept() -> list[list[str]]:
        return [line.split() for line in ledger.read_text().splitlines()]

    async def all_are_kept() -> bool:
        return len({message_id for message_id, *_ in kept()}) == 12

    port = 0
    for survives in (2, 4, 1000):
        command = [sys.executable, "-m", "tests.webhooks.killed_consumer", str(port), str(ledger), str(survives)]
        async with await anyio.open_process(command, stderr=None) as process:
            assert process.stdout is not None
            port = int(await process.stdout.receive())
            if survives == 2:
                await api.send(
                    "PUT", f"{WEBHOOKS}/main", api.server.feature(feature), {"url": f"http://127.0.0.1:{port}/hook"}
                )
                for room in rooms * 4:
                    await api.intake(room, sourceFeature=feature)
            else:
                ok(await api.post(f"{WEBHOOKS}/main/resume", api.server.feature(feature)))
            if survives == 1000:
                await until(all_are_kept)
                process.kill()
            assert await process.wait() == -signal.SIGKILL
    messages = kept()
    assert len(messages) == len({message_id for message_id, *_ in messages}) == 12
    for room in rooms:
        assert [int(version) for _, performer_id, version in messages if performer_id == room] == [1, 2, 3, 4]


async def test_an_endpoint_that_is_gone_is_parked_and_resumed_by_one_command(server: Server, api: Api) -> None:
    feature, performer_id = fresh("wheel"), fresh("mira")
    async with consumer() as hook:
        hook.answer = lambda _: (410, "")
        await register(api, feature, hook)
        item = await api.intake(performer_id, sourceFeature=feature)
        shape = await until_shown(api, feature, status="parked")
        assert shape["lastProblem"] == "the endpoint answered 410"
        assert any("is parked" in line for line in server.expected_errors())
        assert 'queue_webhook_endpoints{status="parked"} 1' in (await api.get("/metrics")).text
        hook.answer = lambda _: (200, "")
        resumed = ok(await api.post(f"{WEBHOOKS}/main/resume", api.server.feature(feature)))
        assert (resumed["status"], resumed["failures"]) == ("active", 0)
        received = await hook.until(2)
        assert received[-1].content["data"]["itemId"] == item["itemId"]


async def test_an_endpoint_that_fails_for_a_day_is_parked(tmp_path: Path) -> None:
    ahead = timedelta()

    def clock() -> datetime:
        return utc_now() + ahead

    with serving(tmp_path, clock=clock) as server:
        async with server.api() as api, consumer() as hook:
            hook.answer = lambda _: (500, "")
            await register(api, "wheel", hook)
            await api.intake("mira", sourceFeature="wheel")
            await until_shown(api, "wheel", failures=1)
            ahead = timedelta(hours=25)
            later = server.sign("feature", "wheel", ttl_seconds=30 * 3600)
            await until_shown(api, "wheel", token=later, status="parked")
        assert any("is parked" in line for line in server.expected_errors())


async def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    async with consumer() as hook:
        hook.answer = lambda _: (500, "")
        with serving(tmp_path) as server:
            async with server.api() as api:
                await register(api, "wheel", hook)
                await api.intake("mira", sourceFeature="wheel")
                await hook.until(1)
        hook.answer = lambda _: (204, "")
        with serving(tmp_path) as server:
            received = await hook.until(2)
            assert received[0].message_id == received[-1].message_id


async def test_a_test_message_says_how_it_went(api: Api, hook: Consumer) -> None:
    feature = fresh("wheel")
    secret = (await register(api, feature, hook))["secret"]
    answer = ok(await api.post(f"{WEBHOOKS}/main/test", api.server.feature(feature)))
    assert (answer["delivered"], answer["statusCode"], answer["event"]) == (True, 204, "webhook.test")
    (received,) = hook.received
    assert Webhook(secret).verify(received.body.decode(), received.headers)["type"] == "webhook.test"
    hook.answer = lambda _: (302, "Location: http://127.0.0.1:1/elsewhere\r\n")
    answer = ok(await api.post(f"{WEBHOOKS}/main/test", api.server.feature(feature)))
    assert (answer["delivered"], answer["problem"]) == (False, "the endpoint answered 302")


async def test_a_test_message_is_answered_in_a_commands_time(tmp_path: Path, hook: Consumer) -> None:
    hook.hold = asyncio.Event()
    with serving(tmp_path, command_seconds=2) as server:
        async with server.api() as api:
            await register(api, "wheel", hook)
            began = monotonic()
            answer = ok(await api.post(f"{WEBHOOKS}/main/test", server.feature("wheel")))
            assert monotonic() - began < ATTEMPT_SECONDS - 1, "a delivery itself may take longer"
            assert (answer["delivered"], answer["statusCode"]) == (False, None)
            assert re.fullmatch(r"no answer within [01]\.?\d* s", answer["problem"])
    hook.hold.set()


async def test_administrators_get_every_event_and_manage_everybodys(api: Api, hook: Consumer) -> None:
    feature, performer_id = fresh("wheel"), fresh("mira")
    admin = api.server.admin
    await register(api, feature, hook)
    async with consumer() as all_events:
        ok(await api.send("PUT", f"{WEBHOOKS}/everything", admin, {"url": all_events.url}), 201)
        await api.change(performer_id, announcement="hello")
        await api.intake(performer_id, sourceFeature=feature)
        received = await all_events.until(2)
        assert {each.content["type"] for each in received} >= {"queue.room.changed", "queue.item.created"}
        everybodys = ok(await api.get(WEBHOOKS, admin))["webhooks"]
        assert {(each["sourceFeature"], each["name"]) for each in everybodys} >= {
            (feature, "main"),
            (None, "everything"),
        }
        response = await api.send("DELETE", f"{WEBHOOKS}/main?sourceFeature={feature}", admin)
        assert (response.status_code, response.content) == (204, b"")
        await api.send("DELETE", f"{WEBHOOKS}/everything", admin)
    problem(await api.get(f"{WEBHOOKS}/main", api.server.feature(feature)), 404, "NOT_FOUND")
    assert ok(await api.get(WEBHOOKS, api.server.feature(feature))) == {"webhooks": []}


async def test_callers_without_the_right_and_wrong_requests_are_refused(api: Api, hook: Consumer) -> None:
    feature = fresh("wheel")
    token = api.server.feature(feature)
    body = {"url": hook.url}
    problem(await api.send("PUT", f"{WEBHOOKS}/main", api.server.viewer("ada"), body), 403, "FORBIDDEN")
    problem(await api.send("PUT", f"{WEBHOOKS}/main?sourceFeature=dice", token, body), 403, "FORBIDDEN")
    problem(await api.send("PUT", f"{WEBHOOKS}/main", None, body), 401, "UNAUTHORIZED")
    for bad in ({}, {"url": "nowhere"}, {**body, "events": []}, {**body, "events": ["queue.item.eaten"]}):
        problem(await api.send("PUT", f"{WEBHOOKS}/main", token, bad), 422, "VALIDATION_ERROR")
    problem(await api.send("PUT", f"{WEBHOOKS}/no%20name", token, body), 422, "VALIDATION_ERROR")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/deliveries"), ("POST", "/test"), ("POST", "/resume")):
        problem(await api.send(method, f"{WEBHOOKS}/main{path}", token), 404, "NOT_FOUND")
    for number in range(20):
        ok(await api.send("PUT", f"{WEBHOOKS}/hook-{number}", token, body), 201)
    problem(await api.send("PUT", f"{WEBHOOKS}/hook-20", token, body), 422, "VALIDATION_ERROR")


async def test_an_administrator_names_a_feature_that_can_be_one(api: Api, hook: Consumer) -> None:
    for query in ("?sourceFeature=" + "x" * 65, "?sourceFeature=", "?sourceFeature=a%00b"):
        for path in ("/v1/webhooks", "/v1/webhooks/main"):
            problem(await api.get(path + query, api.server.admin), 422, "VALIDATION_ERROR")
        refused = await api.send("PUT", f"/v1/webhooks/main{query}", api.server.admin, {"url": hook.url})
        problem(refused, 422, "VALIDATION_ERROR")
