"""The checks before the lane: limits, and calls to the wallet, which a repeated request does not make again."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from app.access import auth
from app.domain.command import Role
from app.main import create_app
from app.settings import Settings
from tests.support.server import Api, Json, Server, fresh, intake_body, nothing_changes, ok, problem, serving

ITEMS = "/v1/queue/items"


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that asks the wallet, here the sandbox, whether an escrow is held before it queues an item."""
    with serving(tmp_path_factory.mktemp("careful"), wallet_verify_holds=True) as server:
        yield server


@pytest.fixture
async def api(careful: Server) -> AsyncIterator[Api]:
    async with careful.api() as api:
        yield api


async def held_body(api: Api, performer_id: str, tokens: int = 100) -> Json:
    """An intake whose escrow is held."""
    body = intake_body(performer_id, userId=fresh("user"), tokens=tokens)
    grant = {"userId": body["userId"], "amount": tokens}
    assert (await api.post("/sandbox/grants", None, grant, headers={"X-Idempotency-Key": fresh("grant")})).is_success
    response = await api.post(
        f"/sandbox/wallets/{body['userId']}/escrow/hold",
        None,
        {
            "amount": tokens,
            "reason": "a song",
            "queueItemId": body["sourceEventId"],
            "featureType": body["sourceFeature"],
            "metadata": {},
        },
        headers={"X-Idempotency-Key": fresh("hold")},
    )
    body["escrowTransactionId"] = ok(response, 201)["escrowId"]
    return body


async def test_an_escrow_that_is_held_is_queued(api: Api, careful: Server, performer_id: str) -> None:
    body = await held_body(api, performer_id)
    assert ok(await api.post(ITEMS, careful.feature(), body), 201)["status"] == "created"


async def test_an_escrow_that_is_not_held_for_this_user_and_amount_is_not_found(
    api: Api, careful: Server, performer_id: str
) -> None:
    body = await held_body(api, performer_id)
    for wrong in (
        {"escrowTransactionId": fresh("escrow")},
        {"userId": fresh("user")},
        {"tokens": 99},
    ):
        problem(await api.post(ITEMS, careful.feature(), {**body, **wrong}), 422, "ESCROW_NOT_FOUND")
    assert await api.version(performer_id) == 0
    # None of that has used the key up.
    ok(await api.post(ITEMS, careful.feature(), body), 201)


async def test_a_repeated_intake_asks_the_wallet_no_more(api: Api, careful: Server, performer_id: str) -> None:
    body = await held_body(api, performer_id)
    item = ok(await api.post(ITEMS, careful.feature(), body), 201)
    await api.command("refund", item, {"reason": "technical_error"})
    assert ok(await api.post(ITEMS, careful.feature(), body)) == item


async def test_a_wallet_that_cannot_be_asked_queues_nothing(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:1"
    with serving(tmp_path, wallet_verify_holds=True, wallet_url=nowhere, wallet_timeout_seconds=1) as server:
        async with server.api() as api:
            response = await api.post(ITEMS, server.feature(), intake_body("mira"))
            refusal = problem(response, 503, "UNAVAILABLE")
            assert response.headers["Retry-After"] == str(refusal["retryAfterSeconds"])
            assert await api.version("mira") == 0


async def test_the_limit_of_a_user_is_the_same_for_all_features(tmp_path: Path) -> None:
    with serving(tmp_path, user_intakes_per_minute=3) as server:
        async with server.api() as api:
            for feature in ("wheel", "dice", "menu"):
                await api.intake(fresh("star"), userId="ada", sourceFeature=feature)
            for feature in ("wheel", "dice"):
                body = intake_body(fresh("star"), userId="ada", sourceFeature=feature)
                problem(await api.post(ITEMS, server.feature(feature), body), 429, "RATE_LIMIT_EXCEEDED")


async def test_a_duration_is_bounded_by_the_setting(tmp_path: Path) -> None:
    with serving(tmp_path, max_duration_seconds=90) as server:
        async with server.api() as api:
            assert (await api.intake("mira", durationSeconds=90))["durationSeconds"] == 90
            async with nothing_changes(api, "mira"):
                body = intake_body("mira", durationSeconds=91)
                refusal = problem(await api.post(ITEMS, server.feature(), body), 422, "VALIDATION_ERROR")
            assert [wrong["field"] for wrong in refusal["errors"]] == ["durationSeconds"]


async def test_a_depth_is_bounded_by_the_setting(tmp_path: Path) -> None:
    with serving(tmp_path, max_queue_depth=2) as server:
        async with server.api() as api:
            for _ in range(2):
                await api.intake("mira")
            problem(await api.post(ITEMS, server.feature(), intake_body("mira")), 409, "QUEUE_FULL")
            assert (await api.queue("mira"))["room"]["maxDepth"] == 2


async def test_only_dead_operations_are_retried_in_bulk(api: Api, careful: Server, performer_id: str) -> None:
    item = ok(await api.post(ITEMS, careful.feature(), await held_body(api, performer_id)), 201)
    await api.command("complete", await api.command("start", item))
    listing = ok(await api.get("/v1/admin/wallet-operations?limit=100", careful.admin))
    (operation,) = [one for one in listing["operations"] if one["itemId"] == item["itemId"]]
    path = f"/v1/admin/wallet-operations/{operation['id']}/retry"
    problem(await api.post(path, careful.admin), 409, "INVALID_STATE_TRANSITION")
    problem(await api.post(path, careful.performer(performer_id)), 403, "FORBIDDEN")
    problem(await api.post(path), 401, "UNAUTHORIZED")
    for unknown in (fresh("operation"), "%00", "x" * 1000):
        response = await api.post(f"/v1/admin/wallet-operations/{unknown}/retry", careful.admin)
        problem(response, 404, "NOT_FOUND")


async def test_times_are_the_services_own(tmp_path: Path) -> None:
    """The clock is injected: every time in an answer comes from it, and none from the machine."""
    now = datetime(2031, 5, 4, 3, 2, 1, 123_000, tzinfo=UTC)
    settings = Settings(database_url=f"sqlite:///{tmp_path}/queue.db", user_intakes_per_minute=0)
    app = create_app(settings, clock=lambda: now)

    def bearer(role: Role, sub: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {auth.sign(settings.auth_secret, role, sub, now=now)}"}

    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        item = ok(await http.post(ITEMS, headers=bearer(Role.FEATURE, "wheel"), json=intake_body("mira")), 201)
        assert item["createdAt"] == item["updatedAt"] == "2031-05-04T03:02:01.123Z"
        now += timedelta(seconds=90)
        path = "/v1/performers/mira/queue/start-next"
        started = ok(await http.post(path, headers=bearer(Role.PERFORMER, "mira")))
        assert started["startedAt"] == "2031-05-04T03:03:31.123Z"
