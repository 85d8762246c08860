"""Resuming with an epoch and a version: all missed events, or a snapshot, and never a part."""

import shutil
from pathlib import Path

import pytest

from app.store.engines import open_engines
from app.store.migrating import migrate
from tests.support.live_socket import Frame, LiveSocket
from tests.support.server import Api, Server, fresh, intake_body, ok, serving


def point(epoch: str, since: object) -> str:
    return f"?epoch={epoch}&since={since}"


async def first_answer(live: LiveSocket) -> Frame:
    """The frame with the room's state, which must follow the welcome at once."""
    assert (await live.next())["type"] == "welcome"
    return await live.next()


async def test_missed_events_come_in_one_update(api: Api, server: Server, performer_id: str) -> None:
    first = await api.intake(performer_id)
    async with server.live(performer_id) as live:
        await live.until("snapshot")
    await api.command("start", first)
    await api.command("complete", first)
    second = await api.intake(performer_id)
    async with server.live(performer_id, query=point(live.epoch, live.version)) as back:
        back.continue_from(live)
        update = await first_answer(back)
        assert (update["type"], update["recovered"], update["from"], update["version"]) == ("update", True, 1, 4)
        assert [event["event"] for event in update["events"]] == [
            "queue.item.started",
            "queue.item.finished",
            "queue.item.created",
        ]
        assert list(back.items) == [second["itemId"]]
        assert "room" not in update
        assert back.room == (await api.queue(performer_id))["room"]
        await api.intake(performer_id)
        following = await back.next()
        assert (following["from"], following["version"]) == (4, 5)
        assert "recovered" not in following


async def test_a_client_that_has_missed_nothing_is_sent_an_empty_update(
    api: Api, server: Server, performer_id: str
) -> None:
    await api.intake(performer_id)
    async with server.live(performer_id) as live:
        await live.until("snapshot")
    async with server.live(performer_id, query=point(live.epoch, 1)) as back:
        update = await first_answer(back)
        assert (update["type"], update["recovered"]) == ("update", True)
        assert (update["from"], update["version"], update["events"]) == (1, 1, [])


async def test_a_room_may_be_resumed_from_before_it_was(api: Api, server: Server, performer_id: str) -> None:
    async with server.live(performer_id) as live:
        await live.until("snapshot")
    await api.intake(performer_id)
    async with server.live(performer_id, query=point(live.epoch, 0)) as back:
        update = await first_answer(back)
        assert (update["type"], update["from"], update["version"]) == ("update", 0, 1)


@pytest.mark.parametrize(
    "since", ["", "-1", "1.5", "x", "999", "9" * 15, "9" * 400, "%D9%A1", "+1", "1_0", "0x1", "%00", "null"]
)
async def test_an_unknown_version_gets_a_snapshot(api: Api, server: Server, performer_id: str, since: str) -> None:
    await api.intake(performer_id)
    epoch = (await api.queue(performer_id))["room"]["epoch"]
    async with server.live(performer_id, query=point(epoch, since)) as live:
        snapshot = await first_answer(live)
        assert (snapshot["type"], snapshot["recovered"], snapshot["version"]) == ("snapshot", False, 1)


@pytest.mark.parametrize("query", ["?epoch={other}&since=1", "?since=1", "?epoch=&since=1", "?epoch={epoch}", "?x=1"])
async def test_another_epoch_or_none_gets_a_snapshot(api: Api, server: Server, performer_id: str, query: str) -> None:
    await api.intake(performer_id)
    epoch = (await api.queue(performer_id))["room"]["epoch"]
    async with server.live(performer_id, query=query.format(epoch=epoch, other=epoch[::-1] + "0")) as live:
        assert (await first_answer(live))["type"] == "snapshot"


async def test_a_watched_room_is_resumed_from_memory_and_an_unwatched_one_from_the_log(
    api: Api, server: Server, performer_id: str
) -> None:
    for _ in range(5):
        await api.intake(performer_id)
    epoch = (await api.queue(performer_id))["room"]["epoch"]
    async with server.live(performer_id, query=point(epoch, 2)) as live:
        assert (await first_answer(live))["from"] == 2
        for _ in range(5):
            await api.intake(performer_id)
        await live.reach(10)
        for since in (0, 3, 5, 6, 9):
            async with server.live(performer_id, query=point(epoch, since)) as back:
                update = await first_answer(back)
                assert (update["from"], update["version"], len(update["events"])) == (since, 10, 10 - since)


