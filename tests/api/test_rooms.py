"""A room over HTTP: its queue and depth, its settings, start-next, and the histories of performers and users."""

import asyncio
from datetime import datetime

import pytest

from app.domain.room import Policy
from app.store import Store, reading
from app.store.engines import open_engines
from tests.support.server import (
    PUBLIC_FIELDS,
    ROOM_FIELDS,
    WHOLE_FIELDS,
    Api,
    Json,
    Server,
    fresh,
    nothing_changes,
    ok,
    problem,
)

PATHS_OF_A_ROOM = ("", "/depth", "/history")


def path_of(performer_id: str, rest: str = "") -> str:
    return f"/v1/performers/{performer_id}/queue{rest}"


# Reading


async def test_a_queue_is_the_room_and_its_active_items_in_order(api: Api, server: Server, performer_id: str) -> None:
    items = [await api.intake(performer_id) for _ in range(3)]
    await api.command("start", items[1])
    await api.command("abandon", items[0])
    queue = await api.queue(performer_id, server.performer(performer_id))
    assert set(queue) == {"room", "items"}
    room = queue["room"]
    assert set(room) == ROOM_FIELDS
    assert (room["performerId"], room["depth"], room["mode"], room["accepting"]) == (performer_id, 2, "on", True)
    assert (room["paused"], room["pauseReason"], room["strictFifo"]) == (False, None, False)
    assert (room["maxDepth"], room["notifyPositions"], room["announcement"]) == (50, [3, 1], None)
    assert (room["maxPerUser"], room["maxWaitSeconds"]) == (None, None)
    assert room["performerOnline"] is False
    assert [(item["itemId"], item["position"], item["status"]) for item in queue["items"]] == [
        (items[1]["itemId"], 1, "started"),
        (items[2]["itemId"], 2, "created"),
    ]


async def test_anybody_sees_the_public_shape_and_the_rooms_own_side_the_whole(
    api: Api, server: Server, performer_id: str
) -> None:
    item = await api.intake(performer_id)
    everybody = [None, server.feature(), server.viewer(item["userId"]), server.performer(fresh("star"))]
    for token in everybody:
        (shown,) = (await api.queue(performer_id, token))["items"]
        assert shown == {name: item[name] for name in PUBLIC_FIELDS}
    for token in (server.performer(performer_id), server.token("moderator", "max", performer_id), server.admin):
        (shown,) = (await api.queue(performer_id, token))["items"]
        assert set(shown) == WHOLE_FIELDS
        assert shown == item


async def test_the_depth_of_a_queue(api: Api, performer_id: str) -> None:
    await api.change(performer_id, maxDepth=7)
    await api.intake(performer_id)
    await api.command("start", await api.intake(performer_id))
    assert ok(await api.get(path_of(performer_id, "/depth"))) == {
        "performerId": performer_id,
        "depth": 2,
        "maxDepth": 7,
    }


@pytest.mark.parametrize("rest", PATHS_OF_A_ROOM)
async def test_an_unknown_room_is_not_found(api: Api, server: Server, rest: str) -> None:
    for performer_id in (fresh("star"), "x" * 65, "x" * 2000, "a b", "ä", "%00", "<b>"):
        problem(await api.get(path_of(performer_id, rest), server.admin), 404, "PERFORMER_NOT_FOUND")


# Settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("mode", "off"),
        ("accepting", False),
        ("paused", True),
        ("strictFifo", True),
        ("maxDepth", 1),
        ("maxDepth", 50),
        ("maxPerUser", 2),
        ("maxWaitSeconds", 900),
        ("notifyPositions", [5, 2]),
        ("notifyPositions", []),
        ("announcement", "Back in 5 minutes 🎤"),
    ],
)
async def test_a_setting_is_changed_and_changed_back(
    api: Api, performer_id: str, setting: str, value: str | bool | int | list[int]
) -> None:
    await api.intake(performer_id)
    before = (await api.queue(performer_id))["room"]
    changed = await api.change(performer_id, **{setting: value})
    assert set(changed) == ROOM_FIELDS
    assert changed[setting] == value
    others = ROOM_FIELDS - {setting, "version", "pauseReason"}
    assert {name: changed[name] for name in others} == {name: before[name] for name in others}
    assert changed["pauseReason"] == ("requested" if setting == "paused" else None)
    assert (await api.queue(performer_id))["room"] == changed
    back = await api.change(performer_id, **{setting: before[setting]})
    assert {**back, "version": before["version"]} == before


