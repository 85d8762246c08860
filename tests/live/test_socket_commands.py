"""The performer's commands over the socket: the same rights, rules, codes and effect as over HTTP."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ROOM_FIELDS, WHOLE_FIELDS, Api, Json, Server, fresh, nothing_changes, ok, serving


def refused(frame: Json, code: str) -> Json:
    """The problem of an error frame, which must be this refusal."""
    assert frame["type"] == "error", frame
    problem: Json = frame["problem"]
    assert problem["code"] == frame["code"] == code, frame
    assert problem["detail"] == frame["detail"]
    assert {"type", "title", "status", "detail", "code"} <= set(problem)
    return problem


def acknowledged(frame: Json) -> Json:
    assert frame["type"] == "ack", frame
    item: Json = frame["item"]
    assert set(item) == WHOLE_FIELDS
    return item


async def test_a_performer_drives_the_room_over_the_socket(api: Api, server: Server, performer_id: str) -> None:
    first, second, third = [await api.intake(performer_id, tokens=10) for _ in range(3)]
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until("snapshot")

        async def done(name: str, **fields: Any) -> Json:
            return acknowledged(await live.command(name, **fields))

        assert (await done("start-next"))["itemId"] == first["itemId"]
        paused = await done("pause", itemId=first["itemId"])
        assert paused["paused"] is True
        assert (await done("resume", itemId=first["itemId"]))["paused"] is False
        finished = await done("complete", itemId=first["itemId"], refundTokens=4.0)  # a whole float is an integer
        assert (finished["status"], finished["position"], finished["walletStatus"]) == ("finished", 0, "pending")
        started = await done("start", itemId=third["itemId"])
        assert (started["status"], started["position"]) == ("started", 1)
        abandoned = await done("abandon", itemId=third["itemId"], reason="technical_error")
        assert (abandoned["status"], abandoned["abandonReason"]) == ("abandoned", "technical_error")
        refunded = await done("refund", itemId=second["itemId"], reason="performer_declined")
        assert (refunded["status"], refunded["refundReason"]) == ("refunded", "performer_declined")
        await live.until_state(lambda live: not live.items)
        trail = ok(await api.get(f"/v1/queue/items/{first['itemId']}/transitions", server.admin))["transitions"]
        assert [(step["to"], step["actorRole"], step["actorId"]) for step in trail] == [
            ("created", "feature", "wheel"),
            ("started", "performer", performer_id),
            ("finished", "performer", performer_id),
        ]


async def test_an_ack_has_the_id_of_its_command_and_the_item_as_http_has_it(
    api: Api, server: Server, performer_id: str
) -> None:
    item = await api.intake(performer_id)
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until("snapshot")
        frame = await live.command("start", "my-own-id", itemId=item["itemId"])
        assert set(frame) == {"type", "id", "item"}
        assert frame["id"] == "my-own-id"
        assert frame["item"] == ok(await api.get(f"/v1/queue/items/{item['itemId']}", server.admin))


async def test_settings_are_changed_over_the_socket(api: Api, server: Server, performer_id: str) -> None:
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until("snapshot")
        frame = await live.command("settings", accepting=False, maxDepth=7, announcement="Back soon")
        assert (frame["type"], frame["item"]) == ("ack", None)
        assert set(frame["room"]) == ROOM_FIELDS
        assert (frame["room"]["accepting"], frame["room"]["maxDepth"]) == (False, 7)
        await live.until_state(lambda live: live.room["announcement"] == "Back soon")
        assert (await api.queue(performer_id))["room"]["maxDepth"] == 7


@pytest.mark.parametrize("role", ["performer", "moderator", "admin"])
async def test_the_rooms_side_may_command(api: Api, server: Server, performer_id: str, role: str) -> None:
    item = await api.intake(performer_id)
    token = server.token(
        role, performer_id if role == "performer" else "max", performer_id if role == "moderator" else None
    )
    async with server.live(performer_id, token) as live:
        await live.until("snapshot")
        assert acknowledged(await live.command("start-next"))["itemId"] == item["itemId"]


COMMANDS = ("start", "start-next", "complete", "abandon", "refund", "pause", "resume", "settings")


async def test_nobody_else_may(api: Api, server: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    strangers = {
        None: "UNAUTHORIZED",
        server.viewer("somebody"): "FORBIDDEN",
        server.feature(): "FORBIDDEN",
        server.performer(fresh("star")): "FORBIDDEN",
        server.token("moderator", "max", fresh("star")): "FORBIDDEN",
    }
    async with nothing_changes(api, performer_id):
        for token, code in strangers.items():
            async with server.live(performer_id, token) as live:
                await live.until("snapshot")
                for name in COMMANDS:
                    fields: Json = {} if name in ("start-next", "settings") else {"itemId": item["itemId"]}
                    if name == "refund":
                        fields["reason"] = "technical_error"
                    refused(await live.command(name, **fields), code)


async def test_rights_are_checked_before_the_command(server: Server, performer_id: str) -> None:
    async with server.live(performer_id) as live:
        await live.until("snapshot")
        for name in COMMANDS:
            refused(await live.command(name, surprise=1), "UNAUTHORIZED")


async def test_an_owner_may_cancel_over_the_socket_as_over_http(api: Api, server: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    async with server.live(performer_id, server.viewer(item["userId"])) as live:
        await live.until("snapshot")
        refused(await live.command("refund", itemId=item["itemId"], reason="timeout"), "FORBIDDEN")
        cancelled = acknowledged(await live.command("refund", itemId=item["itemId"], reason="user_cancelled"))
        assert cancelled["status"] == "refunded"


async def test_a_socket_does_not_reach_into_another_room(api: Api, server: Server, performer_id: str) -> None:
    elsewhere = await api.intake(fresh("star"))
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until("snapshot")
        async with nothing_changes(api, elsewhere["performerId"]):
            refused(await live.command("start", itemId=elsewhere["itemId"]), "FORBIDDEN")


async def test_refusals_have_the_codes_of_http(api: Api, server: Server, performer_id: str) -> None:
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until("snapshot")
        refused(await live.command("start-next"), "QUEUE_EMPTY")
        refused(await live.command("start", itemId=fresh("item")), "ITEM_NOT_FOUND")
        first, second = await api.intake(performer_id), await api.intake(performer_id)
        refused(await live.command("complete", itemId=first["itemId"]), "INVALID_STATE_TRANSITION")
        refused(await live.command("settings", mode="maybe"), "INVALID_MODE")
        await live.command("settings", strictFifo=True)
        refused(await live.command("start", itemId=second["itemId"]), "OUT_OF_ORDER")
        await live.command("start-next")
        refused(await live.command("start-next"), "ALREADY_PROCESSING")


async def test_a_refusal_shows_the_item_it_is_about_as_http_does(api: Api, server: Server, performer_id: str) -> None:
    first, second = await api.intake(performer_id), await api.intake(performer_id)
    await api.command("start", first)
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until("snapshot")
        problem = refused(await live.command("start", itemId=second["itemId"]), "ALREADY_PROCESSING")
        assert problem["item"] == ok(await api.get(f"/v1/queue/items/{first['itemId']}", server.admin))
    async with server.live(performer_id, server.viewer(second["userId"])) as live:
        await live.until("snapshot")
        problem = refused(await live.command("start", itemId=second["itemId"]), "FORBIDDEN")
        assert "item" not in problem


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [
        ("start", {}, "itemId"),
        ("start", {"itemId": 5}, "itemId"),
        ("start", {"itemId": None}, "itemId"),
        ("start", {"itemId": "{item}", "reason": "timeout"}, "reason"),
        ("start-next", {"itemId": "{item}"}, "itemId"),
        ("complete", {"itemId": "{item}", "refundTokens": "1"}, "refundTokens"),
        ("complete", {"itemId": "{item}", "refundTokens": 1.5}, "refundTokens"),
        ("complete", {"itemId": "{item}", "refund_tokens": 1}, "refund_tokens"),
        ("abandon", {"itemId": "{item}", "reason": "bored"}, "reason"),
        ("refund", {"itemId": "{item}"}, "reason"),
        ("settings", {"maxDepth": 0}, "maxDepth"),
        ("settings", {"itemId": "{item}"}, "itemId"),
        ("settings", {"surprise": 1}, "surprise"),
    ],
)
async def test_a_wrong_command_is_an_error_and_the_connection_goes_on(
    api: Api, server: Server, performer_id: str, name: str, fields: Json, field: str
) -> None:
    item = await api.intake(performer_id)
    filled = {key: item["itemId"] if value == "{item}" else value for key, value in fields.items()}
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until_state(lambda live: bool(live.room.get("performerOnline")))
        async with nothing_changes(api, performer_id):
            problem = refused(await live.command(name, **filled), "VALIDATION_ERROR")
            assert [wrong["field"] for wrong in problem["errors"]] == [field]
        acknowledged(await live.command("start-next"))


async def test_a_command_needs_an_id(server: Server, performer_id: str) -> None:
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until("snapshot")
        wrong: list[Any] = [None, 5, "", "x" * 256, "a\0b", [], {}]
        for command_id in wrong:
            await live.send({"type": "start-next", "id": command_id})
            frame = await live.until("error")
            assert frame["id"] in (command_id, None)
            refused(frame, "VALIDATION_ERROR")
        await live.send({"type": "start-next"})
        frame = await live.until("error")
        assert frame["id"] is None
        refused(frame, "VALIDATION_ERROR")


# Idempotency


async def test_an_id_sent_again_gets_the_first_answer_again(api: Api, server: Server, performer_id: str) -> None:
    await api.intake(performer_id)
    await api.intake(performer_id)
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until_state(lambda live: bool(live.room.get("performerOnline")))
        first = await live.command("start-next", "once")
        item = acknowledged(first)
        acknowledged(await live.command("complete", itemId=item["itemId"]))
        async with nothing_changes(api, performer_id):
            assert await live.command("start-next", "once") == first
            refused(await live.command("abandon", "once", itemId=item["itemId"]), "DUPLICATE_IDEMPOTENCY_KEY")


async def test_an_id_is_known_on_another_connection_and_over_http(api: Api, server: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    performer, key = server.performer(performer_id), fresh("id")
    async with server.live(performer_id, performer) as live:
        await live.until("snapshot")
        first = acknowledged(await live.command("start", key, itemId=item["itemId"]))
    async with server.live(performer_id, performer) as live:
        await live.until("snapshot")
        assert acknowledged(await live.command("start", key, itemId=item["itemId"])) == first
    again = await api.post(f"/v1/queue/items/{item['itemId']}/start", performer, key=key)
    assert ok(again) == first
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_settings_sent_again_are_not_made_again(api: Api, server: Server, performer_id: str) -> None:
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until("snapshot")
        assert (await live.command("settings", "once", announcement="One"))["type"] == "ack"
        assert (await live.command("settings", announcement="Two"))["type"] == "ack"
        await live.until_state(lambda live: bool(live.room["performerOnline"]))
        async with nothing_changes(api, performer_id):
            assert (await live.command("settings", "once", announcement="One"))["type"] == "ack"
            refused(await live.command("settings", "once", announcement="Three"), "DUPLICATE_IDEMPOTENCY_KEY")
        assert (await api.queue(performer_id))["room"]["announcement"] == "Two"


async def test_an_id_is_known_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with server.api() as api, server.live("mira", server.performer("mira")) as live:
            await live.until("snapshot")
            await api.intake("mira")
            await api.intake("mira")
            first = acknowledged(await live.command("start-next", "once"))
            await live.command("settings", "twice", announcement="Hello")
            await live.command("settings", announcement="Goodbye")
    with serving(tmp_path) as server:
        async with server.live("mira", server.performer("mira")) as live:
            await live.until("snapshot")
            assert acknowledged(await live.command("start-next", "once")) == first
            assert (await live.command("settings", "twice", announcement="Hello"))["type"] == "ack"
            await live.settled()
            assert live.room["announcement"] == "Goodbye"


async def test_two_panels_race_and_one_wins(api: Api, server: Server, performer_id: str) -> None:
    for _ in range(3):
        await api.intake(performer_id)
    performer = server.performer(performer_id)
    async with server.live(performer_id, performer) as one, server.live(performer_id, performer) as two:
        for live in (one, two):
            await live.until("snapshot")
        frames = await asyncio.gather(one.command("start-next"), two.command("start-next", "another-id"))
        assert sorted(frame["type"] for frame in frames) == ["ack", "error"]
        for live in (one, two):
            await live.until_state(lambda live: any(item["status"] == "started" for item in live.items.values()))
        assert one.items == two.items


async def test_commands_are_answered_in_the_order_they_came(api: Api, server: Server, performer_id: str) -> None:
    items = [await api.intake(performer_id) for _ in range(10)]
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until("snapshot")
        for number, item in enumerate(items):
            await live.send({"type": "abandon", "id": str(number), "itemId": item["itemId"]})
        await live.settled()
        assert [frame["id"] for frame in live.of("ack")] == [str(number) for number in range(10)]
