"""Push notifications end to end: the real service, a push service on loopback, browsers that read by the RFCs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.settings import vapid_key
from app.webhooks.posting import Answer, Posting
from tests.push.push_service import PushService, Received, checked_claims, push_service
from tests.support.cluster import until
from tests.support.command_line import run
from tests.support.server import Api, Json, Server, fresh, ok, problem, serving

SUBSCRIPTIONS = "/v1/push/subscriptions"
KEY = vapid_key.new_private_key()
VAPID: dict[str, Any] = {
    "vapid_private_key": vapid_key.private_text(KEY),
    "vapid_subject": "mailto:ops@queue.example",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("push"), **VAPID) as running:
        yield running


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with server.api() as client:
        yield client


@pytest.fixture
async def service() -> AsyncIterator[PushService]:
    async with push_service() as serving_pushes:
        yield serving_pushes


async def subscribe(
    api: Api, user_id: str, service: PushService, name: str = "phone", status: int = 201, **fields: object
) -> Json:
    body = {**service.browser(), **fields}
    return ok(await api.send("PUT", f"{SUBSCRIPTIONS}/{name}", api.server.viewer(user_id), body), status)


async def outcomes(api: Api) -> dict[str, float]:
    lines = (await api.get("/metrics")).text.splitlines()
    found = [line for line in lines if line.startswith("queue_push_total{")]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in found}


async def until_counted(api: Api, outcome: str, number: float) -> None:
    async def counted() -> bool:
        return (await outcomes(api))[outcome] >= number

    await until(counted)


def said(received: Received) -> tuple[str, str]:
    return received.content["moment"], received.content["title"]


async def test_the_moments_of_an_item_are_notified_in_the_subscribers_language(api: Api, service: PushService) -> None:
    room, ada = fresh("mira"), fresh("ada")
    shape = await subscribe(api, ada, service, language="de")
    assert (shape["name"], shape["language"]) == ("phone", "de")
    assert "endpoint" not in shape
    first = await api.intake(room, title="Jolene", durationSeconds=160)
    mine = await api.intake(room, userId=ada, title="Ein Lied", tokens=40)
    await api.start_next(room)
    (received,) = await service.until(1)
    assert received.content == {
        "title": received.content["title"],
        "body": "Ein Lied",
        "tag": mine["itemId"],
        "moment": "next",
        "performerId": room,
    }
    assert received.content["title"] in {f"Nach „Jolene“ bist du dran, in etwa {time}" for time in ("2:40", "2:39")}
    await api.command("complete", first)
    await api.start_next(room)
    assert said((await service.until(2))[1]) == ("started", "Jetzt bist du dran")
    await api.command("abandon", mine, {"reason": "technical_error"})
    last = (await service.until(3))[2]
    assert said(last)[0] == "ended"
    assert "40 Token" in last.content["body"]
    assert "Grund: Technisches Problem" in last.content["body"]
    assert [each.content["tag"] for each in service.received] == [mine["itemId"]] * 3


async def test_a_push_service_gets_sender_urgency_and_time_to_live(api: Api, service: PushService) -> None:
    room, ada = fresh("mira"), fresh("ada")
    public_key = ok(await api.get("/v1/push"))["publicKey"]
    assert public_key == vapid_key.public_text(KEY)
    await subscribe(api, ada, service)
    mine = await api.intake(room, userId=ada)
    await service.until(1)
    await api.command("abandon", mine)
    first, last = await service.until(2)
    for received, urgency, longest in ((first, "high", 120), (last, "normal", 3600)):
        claims = checked_claims(received.headers["authorization"], public_key)
        assert (claims["aud"], claims["sub"]) == (service.origin, "mailto:ops@queue.example")
        assert received.headers["urgency"] == urgency
        assert longest - 30 < int(received.headers["ttl"]) <= longest
        assert received.headers["content-encoding"] == "aes128gcm"
        assert len(received.body) < 3000
    assert first.headers["topic"] == last.headers["topic"]
    assert len(first.headers["topic"]) == 32
    assert mine["itemId"] not in first.headers["topic"]


async def test_every_browser_of_a_user_gets_each_moment_once_whatever_happens_around_it(
    api: Api, service: PushService
) -> None:
    room, ada = fresh("mira"), fresh("ada")
    await subscribe(api, ada, service, "phone")
    await subscribe(api, ada, service, "desk")
    mine = await api.intake(room, userId=ada)
    for _ in range(3):
        await api.intake(room)
        await api.change(room, announcement=fresh("hello"))
    await service.until(2)
    await api.command("start", mine)
    await api.command("pause", mine)
    await api.command("resume", mine)
    await service.until(4)
    await api.command("complete", mine)
    other = await api.intake(fresh("mira"), userId=ada)
    received = await service.until(6)
    moments = [(each.path, each.content["tag"], each.content["moment"]) for each in received]
    assert len(moments) == len(set(moments)) == 6
    assert {tag for _, tag, _ in moments} == {mine["itemId"], other["itemId"]}


@pytest.mark.parametrize("status", [404, 410])
async def test_a_subscription_that_its_browser_has_ended_is_removed(
    api: Api, service: PushService, status: int
) -> None:
    ada, before = fresh("ada"), (await outcomes(api))["gone"]
    service.answer = lambda _: (status, "")
    await subscribe(api, ada, service)
    await api.intake(fresh("mira"), userId=ada)
    await until_counted(api, "gone", before + 1)
    removed = await api.send("DELETE", f"{SUBSCRIPTIONS}/phone", api.server.viewer(ada))
    problem(removed, 404, "NOT_FOUND")
    assert len(service.received) == 1


async def test_a_push_service_that_is_busy_is_asked_again(api: Api, service: PushService) -> None:
    ada = fresh("ada")
    answers = iter([(429, "Retry-After: 1\r\n")])
    service.answer = lambda _: next(answers, (201, ""))
    await subscribe(api, ada, service)
    await api.intake(fresh("mira"), userId=ada)
    first, again = await service.until(2)
    assert first.content["tag"] == again.content["tag"]
    assert (await outcomes(api))["retried"] >= 1


async def test_refused_or_expired_notices_are_not_sent_again(
    api: Api, service: PushService, caplog: pytest.LogCaptureFixture
) -> None:
    before = await outcomes(api)
    eve, ada = fresh("eve"), fresh("ada")
    service.answer = lambda _: (403, "")
    await subscribe(api, eve, service)
    refused = await api.intake(fresh("mira"), userId=eve)
    await until_counted(api, "refused", before["refused"] + 1)
    service.answer = lambda _: (503, "Retry-After: 3600\r\n")
    await subscribe(api, ada, service)
    await api.intake(fresh("mira"), userId=ada)
    await until_counted(api, "expired", before["expired"] + 1)
    assert len(service.received) == 2
    (line,) = [record.getMessage() for record in caplog.records if "push service" in record.getMessage()]
    assert line == f"a push service refused the notice about item {refused['itemId']}: it answered 403"


async def test_an_unresolvable_name_counts_as_a_push_service_that_is_away(api: Api, service: PushService) -> None:
    ada, before = fresh("ada"), (await outcomes(api))["retried"]
    for number, host in enumerate(("a..b", "nobody.invalid", "x" * 70)):
        await subscribe(api, ada, service, f"browser-{number}", endpoint=f"https://{host}/x")
    await api.intake(fresh("mira"), userId=ada)
    await until_counted(api, "retried", before + 3)


async def test_a_failure_of_our_own_is_logged_once_without_the_endpoint(
    server: Server, api: Api, service: PushService, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, before = fresh("ada"), (await outcomes(api))["refused"]

    async def post(posting: Posting, url: str, *given: object, **more: object) -> Answer:
        raise ValueError(url)

    server.replace(monkeypatch, Posting, "post", post)
    await subscribe(api, ada, service)
    item = await api.intake(fresh("mira"), userId=ada)
    await until_counted(api, "refused", before + 1)
    (line,) = server.expected_errors()
    assert line.startswith(f"a push notification about item {item['itemId']} failed: ValueError\n")
    assert "127.0.0.1" not in line


async def test_a_push_service_that_does_not_answer_holds_up_nobody_else(api: Api, service: PushService) -> None:
    service.hold = asyncio.Event()
    async with push_service() as other:
        for _ in range(12):
            hung = fresh("hung")
            await subscribe(api, hung, service)
            await api.intake(fresh("mira"), userId=hung)
        await service.until(8)
        ada = fresh("ada")
        await subscribe(api, ada, other)
        await api.intake(fresh("mira"), userId=ada)
        await other.until(1)
        assert len(service.received) == 8
    service.hold.set()
    await service.until(12)


async def test_a_restart_goes_on_where_it_was_and_repeats_nothing(tmp_path: Path, service: PushService) -> None:
    service.answer = lambda received: (503, "") if received.content["moment"] == "started" else (201, "")
    with serving(tmp_path, **VAPID) as server:
        async with server.api() as api:
            await subscribe(api, "ada", service)
            await api.command("start", await api.intake("mira", userId="ada"))
            await api.intake("zoe", userId="ada")
            await service.until(2)
            await until_counted(api, "retried", 1)
    service.answer = lambda _: (201, "")
    with serving(tmp_path, **VAPID) as server:
        async with server.api() as api:
            await until_counted(api, "delivered", 1)
            await api.intake("lou", userId="ada")
            await until_counted(api, "delivered", 2)
    delivered = [(each.content["performerId"], each.content["moment"]) for each in service.received]
    assert delivered.count(("zoe", "next")) == delivered.count(("lou", "next")) == 1
    assert delivered.count(("mira", "started")) >= 2


async def test_a_user_who_is_forgotten_has_no_subscription(tmp_path: Path, service: PushService) -> None:
    with serving(tmp_path, **VAPID) as server:
        async with server.api() as api:
            await subscribe(api, "ada", service)
            done = await asyncio.to_thread(run, "forget ada", server.settings.database_url)
            assert done.exit_code == 0, done.output
            missing = await api.send("DELETE", f"{SUBSCRIPTIONS}/phone", server.viewer("ada"))
            problem(missing, 404, "NOT_FOUND")


async def test_a_viewer_renews_and_removes_their_own(api: Api, service: PushService) -> None:
    ada, eve = fresh("ada"), fresh("eve")
    made = await subscribe(api, ada, service)
    renewed = await subscribe(api, ada, service, status=200, language="de")
    assert renewed["createdAt"] == made["createdAt"]
    assert renewed["renewedAt"] >= made["renewedAt"]
    problem(await api.send("DELETE", f"{SUBSCRIPTIONS}/phone", api.server.viewer(eve)), 404, "NOT_FOUND")
    answer = await api.send("DELETE", f"{SUBSCRIPTIONS}/phone", api.server.viewer(ada))
    assert (answer.status_code, answer.content) == (204, b"")
    problem(await api.send("DELETE", f"{SUBSCRIPTIONS}/phone", api.server.viewer(ada)), 404, "NOT_FOUND")


async def test_callers_without_the_right_and_wrong_requests_are_refused(api: Api, service: PushService) -> None:
    ada = api.server.viewer(fresh("ada"))
    body = service.browser()
    for token, status, code in (
        (None, 401, "UNAUTHORIZED"),
        (api.server.admin, 403, "FORBIDDEN"),
        (api.server.performer("mira"), 403, "FORBIDDEN"),
    ):
        problem(await api.send("PUT", f"{SUBSCRIPTIONS}/phone", token, body), status, code)
        problem(await api.send("DELETE", f"{SUBSCRIPTIONS}/phone", token), status, code)
    wrong = [
        {},
        {**body, "endpoint": "nowhere"},
        {**body, "endpoint": f"https://push.example/{'x' * 1000}"},
        {**body, "endpoint": "https://%zz/x"},
        {**body, "keys": {**body["keys"], "p256dh": "AAAA"}},
        {**body, "keys": {**body["keys"], "auth": "AAAA"}},
        {**body, "keys": {"auth": body["keys"]["auth"]}},
        {**body, "language": "fr"},
        {**body, "expirationTime": None},
    ]
    for bad in wrong:
        problem(await api.send("PUT", f"{SUBSCRIPTIONS}/phone", ada, bad), 422, "VALIDATION_ERROR")
    problem(await api.send("PUT", f"{SUBSCRIPTIONS}/no%20name", ada, body), 422, "VALIDATION_ERROR")
    problem(await api.send("DELETE", f"{SUBSCRIPTIONS}/no%20name", ada), 404, "NOT_FOUND")


async def test_without_a_key_nothing_is_offered_and_nothing_stored(tmp_path: Path, service: PushService) -> None:
    with serving(tmp_path) as server:
        async with server.api() as api:
            assert ok(await api.get("/v1/push")) == {"publicKey": None}
            refused = await api.send("PUT", f"{SUBSCRIPTIONS}/phone", server.viewer("ada"), service.browser())
            problem(refused, 404, "NOT_FOUND")
            assert await outcomes(api) == {}


PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "auth_secret": "0f3a9c07be1d245860b7e02c9d48f6a135",
    "wallet_queue_secret": "1f3a9c07be1d245861b7e02c9d48f6a135",
    "wallet_api_token": "2f3a9c07be1d245862b7e02c9d48f6a135",
    "wallet_url": "https://wallet.example",
    "webhook_hosts": "127.0.0.1",
}


async def test_production_sends_to_public_addresses_over_https_only(tmp_path: Path, service: PushService) -> None:
    with serving(tmp_path, **VAPID, **PRODUCTION) as server:
        async with server.api() as api:
            ada, body = server.viewer("ada"), service.browser()
            for endpoint in (
                body["endpoint"],
                body["endpoint"].replace("http:", "https:"),
                "https://169.254.169.254/latest",
                "https://[::ffff:10.0.0.8]/x",
                "http://push.example/x",
                "https://user:word@push.example/x",
            ):
                refused = await api.send("PUT", f"{SUBSCRIPTIONS}/phone", ada, {**body, "endpoint": endpoint})
                assert problem(refused, 422, "VALIDATION_ERROR")["errors"][0]["field"] == "endpoint"
            # A name is looked up when it is called: one that leads back here is not.
            here = f"https://localhost:{service.port}/x"
            ok(await api.send("PUT", f"{SUBSCRIPTIONS}/phone", ada, {**body, "endpoint": here}), 201)
            await api.intake("mira", userId="ada")
            await until_counted(api, "retried", 1)
    assert service.received == []