async def test_too_long_away_gets_a_snapshot_and_no_part(api: Api, server: Server, performer_id: str) -> None:
    for number in range(258):
        await api.change(performer_id, announcement=f"Song {number}")
    epoch = (await api.queue(performer_id))["room"]["epoch"]
    for since, kind in ((1, "snapshot"), (2, "update"), (257, "update")):
        async with server.live(performer_id, query=point(epoch, since)) as live:
            answer = await first_answer(live)
            assert (answer["type"], answer["version"]) == (kind, 258)


async def test_an_owner_resumes_with_the_positions_of_all_own_items(
    api: Api, server: Server, performer_id: str
) -> None:
    user = fresh("user")
    await api.intake(performer_id)
    first, second = [await api.intake(performer_id, userId=user) for _ in range(2)]
    async with server.live(performer_id, server.viewer(user)) as live:
        await live.until("snapshot")
    await api.start_next(performer_id)
    async with server.live(performer_id, server.viewer(user), query=point(live.epoch, live.version)) as back:
        back.continue_from(live)
        assert (await first_answer(back))["recovered"] is True
        await back.settled()
        assert {item_id: frame["position"] for item_id, frame in back.positions.items()} == {
            first["itemId"]: 2,
            second["itemId"]: 3,
        }


async def test_a_resumed_update_has_only_what_its_audience_may_see(api: Api, server: Server, performer_id: str) -> None:
    await api.intake(performer_id)
    epoch = (await api.queue(performer_id))["room"]["epoch"]
    async with server.live(performer_id, query=point(epoch, 0)) as live:
        (event,) = (await first_answer(live))["events"]
        assert "userId" not in event["item"]
    async with server.live(performer_id, server.admin, query=point(epoch, 0)) as live:
        (event,) = (await first_answer(live))["events"]
        assert event["item"]["userId"]


async def test_an_epoch_outlives_a_restart_and_so_does_the_place_in_it(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with server.api() as api, server.live("mira") as live:
            await live.until("snapshot")
            await api.intake("mira")
            await live.reach(1)
            await api.intake("mira")
    with serving(tmp_path) as server:
        async with server.live("mira", query=point(live.epoch, 1)) as back:
            update = await first_answer(back)
            # A restart that takes a while is a stop: the room's clocks begin anew, which is a version of its own.
            assert (update["type"], update["recovered"], update["version"] >= 2) == ("update", True, True)
            assert back.of("welcome")[0]["epoch"] == live.epoch


def restore(backup: Path, database: Path) -> None:
    for leftover in database.parent.glob(f"{database.name}*"):
        leftover.unlink()
    shutil.copy(backup, database)
    engines = open_engines(f"sqlite:///{database}")
    migrate(engines.writer, restored=True)
    engines.dispose()


async def test_a_restored_backup_has_a_new_epoch_so_that_nobody_resumes_into_another_history(tmp_path: Path) -> None:
    database = tmp_path / "queue.db"
    with serving(tmp_path) as server:
        async with server.api() as api:
            await api.intake("mira")
    shutil.copy(database, tmp_path / "backup.db")
    with serving(tmp_path) as server:
        async with server.api() as api:
            lost = await api.intake("mira")
            epoch = (await api.queue("mira"))["room"]["epoch"]
    restore(tmp_path / "backup.db", database)
    with serving(tmp_path) as server:
        async with server.api() as api:
            # The same version as in the lost history, with other contents.
            ok(await api.post("/v1/queue/items", server.feature(), intake_body("mira")), 201)
            async with server.live("mira", query=point(epoch, 2)) as live:
                snapshot = await first_answer(live)
                assert snapshot["type"] == "snapshot"
                assert snapshot["epoch"] != epoch
                assert lost["itemId"] not in live.items
