"""The commands on one item over HTTP, and reading an item, its position and its audit trail."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import INSTANT, Api, Json, Server, fresh, intake_body, nothing_changes, ok, problem, serving

ITEMS = "/v1/queue/items"
REASONS = (
    "performer_disconnected",
    "performer_declined",
    "user_cancelled",
    "timeout",
    "technical_error",
    "admin_refund",
)
ENDED = {"finished": "complete", "abandoned": "abandon", "refunded": "refund"}


def path_of(item: Json, name: str = "") -> str:
    return f"{ITEMS}/{item['itemId']}" + (f"/{name}" if name else "")


async def ended(api: Api, performer_id: str, status: str) -> Json:
    item = await api.command("start", await api.intake(performer_id))
    return await api.command(ENDED[status], item, {"reason": "technical_error"} if status == "refunded" else None)


# Moves


async def test_an_item_is_started_and_completed(api: Api, server: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    started = await api.command("start", item)
    assert (started["status"], started["position"]) == ("started", 1)
    assert INSTANT.fullmatch(started["startedAt"])
    finished = await api.command("complete", started)
    assert (finished["status"], finished["position"], finished["walletStatus"]) == ("finished", 0, "pending")
    assert finished["finishedAt"] >= started["startedAt"]
    assert (finished["settled"], finished["settledAt"], finished["settledTokens"]) == (False, None, None)
    unchanged = {"status", "position", "clock", "startedAt", "finishedAt", "updatedAt", "walletStatus"}
    assert {name: finished[name] for name in finished if name not in unchanged} == {
        name: item[name] for name in item if name not in unchanged
    }


async def test_a_split_is_between_one_token_and_all_but_one(api: Api, server: Server, performer_id: str) -> None:
    item = await api.command("start", await api.intake(performer_id, tokens=3))
    for wrong in (0, 3, 4):
        async with nothing_changes(api, performer_id):
            response = await api.post(
                path_of(item, "complete"), server.performer(performer_id), {"refundTokens": wrong}
            )
            assert problem(response, 422, "VALIDATION_ERROR")["errors"][0]["field"] == "refundTokens"
    assert (await api.command("complete", item, {"refundTokens": 2}))["status"] == "finished"


async def test_an_item_of_one_token_cannot_be_split(api: Api, server: Server, performer_id: str) -> None:
    item = await api.command("start", await api.intake(performer_id, tokens=1))
    response = await api.post(path_of(item, "complete"), server.performer(performer_id), {"refundTokens": 1})
    problem(response, 422, "VALIDATION_ERROR")


@pytest.mark.parametrize("reason", [None, *REASONS])
async def test_an_item_is_abandoned_for_a_reason(api: Api, performer_id: str, reason: str | None) -> None:
    waiting = await api.intake(performer_id)
    started = await api.command("start", await api.intake(performer_id))
    for item in (waiting, started):
        abandoned = await api.command("abandon", item, {"reason": reason} if reason else None)
        assert (abandoned["status"], abandoned["position"]) == ("abandoned", 0)
        assert abandoned["abandonReason"] == (reason or "performer_declined")
        assert (abandoned["walletStatus"], abandoned["refundedAt"]) == ("pending", None)
        assert INSTANT.fullmatch(abandoned["abandonedAt"])


@pytest.mark.parametrize("reason", REASONS)
async def test_an_item_is_refunded_for_a_reason(api: Api, performer_id: str, reason: str) -> None:
    waiting = await api.intake(performer_id)
    started = await api.command("start", await api.intake(performer_id))
    finished = await ended(api, fresh("star"), "finished")
    for item in (waiting, started, finished):
        refunded = await api.command("refund", item, {"reason": reason})
        assert (refunded["status"], refunded["refundReason"], refunded["position"]) == ("refunded", reason, 0)
        assert (refunded["walletStatus"], refunded["settled"]) == ("pending", False)
        assert INSTANT.fullmatch(refunded["refundedAt"])


async def test_a_started_items_clock_is_paused_and_resumed(api: Api, server: Server, performer_id: str) -> None:
    item = await api.command("start", await api.intake(performer_id))
    assert (await api.command("pause", item))["paused"] is True
    problem(await api.post(path_of(item, "pause"), server.performer(performer_id)), 409, "INVALID_STATE_TRANSITION")
    resumed = await api.command("resume", item)
    assert (resumed["paused"], resumed["status"], resumed["startedAt"]) == (False, "started", item["startedAt"])
    problem(await api.post(path_of(item, "resume"), server.performer(performer_id)), 409, "INVALID_STATE_TRANSITION")


@pytest.mark.parametrize("name", ["complete", "pause", "resume"])
async def test_commands_for_a_started_item_are_refused_to_a_waiting_one(
    api: Api, server: Server, performer_id: str, name: str
) -> None:
    item = await api.intake(performer_id)
    async with nothing_changes(api, performer_id):
        response = await api.post(path_of(item, name), server.performer(performer_id))
        assert problem(response, 409, "INVALID_STATE_TRANSITION")["item"] == item


@pytest.mark.parametrize("status", ENDED)
@pytest.mark.parametrize("name", ["start", "complete", "abandon", "pause", "resume"])
async def test_an_ended_item_takes_none_of_these(
    api: Api, server: Server, performer_id: str, status: str, name: str
) -> None:
    item = await ended(api, performer_id, status)
    response = await api.post(path_of(item, name), server.performer(performer_id))
    refusal = problem(response, 409, "INVALID_STATE_TRANSITION")
    assert refusal["item"]["itemId"] == item["itemId"]


async def test_a_refunded_item_is_not_refunded_again(api: Api, server: Server, performer_id: str) -> None:
    item = await ended(api, performer_id, "refunded")
    response = await api.post(path_of(item, "refund"), server.performer(performer_id), {"reason": "technical_error"})
    problem(response, 409, "INVALID_STATE_TRANSITION")


async def test_only_one_item_is_started(api: Api, server: Server, performer_id: str) -> None:
    first = await api.command("start", await api.intake(performer_id))
    second = await api.intake(performer_id)
    async with nothing_changes(api, performer_id):
        response = await api.post(path_of(second, "start"), server.performer(performer_id))
        assert problem(response, 409, "ALREADY_PROCESSING")["item"] == first


async def test_only_one_item_is_started_whatever_races(api: Api, server: Server, performer_id: str) -> None:
    items = [await api.intake(performer_id) for _ in range(10)]
    responses = await asyncio.gather(
        *(api.post(path_of(item, "start"), server.performer(performer_id)) for item in items),
        *(
            api.post(f"/v1/performers/{performer_id}/queue/start-next", server.performer(performer_id))
            for _ in range(5)
        ),
    )
    assert sorted(response.status_code for response in responses) == [200] + [409] * 14
    queue = await api.queue(performer_id)
    assert [item["status"] for item in queue["items"]] == ["started"] + ["created"] * 9


async def test_an_item_ends_once_whatever_races(api: Api, server: Server, performer_id: str) -> None:
    item = await api.command("start", await api.intake(performer_id))
    responses = await asyncio.gather(
        *(api.post(path_of(item, name), server.performer(performer_id)) for name in ("complete", "abandon") * 5)
    )
    assert sorted(response.status_code for response in responses) == [200] + [409] * 9


async def test_any_waiting_item_may_be_started_and_the_audit_trail_says_whom_it_overtook(
    api: Api, server: Server, performer_id: str
) -> None:
    items = [await api.intake(performer_id) for _ in range(4)]
    started = await api.command("start", items[2])
    assert started["position"] == 1
    order = [item["itemId"] for item in (await api.queue(performer_id))["items"]]
    assert order == [items[at]["itemId"] for at in (2, 0, 1, 3)]
    trail = ok(await api.get(path_of(items[2], "transitions"), server.admin))["transitions"]
    assert "2" in trail[-1]["reason"]


async def test_a_strict_room_starts_the_first_only(api: Api, server: Server, performer_id: str) -> None:
    await api.change(performer_id, strictFifo=True)
    first, second = await api.intake(performer_id), await api.intake(performer_id)
    async with nothing_changes(api, performer_id):
        response = await api.post(path_of(second, "start"), server.performer(performer_id))
        assert problem(response, 409, "OUT_OF_ORDER")["item"] == second
    assert (await api.command("start", first))["status"] == "started"


async def test_a_user_cancels_an_item_while_it_waits_and_not_after(api: Api, server: Server, performer_id: str) -> None:
    cancel = {"reason": "user_cancelled"}
    first, second = await api.intake(performer_id), await api.intake(performer_id)
    await api.command("start", second)
    response = await api.post(path_of(second, "refund"), server.viewer(second["userId"]), cancel)
    problem(response, 403, "FORBIDDEN")
    refunded = ok(await api.post(path_of(first, "refund"), server.viewer(first["userId"]), cancel))
    assert (refunded["status"], refunded["refundReason"]) == ("refunded", "user_cancelled")


async def test_an_unknown_item_is_not_found(api: Api, server: Server) -> None:
    for item_id in (fresh("item"), "01a20bda-2fcc-776b-a1f3-44c4687cb2bd", "x" * 1000, "%00", "1' OR 1=1"):
        for path in (f"{ITEMS}/{item_id}", f"{ITEMS}/{item_id}/position", f"{ITEMS}/{item_id}/transitions"):
            problem(await api.get(path, server.admin), 404, "ITEM_NOT_FOUND")
        for name in ("start", "complete", "abandon", "pause", "resume"):
            problem(await api.post(f"{ITEMS}/{item_id}/{name}", server.admin), 404, "ITEM_NOT_FOUND")
        response = await api.post(f"{ITEMS}/{item_id}/refund", server.admin, {"reason": "timeout"})
        problem(response, 404, "ITEM_NOT_FOUND")


# Reading


async def test_the_audit_trail_names_who_did_each_step(api: Api, server: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    moderator = server.token("moderator", "max", performer_id)
    ok(await api.post(path_of(item, "start"), moderator))
    await api.command("pause", item)
    ok(await api.post(path_of(item, "refund"), server.admin, {"reason": "technical_error"}))
    trail = ok(await api.get(path_of(item, "transitions"), server.viewer(item["userId"])))["transitions"]
    steps = [
        (step["from"], step["to"], step["actorRole"], step["actorId"], step["reason"], step["roomVersion"])
        for step in trail
    ]
    assert steps == [
        (None, "created", "feature", "wheel", None, 1),
        ("created", "started", "moderator", "max", None, 2),
        ("started", "refunded", "admin", "ops", "technical_error", 4),
    ]
    assert all(INSTANT.fullmatch(step["at"]) for step in trail)
    assert all(set(step) == {"from", "to", "at", "actorRole", "actorId", "reason", "roomVersion"} for step in trail)


async def test_a_position_says_how_many_are_ahead_and_how_long_it_takes(
    api: Api, server: Server, performer_id: str
) -> None:
    items = [await api.intake(performer_id, durationSeconds=seconds) for seconds in (30, None, 45, 10)]

    async def position(at: int) -> Json:
        return ok(await api.get(path_of(items[at], "position"), server.viewer(items[at]["userId"])))

    last = await position(3)
    assert last == {
        "itemId": items[3]["itemId"],
        "performerId": performer_id,
        "status": "created",
        "position": 4,
        "ahead": 3,
        "totalInQueue": 4,
        # The declared durations of those ahead, 60 where none was declared.
        "estimatedWaitSeconds": 30 + 60 + 45,
        "estimatedWaitRange": None,
    }
    await api.command("start", items[2])
    assert [(at, (await position(at))["position"], (await position(at))["ahead"]) for at in range(4)] == [
        (0, 2, 1),
        (1, 3, 2),
        (2, 1, 0),
        (3, 4, 3),
    ]
    assert (await position(2))["estimatedWaitSeconds"] == 0
    assert 44 <= (await position(0))["estimatedWaitSeconds"] <= 45
    await api.command("complete", items[2])
    ended = await position(2)
    assert (ended["status"], ended["position"], ended["ahead"]) == ("finished", 0, 0)
    assert ended["totalInQueue"] == 3
    assert (ended["estimatedWaitSeconds"], ended["estimatedWaitRange"]) == (None, None)


async def test_an_item_is_read_as_it_is_now(api: Api, server: Server, performer_id: str) -> None:
    first, second = await api.intake(performer_id), await api.intake(performer_id)
    await api.command("start", first)
    await api.command("abandon", first)
    now = ok(await api.get(path_of(second), server.viewer(second["userId"])))
    assert now == {**second, "position": 1}


# Idempotency


@pytest.fixture(params=["start", "start-next", "complete", "abandon", "refund", "pause", "resume"])
async def command(request: pytest.FixtureRequest, api: Api, performer_id: str) -> tuple[str, Json | None, Json | None]:
    """(path, body, another body) of every POST, in a room in which it is possible."""
    name: str = request.param
    item = await api.intake(performer_id)
    if name not in ("start", "start-next"):
        await api.command("start", item)
    if name == "resume":
        await api.command("pause", item)
    bodies: dict[str, tuple[Json | None, Json | None]] = {
        "complete": (None, {"refundTokens": 1}),
        "abandon": ({"reason": "timeout"}, {"reason": "technical_error"}),
        "refund": ({"reason": "timeout"}, {"reason": "technical_error"}),
    }
    path = f"/v1/performers/{performer_id}/queue/start-next" if name == "start-next" else path_of(item, name)
    return path, *bodies.get(name, (None, None))


async def test_a_repeated_command_gets_its_first_answer_again(
    api: Api, server: Server, performer_id: str, command: tuple[str, Json | None, Json | None]
) -> None:
    path, body, other = command
    performer, key = server.performer(performer_id), fresh("key")
    first = await api.post(path, performer, body, key=key)
    item = ok(first)
    assert "Idempotent-Replayed" not in first.headers
    if item["status"] == "started":
        await api.command("abandon", item)
    again = await api.post(path, performer, body, key=key)
    assert ok(again) == item
    assert again.headers["Idempotent-Replayed"] == "true"
    # Without the key, or with a new one, it is a new command, which has become impossible.
    assert (await api.post(path, performer, body, key=fresh("key"))).status_code == 409
    if other is not None:
        problem(await api.post(path, performer, other, key=key), 422, "DUPLICATE_IDEMPOTENCY_KEY")


async def test_a_command_raced_under_one_key_is_done_once(api: Api, server: Server, performer_id: str) -> None:
    for _ in range(5):
        await api.intake(performer_id)
    path, performer, key = (
        f"/v1/performers/{performer_id}/queue/start-next",
        server.performer(performer_id),
        fresh("key"),
    )
    responses = await asyncio.gather(*(api.post(path, performer, key=key) for _ in range(10)))
    assert len({ok(response)["itemId"] for response in responses}) == 1
    assert sum("Idempotent-Replayed" in response.headers for response in responses) == 9


async def test_a_key_used_for_another_command_or_item_is_refused(api: Api, server: Server, performer_id: str) -> None:
    first, second = await api.intake(performer_id), await api.intake(performer_id)
    performer, key = server.performer(performer_id), fresh("key")
    ok(await api.post(path_of(first, "start"), performer, key=key))
    for path in (
        path_of(first, "abandon"),
        path_of(second, "start"),
        f"/v1/performers/{performer_id}/queue/start-next",
    ):
        async with nothing_changes(api, performer_id):
            problem(await api.post(path, performer, key=key), 422, "DUPLICATE_IDEMPOTENCY_KEY")


async def test_a_key_is_its_callers_own(api: Api, server: Server, performer_id: str) -> None:
    first, second = await api.intake(performer_id), await api.intake(performer_id)
    key = fresh("key")
    ok(await api.post(path_of(first, "abandon"), server.performer(performer_id), key=key))
    ok(await api.post(path_of(second, "abandon"), server.admin, key=key))


async def test_a_refused_command_leaves_its_key_unused(api: Api, server: Server, performer_id: str) -> None:
    path, performer, key = (
        f"/v1/performers/{performer_id}/queue/start-next",
        server.performer(performer_id),
        fresh("key"),
    )
    await api.change(performer_id, paused=False)
    problem(await api.post(path, performer, key=key), 409, "QUEUE_EMPTY")
    item = await api.intake(performer_id)
    assert ok(await api.post(path, performer, key=key))["itemId"] == item["itemId"]


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_is_1_to_255_characters(api: Api, server: Server, performer_id: str, key: str) -> None:
    item = await api.intake(performer_id)
    for path in (path_of(item, "start"), f"/v1/performers/{performer_id}/queue/start-next"):
        problem(await api.post(path, server.performer(performer_id), key=key), 422, "VALIDATION_ERROR")


async def test_a_command_is_repeated_after_a_restart(tmp_path: Path) -> None:
    answers: dict[str, Any] = {}
    with serving(tmp_path) as server:
        async with server.api() as api:
            item = ok(await api.post(ITEMS, server.feature(), intake_body("mira")), 201)
            for name in ("start", "pause", "resume", "complete"):
                answers[name] = ok(await api.post(path_of(item, name), server.performer("mira"), key=name))
    with serving(tmp_path) as server:
        async with server.api() as api:
            for name, answer in answers.items():
                again = await api.post(path_of(item, name), server.performer("mira"), key=name)
                assert ok(again) == answer
                assert again.headers["Idempotent-Replayed"] == "true"
            assert await api.version("mira") == 5
