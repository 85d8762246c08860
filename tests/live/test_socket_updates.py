"""The frames that a room sends: updates to everybody, positions and notices to owners alone."""

import asyncio
from pathlib import Path

from tests.support.live_socket import Frame, LiveSocket
from tests.support.server import INSTANT, PUBLIC_FIELDS, WHOLE_FIELDS, Api, Json, Server, fresh, serving

EVENT_FIELDS = {"event", "template", "params", "itemId", "item", "at"}
POSITION_FIELDS = {
    "type",
    "itemId",
    "performerId",
    "status",
    "position",
    "ahead",
    "totalInQueue",
    "estimatedWaitSeconds",
    "estimatedWaitRange",
    "version",
}


def sent_events(live: LiveSocket) -> list[tuple[str, str | None]]:
    return [(event["event"], event["template"]) for update in live.of("update") for event in update["events"]]


def notices(live: LiveSocket) -> list[tuple[str, str]]:
    return [(notice["template"], notice["itemId"]) for notice in live.of("notice")]


async def test_an_update_has_the_events_and_the_rest_of_the_state_follows_from_them(
    api: Api, server: Server, performer_id: str
) -> None:
    async with server.live(performer_id) as live:
        await live.until("snapshot")
        item = await api.intake(performer_id)
        update = await live.next()
        assert set(update) == {"type", "from", "version", "serverTime", "events"}
        assert (update["from"], update["version"]) == (0, 1)
        assert INSTANT.fullmatch(update["serverTime"])
        (event,) = update["events"]
        assert set(event) == EVENT_FIELDS
        assert (event["event"], event["template"]) == ("queue.item.created", "queue.item.created")
        assert event["itemId"] == item["itemId"]
        assert event["item"] == {name: item[name] for name in PUBLIC_FIELDS}
        assert INSTANT.fullmatch(event["at"])
        assert live.room == (await api.queue(performer_id))["room"]
        await api.change(performer_id, announcement="Hello")
        update = await live.next()
        assert update["room"] == (await api.queue(performer_id))["room"]


async def test_every_event_has_its_name_and_template(api: Api, server: Server, performer_id: str) -> None:
    async with server.live(performer_id, server.admin) as live:
        await live.until("snapshot")
        first, second, third = [await api.intake(performer_id) for _ in range(3)]
        await api.command("start", first)
        await api.command("pause", first)
        await api.command("resume", first)
        await api.command("complete", first)
        await api.change(performer_id, announcement="Hello")
        await api.command("abandon", second)
        await api.command("refund", third, {"reason": "technical_error"})
        # The wallet's answer to the abandoned item's refund may come in between.
        await live.until_state(lambda live: live.version >= 10 and third["itemId"] not in live.items)
        expected = [
            ("queue.item.created", "queue.item.created"),
            ("queue.item.created", "queue.item.created"),
            ("queue.item.created", "queue.item.created"),
            ("queue.item.started", "queue.item.started"),
            ("queue.item.paused", None),
            ("queue.item.resumed", None),
            ("queue.item.finished", "queue.item.completed"),
            ("queue.room.changed", None),
            ("queue.item.abandoned", "queue.item.abandoned"),
        ]
        assert sent_events(live)[: len(expected)] == expected
        assert ("queue.item.refunded", "queue.item.refunded") in sent_events(live)
        assert live.gaps == 0


async def test_events_about_money_go_to_the_rooms_side_and_not_to_the_public(tmp_path: Path) -> None:
    """The sandbox wallet holds, settles and refunds here: its confirmations are events too."""
    with serving(tmp_path, settle_delay_seconds=0) as server:
        async with (
            server.api() as api,
            server.live("mira") as public,
            server.live("mira", server.performer("mira")) as panel,
        ):
            await public.until("snapshot")
            await panel.until("snapshot")
            settled = await api.command("start", await api.intake("mira"))
            await api.command("complete", settled)
            await panel.until(lambda frame: ("queue.item.settled", "queue.item.settled") in sent_events(panel))
            await api.command("abandon", await api.intake("mira"))
            await panel.until(lambda frame: ("queue.item.refunded", "queue.item.refunded") in sent_events(panel))
            await public.reach(panel.version)
            whole = [event["item"] for update in panel.of("update") for event in update["events"] if event["item"]]
            assert any(item["settled"] and item["walletStatus"] == "done" for item in whole)
            assert any(item["status"] == "refunded" and item["refundedTokens"] == 100 for item in whole)
            assert all(set(item) == WHOLE_FIELDS for item in whole)
            # The public's versions still join up, although it is not sent what concerns money.
            assert public.gaps == 0
            assert public.version == panel.version
            names = {name for name, _ in sent_events(public)}
            assert "queue.item.settled" not in names
            assert "queue.item.refunded" in names