async def test_null_brings_the_services_own_setting_back(api: Api, performer_id: str) -> None:
    await api.change(performer_id, maxDepth=3, notifyPositions=[9], announcement="Soon")
    back = await api.change(performer_id, maxDepth=None, notifyPositions=None, announcement=None)
    assert (back["maxDepth"], back["notifyPositions"], back["announcement"]) == (50, [3, 1], None)


async def test_settings_are_changed_together(api: Api, performer_id: str) -> None:
    changed = await api.change(performer_id, mode="off", accepting=False, paused=True, strictFifo=True, maxDepth=9)
    assert (changed["mode"], changed["accepting"], changed["paused"]) == ("off", False, True)
    assert (changed["strictFifo"], changed["maxDepth"], changed["version"]) == (True, 9, 1)


async def test_a_setting_that_is_so_already_changes_nothing(api: Api, performer_id: str) -> None:
    before = await api.change(performer_id, maxDepth=3)
    assert await api.change(performer_id, maxDepth=3) == before


async def test_a_room_comes_to_be_with_its_first_setting(api: Api, server: Server, performer_id: str) -> None:
    problem(await api.get(path_of(performer_id)), 404, "PERFORMER_NOT_FOUND")
    assert (await api.change(performer_id, mode="on"))["version"] == 1
    queue = await api.queue(performer_id)
    assert (queue["items"], queue["room"]["depth"]) == ([], 0)


async def test_a_room_with_an_impossible_name_cannot_be_made(api: Api, server: Server) -> None:
    impossible = ("x" * 65, "a b", "ä", "%00")
    for performer_id in impossible:
        response = await api.send("PATCH", path_of(performer_id), server.admin, {"mode": "off"})
        problem(response, 404, "PERFORMER_NOT_FOUND")
        problem(await api.post(path_of(performer_id, "/start-next"), server.admin), 404, "PERFORMER_NOT_FOUND")
    rooms = ok(await api.get("/v1/admin/rooms?limit=100", server.admin))["rooms"]
    assert not {room["performerId"] for room in rooms} & {*impossible, "\0"}


async def test_a_smaller_depth_keeps_the_items_that_are_in_the_queue(api: Api, performer_id: str) -> None:
    for _ in range(3):
        await api.intake(performer_id)
    assert (await api.change(performer_id, maxDepth=1))["depth"] == 3


# Start next


async def test_start_next_starts_the_head(api: Api, server: Server, performer_id: str) -> None:
    first, second = await api.intake(performer_id), await api.intake(performer_id)
    started = await api.start_next(performer_id)
    assert started["clock"] == {"usedSeconds": 0, "runningSince": started["startedAt"]}
    assert started == {**first, **{name: started[name] for name in ("status", "startedAt", "updatedAt", "clock")}}
    assert started["status"] == "started"
    refusal = problem(
        await api.post(path_of(performer_id, "/start-next"), server.performer(performer_id)), 409, "ALREADY_PROCESSING"
    )
    assert refusal["item"] == started
    await api.command("complete", first)
    assert (await api.start_next(performer_id))["itemId"] == second["itemId"]


async def test_start_next_of_an_empty_queue_is_refused(api: Api, server: Server, performer_id: str) -> None:
    problem(await api.post(path_of(performer_id, "/start-next"), server.performer(performer_id)), 409, "QUEUE_EMPTY")
    await api.change(performer_id, accepting=True)
    async with nothing_changes(api, performer_id):
        problem(
            await api.post(path_of(performer_id, "/start-next"), server.performer(performer_id)), 409, "QUEUE_EMPTY"
        )


