"""Intake over HTTP: its answers, repetitions and refusals."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import (
    INSTANT,
    UUID7,
    WHOLE_FIELDS,
    Api,
    Server,
    fresh,
    intake_body,
    nothing_changes,
    ok,
    problem,
    serving,
)

ITEMS = "/v1/queue/items"


async def test_an_intake_answers_201_with_the_whole_item_and_where_it_is(
    api: Api, server: Server, performer_id: str
) -> None:
    body = intake_body(performer_id, durationSeconds=90, metadata={"song": ["Feeling", {"good": True}]})
    response = await api.post(ITEMS, server.feature(), body)
    item = ok(response, 201)
    assert set(item) == WHOLE_FIELDS
    assert {name: item[name] for name in body} == body
    assert (item["status"], item["position"], item["queueMode"]) == ("created", 1, "on")
    assert (item["passThroughMode"], item["paused"], item["settled"]) == (False, False, False)
    assert item["walletStatus"] == "none"
    assert UUID7.fullmatch(item["itemId"])
    assert INSTANT.fullmatch(item["createdAt"])
    assert item["updatedAt"] == item["createdAt"]
    unset = WHOLE_FIELDS - set(body) - {name for name, value in item.items() if value is not None}
    assert unset == {
        "startedAt",
        "finishedAt",
        "abandonedAt",
        "refundedAt",
        "settledAt",
        "settlementTransactionId",
        "settledTokens",
        "refundedTokens",
        "refundTransactionId",
        "refundReason",
        "abandonReason",
    }
    assert response.headers["Location"] == f"{ITEMS}/{item['itemId']}"
    assert "Idempotent-Replayed" not in response.headers
    assert ok(await api.get(response.headers["Location"], server.feature())) == item


async def test_optional_fields_have_their_defaults(api: Api, performer_id: str) -> None:
    item = await api.intake(performer_id)
    assert (item["durationSeconds"], item["metadata"], item["queueMode"]) == (None, {}, "on")


async def test_items_queue_in_order_of_arrival(api: Api, performer_id: str) -> None:
    items = [await api.intake(performer_id) for _ in range(4)]
    assert [item["position"] for item in items] == [1, 2, 3, 4]
    queue = await api.queue(performer_id)
    assert [item["itemId"] for item in queue["items"]] == [item["itemId"] for item in items]
    assert [item["position"] for item in queue["items"]] == [1, 2, 3, 4]


async def test_text_in_any_script_comes_back_as_it_went(api: Api, server: Server, performer_id: str) -> None:
    title = 'Ünïcødé 歌 🎤 \u202eright to left\u202c <b>not html</b> "quoted" \\ \n\t\''
    item = await api.intake(performer_id, title=title, metadata={"ключ": title, "n": [1, 2.5, None, True, -(2**53)]})
    assert item["title"] == title
    assert item["metadata"] == {"ключ": title, "n": [1, 2.5, None, True, -(2**53)]}
    read = ok(await api.get(f"{ITEMS}/{item['itemId']}", server.feature()))
    assert read == item


# Modes


async def test_mode_off_serves_an_item_in_one_step(api: Api, server: Server, performer_id: str) -> None:
    await api.change(performer_id, mode="off")
    item = await api.intake(performer_id)
    assert (item["status"], item["position"], item["passThroughMode"]) == ("finished", 0, True)
    assert (item["queueMode"], item["walletStatus"]) == ("off", "pending")
    assert item["createdAt"] == item["startedAt"] == item["finishedAt"]
    queue = await api.queue(performer_id)
    assert (queue["room"]["depth"], queue["items"]) == (0, [])
    trail = ok(await api.get(f"{ITEMS}/{item['itemId']}/transitions", server.feature()))["transitions"]
    assert [(step["from"], step["to"]) for step in trail] == [
        (None, "created"),
        ("created", "started"),
        ("started", "finished"),
    ]
    position = ok(await api.get(f"{ITEMS}/{item['itemId']}/position", server.feature()))
    assert (position["position"], position["ahead"], position["estimatedWaitSeconds"]) == (0, 0, None)


async def test_an_intake_may_choose_another_mode_than_the_rooms(api: Api, performer_id: str) -> None:
    assert (await api.intake(performer_id, queueMode="off"))["status"] == "finished"
    await api.change(performer_id, mode="off")
    assert (await api.intake(performer_id, queueMode="on"))["status"] == "created"


async def test_mode_off_knows_no_depth_limit(api: Api, performer_id: str) -> None:
    await api.change(performer_id, maxDepth=1)
    waiting = await api.intake(performer_id)
    for _ in range(3):
        assert (await api.intake(performer_id, queueMode="off"))["status"] == "finished"
    assert [item["itemId"] for item in (await api.queue(performer_id))["items"]] == [waiting["itemId"]]


# Refusals


async def test_a_full_queue_refuses(api: Api, server: Server, performer_id: str) -> None:
    await api.change(performer_id, maxDepth=2)
    await api.intake(performer_id)
    await api.intake(performer_id)
    async with nothing_changes(api, performer_id):
        problem(await api.post(ITEMS, server.feature(), intake_body(performer_id)), 409, "QUEUE_FULL")


async def test_a_user_may_have_as_many_items_as_the_room_allows(api: Api, server: Server, performer_id: str) -> None:
    await api.change(performer_id, maxPerUser=1)
    body = intake_body(performer_id, userId="ada")
    ok(await api.post(ITEMS, server.feature(), body), 201)
    async with nothing_changes(api, performer_id):
        again = intake_body(performer_id, userId="ada")
        problem(await api.post(ITEMS, server.feature(), again), 409, "USER_LIMIT_REACHED")
    # The same request again is answered as it was.
    ok(await api.post(ITEMS, server.feature(), body), 200)
    await api.intake(performer_id, userId="bob")


async def test_nobody_is_taken_beyond_the_wait_that_the_room_allows(
    api: Api, server: Server, performer_id: str
) -> None:
    await api.change(performer_id, maxWaitSeconds=100)
    await api.intake(performer_id, durationSeconds=60)
    await api.intake(performer_id, durationSeconds=60)
    async with nothing_changes(api, performer_id):
        problem(await api.post(ITEMS, server.feature(), intake_body(performer_id)), 409, "QUEUE_FULL")
    await api.change(performer_id, maxWaitSeconds=None)
    await api.intake(performer_id)


async def test_a_place_given_up_is_free_again(api: Api, performer_id: str) -> None:
    await api.change(performer_id, maxDepth=1)
    await api.command("abandon", await api.intake(performer_id))
    assert (await api.intake(performer_id))["position"] == 1


async def test_exactly_as_many_get_in_as_there_are_places_whatever_races(
    api: Api, server: Server, performer_id: str
) -> None:
    await api.change(performer_id, maxDepth=5)
    responses = await asyncio.gather(
        *(api.post(ITEMS, server.feature(), intake_body(performer_id)) for _ in range(30)),
    )
    assert sorted(response.status_code for response in responses) == [201] * 5 + [409] * 25
    assert (await api.queue(performer_id))["room"]["depth"] == 5


async def test_the_services_own_depth_limit_is_fifty(api: Api, server: Server, performer_id: str) -> None:
    for _ in range(50):
        await api.intake(performer_id)
    problem(await api.post(ITEMS, server.feature(), intake_body(performer_id)), 409, "QUEUE_FULL")


@pytest.mark.parametrize("mode", ["on", "off"])
async def test_a_queue_that_does_not_accept_is_closed(api: Api, server: Server, performer_id: str, mode: str) -> None:
    await api.change(performer_id, accepting=False)
    async with nothing_changes(api, performer_id):
        problem(await api.post(ITEMS, server.feature(), intake_body(performer_id, queueMode=mode)), 409, "QUEUE_CLOSED")


async def test_a_paused_room_still_takes_requests(api: Api, performer_id: str) -> None:
    await api.change(performer_id, paused=True)
    assert (await api.intake(performer_id))["status"] == "created"


async def test_an_escrow_is_queued_once(api: Api, server: Server, performer_id: str) -> None:
    first = await api.intake(performer_id)
    again = intake_body(performer_id, escrowTransactionId=first["escrowTransactionId"])
    async with nothing_changes(api, performer_id):
        refusal = problem(await api.post(ITEMS, server.feature(), again), 409, "ESCROW_ALREADY_QUEUED")
    assert refusal["item"] == first
    elsewhere = intake_body(fresh("star"), escrowTransactionId=first["escrowTransactionId"])
    problem(await api.post(ITEMS, server.feature(), elsewhere), 409, "ESCROW_ALREADY_QUEUED")


async def test_an_escrow_of_an_ended_item_is_not_free_again(api: Api, server: Server, performer_id: str) -> None:
    first = await api.intake(performer_id)
    await api.command("abandon", first)
    again = intake_body(performer_id, escrowTransactionId=first["escrowTransactionId"])
    problem(await api.post(ITEMS, server.feature(), again), 409, "ESCROW_ALREADY_QUEUED")


async def test_the_owner_of_an_escrow_is_hidden_from_another_feature(
    api: Api, server: Server, performer_id: str
) -> None:
    first = await api.intake(performer_id)
    theirs = intake_body(performer_id, escrowTransactionId=first["escrowTransactionId"], sourceFeature="dice")
    refusal = problem(await api.post(ITEMS, server.feature("dice"), theirs), 409, "ESCROW_ALREADY_QUEUED")
    assert "item" not in refusal
    assert first["itemId"] not in str(refusal)


async def test_one_escrow_raced_by_many_is_queued_once(api: Api, server: Server, performer_id: str) -> None:
    escrow = fresh("escrow")
    responses = await asyncio.gather(
        *(api.post(ITEMS, server.feature(), intake_body(performer_id, escrowTransactionId=escrow)) for _ in range(20)),
    )
    assert sorted(response.status_code for response in responses) == [201] + [409] * 19


# Idempotency


async def test_the_same_key_and_body_get_the_first_answer_again(api: Api, server: Server, performer_id: str) -> None:
    body = intake_body(performer_id)
    first = await api.post(ITEMS, server.feature(), body)
    await api.start_next(performer_id)
    async with nothing_changes(api, performer_id):
        # The order of the keys, a spelt-out default and 5.0 in place of 5 make no other payload.
        shuffled = {"metadata": {}, **dict(reversed(body.items())), "tokens": float(body["tokens"])}
        again = await api.post(ITEMS, server.feature(), shuffled)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]


async def test_the_key_may_come_in_the_header(api: Api, server: Server, performer_id: str) -> None:
    body = intake_body(performer_id)
    key = body.pop("idempotencyKey")
    first = ok(await api.post(ITEMS, server.feature(), body, key=key), 201)
    assert first["idempotencyKey"] == key
    for again in (
        await api.post(ITEMS, server.feature(), body, key=key),
        await api.post(ITEMS, server.feature(), {**body, "idempotencyKey": key}),
        await api.post(ITEMS, server.feature(), {**body, "idempotencyKey": key}, key=key),
    ):
        assert ok(again) == first


async def test_a_key_is_needed_and_only_one(api: Api, server: Server, performer_id: str) -> None:
    body = intake_body(performer_id)
    async with nothing_changes(api, performer_id):
        response = await api.post(ITEMS, server.feature(), body, key="another")
        assert problem(response, 422, "VALIDATION_ERROR")["errors"][0]["field"] == "idempotencyKey"
        del body["idempotencyKey"]
        response = await api.post(ITEMS, server.feature(), body)
        assert problem(response, 422, "VALIDATION_ERROR")["errors"][0]["field"] == "idempotencyKey"
        problem(await api.post(ITEMS, server.feature(), body, key="k" * 256), 422, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "other",
    [
        {"tokens": 101},
        {"title": "Something else"},
        {"metadata": {"a": 1}},
        {"queueMode": "off"},
        {"durationSeconds": 5},
    ],
)
async def test_the_same_key_with_another_body_is_refused(
    api: Api, server: Server, performer_id: str, other: dict[str, Any]
) -> None:
    body = intake_body(performer_id)
    ok(await api.post(ITEMS, server.feature(), body), 201)
    async with nothing_changes(api, performer_id):
        problem(await api.post(ITEMS, server.feature(), {**body, **other}), 422, "DUPLICATE_IDEMPOTENCY_KEY")


async def test_the_same_key_for_another_performer_is_another_body(api: Api, server: Server, performer_id: str) -> None:
    body = intake_body(performer_id)
    ok(await api.post(ITEMS, server.feature(), body), 201)
    other = {**body, "performerId": fresh("star")}
    problem(await api.post(ITEMS, server.feature(), other), 422, "DUPLICATE_IDEMPOTENCY_KEY")


async def test_two_features_may_use_the_same_key(api: Api, server: Server, performer_id: str) -> None:
    key = fresh("key")
    first = await api.intake(performer_id, idempotencyKey=key)
    second = await api.intake(performer_id, idempotencyKey=key, sourceFeature="dice")
    assert first["itemId"] != second["itemId"]


async def test_a_refused_intake_leaves_its_key_unused(api: Api, server: Server, performer_id: str) -> None:
    await api.change(performer_id, accepting=False)
    body = intake_body(performer_id)
    problem(await api.post(ITEMS, server.feature(), body), 409, "QUEUE_CLOSED")
    await api.change(performer_id, accepting=True)
    ok(await api.post(ITEMS, server.feature(), body), 201)


async def test_an_intake_is_repeated_although_the_room_is_full_or_closed_by_now(
    api: Api, server: Server, performer_id: str
) -> None:
    body = intake_body(performer_id)
    first = ok(await api.post(ITEMS, server.feature(), body), 201)
    await api.change(performer_id, maxDepth=1)
    problem(await api.post(ITEMS, server.feature(), intake_body(performer_id)), 409, "QUEUE_FULL")
    assert ok(await api.post(ITEMS, server.feature(), body)) == first
    await api.change(performer_id, accepting=False)
    assert ok(await api.post(ITEMS, server.feature(), body)) == first
    await api.command("abandon", first)
    assert ok(await api.post(ITEMS, server.feature(), body)) == first


async def test_one_key_raced_by_many_queues_one_item(api: Api, server: Server, performer_id: str) -> None:
    body = intake_body(performer_id)
    responses = await asyncio.gather(*(api.post(ITEMS, server.feature(), body) for _ in range(20)))
    assert sorted(response.status_code for response in responses) == [200] * 19 + [201]
    assert len({response.json()["itemId"] for response in responses}) == 1
    assert (await api.queue(performer_id))["room"]["depth"] == 1


async def test_an_intake_is_repeated_after_a_restart(tmp_path: Path) -> None:
    body = intake_body("mira", metadata={"song": "Feeling good"}, durationSeconds=77)
    with serving(tmp_path) as server:
        async with server.api() as api:
            first = ok(await api.post(ITEMS, server.feature(), body), 201)
            await api.change("mira", maxDepth=1)
    with serving(tmp_path) as server:
        async with server.api() as api:
            again = await api.post(ITEMS, server.feature(), body)
            assert ok(again) == first
            assert again.headers["Idempotent-Replayed"] == "true"
            problem(await api.post(ITEMS, server.feature(), {**body, "tokens": 1}), 422, "DUPLICATE_IDEMPOTENCY_KEY")
            problem(await api.post(ITEMS, server.feature(), intake_body("mira")), 409, "QUEUE_FULL")
            assert ok(await api.get(f"{ITEMS}/{first['itemId']}", server.feature())) == first


# The limit per user


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("limited"), user_intakes_per_minute=2) as server:
        yield server


async def test_a_user_may_queue_only_so_much_a_minute(limited: Server, performer_id: str) -> None:
    user = fresh("user")
    async with limited.api() as api:
        first = intake_body(performer_id, userId=user)
        ok(await api.post(ITEMS, limited.feature(), first), 201)
        await api.intake(fresh("star"), userId=user)
        async with nothing_changes(api, performer_id):
            response = await api.post(ITEMS, limited.feature(), intake_body(performer_id, userId=user))
            refusal = problem(response, 429, "RATE_LIMIT_EXCEEDED")
        assert 1 <= refusal["retryAfterSeconds"] <= 60
        assert response.headers["Retry-After"] == str(refusal["retryAfterSeconds"])
        # A repeated request queues nothing and is answered even now; another user has a limit of their own.
        assert (await api.post(ITEMS, limited.feature(), first)).status_code == 200
        await api.intake(performer_id, userId=fresh("user"))


async def test_a_whole_float_is_the_integer_that_it_is_and_another_is_refused(
    api: Api, server: Server, performer_id: str
) -> None:
    body = intake_body(performer_id, tokens=100.0, durationSeconds=30.0)
    item = ok(await api.send("POST", "/v1/queue/items", server.admin, body), 201)
    assert (repr(item["tokens"]), repr(item["durationSeconds"])) == ("100", "30")
    again = await api.send("POST", "/v1/queue/items", server.admin, {**body, "tokens": 100, "durationSeconds": 30})
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    for fields in ({"tokens": 1.5}, {"durationSeconds": 30.5}, {"tokens": 1e300}):
        refused = await api.send("POST", "/v1/queue/items", server.admin, intake_body(performer_id, **fields))
        problem(refused, 422, "VALIDATION_ERROR")