async def test_mode_off_is_one_update(api: Api, server: Server, performer_id: str) -> None:
    async with server.live(performer_id) as live:
        await live.until("snapshot")
        await api.intake(performer_id, queueMode="off")
        update = await live.next()
        assert [event["event"] for event in update["events"]] == [
            "queue.item.created",
            "queue.item.started",
            "queue.item.finished",
        ]
        assert (update["from"], update["version"], live.items) == (0, 3, {})


async def test_the_first_event_is_sent_at_once_and_those_within_the_window_together(tmp_path: Path) -> None:
    with serving(tmp_path, coalesce_ms=300) as server:
        async with server.api() as api, server.live("mira") as live:
            await live.until("snapshot")
            loop = asyncio.get_running_loop()
            began = loop.time()
            await api.intake("mira")
            first = await live.next()
            assert loop.time() - began < 0.25
            for _ in range(3):
                await api.intake("mira")
            await live.reach(4)
            updates = live.of("update")
            assert (len(first["events"]), first["version"]) == (1, 1)
            assert (len(updates), len(updates[1]["events"]), updates[1]["from"]) == (2, 3, 1)
            assert loop.time() - began >= 0.3


async def test_a_socket_gets_events_of_its_own_room_only(api: Api, server: Server, performer_id: str) -> None:
    async with server.live(performer_id) as live:
        await live.until("snapshot")
        await api.intake(fresh("star"))
        await live.settled()
        assert live.of("update") == []


# Positions


async def last_position(live: LiveSocket, item: Json, **expected: int | str) -> Frame:
    """Read up to the frame with this position of an item."""
    return await live.until(
        lambda frame: (
            frame["type"] == "position" and frame["itemId"] == item["itemId"] and expected.items() <= frame.items()
        )
    )


async def test_each_new_position_is_sent_to_its_owner_and_to_nobody_else(
    api: Api, server: Server, performer_id: str
) -> None:
    items = [await api.intake(performer_id) for _ in range(4)]
    owner, other = server.viewer(items[3]["userId"]), server.viewer(fresh("user"))
    async with (
        server.live(performer_id, owner) as live,
        server.live(performer_id, other) as stranger,
        server.live(performer_id) as public,
    ):
        for socket in (live, stranger, public):
            await socket.until("snapshot")
        await api.command("abandon", items[0])
        frame = await last_position(live, items[3], position=3)
        assert set(frame) == POSITION_FIELDS
        assert (frame["ahead"], frame["totalInQueue"], frame["status"]) == (2, 3, "created")
        assert (frame["performerId"], frame["version"]) == (performer_id, live.version)
        assert frame["estimatedWaitSeconds"] == 120
        await api.command("start", items[2])
        # It overtook the one before it, which changes nothing for the last.
        await api.command("complete", items[2])
        await last_position(live, items[3], position=2)
        await api.command("abandon", items[1])
        await last_position(live, items[3], position=1, ahead=0)
        await api.command("start", items[3])
        await last_position(live, items[3], status="started", position=1)
        await api.command("complete", items[3])
        ended = await last_position(live, items[3], status="finished")
        assert (ended["position"], ended["ahead"], ended["estimatedWaitSeconds"]) == (0, 0, None)
        for socket in (stranger, public):
            await socket.reach(live.version)
            await socket.settled()
            assert socket.of("position") == socket.of("notice") == []


async def test_an_owner_is_sent_the_positions_of_later_items_on_every_socket(
    api: Api, server: Server, performer_id: str
) -> None:
    user = fresh("user")
    async with server.live(performer_id, server.viewer(user)) as one, server.live(performer_id) as two:
        await one.until("snapshot")
        await two.auth(server.viewer(user))
        item = await api.intake(performer_id, userId=user)
        for live in (one, two):
            await last_position(live, item, position=1)
            assert list(live.items) == [item["itemId"]]