# Histories


async def ended_items(api: Api, performer_id: str, number: int, **fields: str) -> list[Json]:
    """This many ended items, in the order of their ends; each starts after the previous one has ended."""
    items = []
    for turn in range(number):
        item = await api.intake(performer_id, **fields)
        if turn % 2:
            await api.command("start", item)
        items.append(await api.command("complete" if turn % 2 else "abandon", item))
    return items


async def test_a_rooms_history_has_its_ended_items_newest_first(api: Api, server: Server, performer_id: str) -> None:
    items = await ended_items(api, performer_id, 5)
    waiting = await api.intake(performer_id)
    performer = server.performer(performer_id)
    history = ok(await api.get(path_of(performer_id, "/history"), performer))
    assert set(history) == {"items", "total", "limit", "skip"}
    assert (history["total"], history["limit"], history["skip"]) == (5, 20, 0)
    assert [item["itemId"] for item in history["items"]] == [item["itemId"] for item in reversed(items)]
    assert all(set(item) == WHOLE_FIELDS and item["position"] == 0 for item in history["items"])
    assert waiting["itemId"] not in str(history)
    page = ok(await api.get(path_of(performer_id, "/history?limit=2&skip=1"), performer))
    assert (page["total"], page["limit"], page["skip"]) == (5, 2, 1)
    # By id: the wallet may answer between the two reads.
    assert [item["itemId"] for item in page["items"]] == [item["itemId"] for item in history["items"][1:3]]
    beyond = ok(await api.get(path_of(performer_id, "/history?skip=100"), performer))
    assert (beyond["items"], beyond["total"]) == ([], 5)


async def test_a_room_without_an_ended_item_has_an_empty_history(api: Api, server: Server, performer_id: str) -> None:
    await api.intake(performer_id)
    history = ok(await api.get(path_of(performer_id, "/history"), server.performer(performer_id)))
    assert history == {"items": [], "total": 0, "limit": 20, "skip": 0}


async def test_a_users_history_has_active_and_ended_items_of_every_room(
    api: Api, server: Server, performer_id: str
) -> None:
    user = fresh("user")
    ended = await ended_items(api, performer_id, 2, userId=user)
    ahead = await api.intake(fresh("star"))
    waiting = await api.intake(ahead["performerId"], userId=user)
    await api.intake(performer_id)
    for token in (server.viewer(user), server.admin):
        history = ok(await api.get(f"/v1/users/{user}/queue/items", token))
        assert [item["itemId"] for item in history["items"]] == [
            item["itemId"] for item in (waiting, ended[1], ended[0])
        ]
        assert (history["total"], history["limit"], history["skip"]) == (3, 20, 0)
        assert history["items"][0] == waiting
        assert (waiting["position"], history["items"][1]["position"]) == (2, 0)
    page = ok(await api.get(f"/v1/users/{user}/queue/items?limit=1&skip=2", server.viewer(user)))
    assert [item["itemId"] for item in page["items"]] == [ended[0]["itemId"]]


async def test_an_item_that_ends_while_a_history_is_read_is_shown_ended(
    api: Api, server: Server, performer_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = await api.intake(performer_id)
    engines = open_engines(server.settings.database_url)
    with Store(engines, Policy()).reading() as connection:
        before = reading.items_of_user(connection, item["userId"], limit=20, skip=0)
    engines.dispose()
    await api.command("abandon", item)
    monkeypatch.setattr(reading, "items_of_user", lambda *args, **options: before)
    (shown,) = ok(await api.get(f"/v1/users/{item['userId']}/queue/items", server.admin))["items"]
    assert (shown["itemId"], shown["position"]) == (item["itemId"], 0)
    assert shown["status"] in ("abandoned", "refunded")


async def test_a_user_who_never_asked_for_anything_has_an_empty_history(api: Api, server: Server) -> None:
    user = fresh("user")
    history = ok(await api.get(f"/v1/users/{user}/queue/items", server.viewer(user)))
    assert history == {"items": [], "total": 0, "limit": 20, "skip": 0}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=-1", "limit=a", "limit=", "limit=1.5", "limit=٣", "skip=-1", "skip=a"]
)
async def test_paging_is_within_bounds(api: Api, server: Server, performer_id: str, query: str) -> None:
    await api.intake(performer_id)
    for path in (
        path_of(performer_id, "/history"),
        "/v1/users/ada/queue/items",
        "/v1/admin/rooms",
        "/v1/admin/audiences",
        "/v1/admin/wallet-operations",
    ):
        refusal = problem(await api.get(f"{path}?{query}", server.admin), 422, "VALIDATION_ERROR")
        assert refusal["errors"][0]["field"] == query.partition("=")[0]
    for bound in ("limit=1", "limit=100", "skip=1000"):
        ok(await api.get(f"{path_of(performer_id, '/history')}?{bound}", server.admin))


# Administration


async def test_an_administrator_sees_every_room(api: Api, server: Server) -> None:
    stars = [fresh("star") for _ in range(3)]
    for performer_id in stars:
        await api.intake(performer_id)
    listing = ok(await api.get("/v1/admin/rooms?limit=100", server.admin))
    assert set(listing) == {"rooms", "total", "limit", "skip"}
    shown = {room["performerId"]: room for room in listing["rooms"]}
    for performer_id in stars:
        assert shown[performer_id] == (await api.queue(performer_id))["room"]
    page = ok(await api.get("/v1/admin/rooms?limit=1&skip=1", server.admin))
    assert (len(page["rooms"]), page["total"], page["limit"], page["skip"]) == (1, listing["total"], 1, 1)


async def test_an_administrator_sees_the_wallet_operations(api: Api, server: Server, performer_id: str) -> None:
    settle, refund = await api.intake(performer_id), await api.intake(performer_id)
    await api.command("complete", await api.command("start", settle))
    await api.command("refund", refund, {"reason": "technical_error"})
    listing = ok(await api.get("/v1/admin/wallet-operations?limit=100", server.admin))
    assert set(listing) == {"operations", "total", "limit", "skip"}
    by_item = {operation["itemId"]: operation for operation in listing["operations"]}
    for item, kind in ((settle, "settle"), (refund, "refund")):
        operation = by_item[item["itemId"]]
        assert set(operation) == {
            "id",
            "itemId",
            "performerId",
            "escrowTransactionId",
            "kind",
            "status",
            "settleTokens",
            "refundTokens",
            "attempts",
            "nextAttemptAt",
            "lastProblem",
            "createdAt",
            "updatedAt",
        }
        assert (operation["kind"], operation["performerId"]) == (kind, performer_id)
        assert operation["escrowTransactionId"] == item["escrowTransactionId"]
        of_item = ok(await api.get(f"/v1/admin/wallet-operations?itemId={item['itemId']}", server.admin))
        assert [other["id"] for other in of_item["operations"]] == [operation["id"]]
    assert (by_item[settle["itemId"]]["settleTokens"], by_item[settle["itemId"]]["refundTokens"]) == (
        settle["tokens"],
        0,
    )
    pending = ok(await api.get("/v1/admin/wallet-operations?status=pending&limit=100", server.admin))
    assert settle["itemId"] in {operation["itemId"] for operation in pending["operations"]}
    assert {operation["status"] for operation in pending["operations"]} == {"pending"}
    problem(await api.get("/v1/admin/wallet-operations?status=lost", server.admin), 422, "VALIDATION_ERROR")
    problem(await api.get("/v1/admin/wallet-operations?itemId=%00", server.admin), 422, "VALIDATION_ERROR")


async def test_many_rooms_are_driven_at_once(api: Api, server: Server) -> None:
    stars = [fresh("star") for _ in range(20)]
    items = await asyncio.gather(*(api.intake(performer_id) for performer_id in stars))
    started = await asyncio.gather(*(api.start_next(performer_id) for performer_id in stars))
    assert [item["itemId"] for item in started] == [item["itemId"] for item in items]
    assert all(datetime.fromisoformat(item["startedAt"]) for item in started)