async def test_the_rooms_side_gets_no_private_frames(api: Api, server: Server, performer_id: str) -> None:
    # A performer of the same name as a user is not that user.
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until("snapshot")
        await api.intake(performer_id, userId=performer_id)
        await api.start_next(performer_id)
        await live.until_state(lambda live: any(item["status"] == "started" for item in live.items.values()))
        await live.settled()
        assert live.of("position") == live.of("notice") == []
        assert live.of("snapshot")[-1]["mine"] == []


# Notices


async def test_a_notice_is_sent_once_at_each_milestone_and_to_the_owner_alone(
    api: Api, server: Server, performer_id: str
) -> None:
    items = [await api.intake(performer_id) for _ in range(5)]
    item = items[4]
    async with server.live(performer_id, server.viewer(item["userId"])) as live, server.live(performer_id) as public:
        await live.until("snapshot")
        await public.until("snapshot")
        for ahead in items[:4]:
            await api.command("abandon", ahead)
        await last_position(live, item, position=1)
        await live.settled()
        third, next_up = live.of("notice")
        assert set(third) == {"type", "template", "itemId", "params", "noticeId"}
        assert third["template"] == "queue.item.third_position_notice"
        assert (third["itemId"], third["params"]["position"], third["params"]["ahead"]) == (item["itemId"], 3, 2)
        assert next_up["template"] == "queue.item.next_up_notice"
        assert (next_up["itemId"], next_up["params"]["position"]) == (item["itemId"], 1)
        assert third["noticeId"] != next_up["noticeId"]
        # Overtaken and next again: the notice was sent already.
        await api.command("start", await api.intake(performer_id))
        await last_position(live, item, position=2)
        (started,) = [other for other in live.items.values() if other["status"] == "started"]
        await api.command("complete", started | {"performerId": performer_id})
        await last_position(live, item, position=1)
        await live.settled()
        assert len(live.of("notice")) == 2
        await public.settled()
        assert public.of("notice") == []


async def test_an_item_that_arrives_at_a_milestone_is_notified_at_once(
    api: Api, server: Server, performer_id: str
) -> None:
    user = fresh("user")
    async with server.live(performer_id, server.viewer(user)) as live:
        await live.until("snapshot")
        first = await api.intake(performer_id, userId=user)
        await api.intake(performer_id)
        third = await api.intake(performer_id, userId=user)
        await last_position(live, third, position=3)
        await live.settled()
        assert notices(live) == [
            ("queue.item.next_up_notice", first["itemId"]),
            ("queue.item.third_position_notice", third["itemId"]),
        ]


async def test_the_positions_that_raise_a_notice_are_the_rooms(api: Api, server: Server, performer_id: str) -> None:
    await api.change(performer_id, notifyPositions=[2])
    user = fresh("user")
    async with server.live(performer_id, server.viewer(user)) as live:
        await live.until("snapshot")
        first, second = [await api.intake(performer_id, userId=user) for _ in range(2)]
        await last_position(live, second, position=2)
        await live.settled()
        assert notices(live) == [("queue.item.position_notice", second["itemId"])]
        await api.change(performer_id, notifyPositions=[])
        await api.command("abandon", first)
        await last_position(live, second, position=1)
        await live.settled()
        assert len(live.of("notice")) == 1


async def test_a_notice_is_not_sent_again_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with server.api() as api, server.live("mira", server.viewer("ada")) as live:
            await live.until("snapshot")
            item = await api.intake("mira", userId="ada")
            await live.until("notice")
    with serving(tmp_path) as server:
        async with server.api() as api, server.live("mira", server.viewer("ada")) as live:
            await live.until("snapshot")
            await api.command("start", await api.intake("mira"))
            await last_position(live, item, position=2)
            (started,) = [item for item in live.items.values() if item["status"] == "started"]
            await api.command("complete", started | {"performerId": "mira"})
            await last_position(live, item, position=1)
            await live.settled()
            assert live.of("notice") == []
