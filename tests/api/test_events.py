"""The durable event log over HTTP, page by page: complete, in order, with the events that the reader may see."""

from datetime import datetime

import pytest

from tests.support.server import INSTANT, WHOLE_FIELDS, Api, Json, Server, fresh, ok, problem

LOGGED_FIELDS = {"cursor", "performerId", "version", "event", "template", "params", "itemId", "item", "at"}


async def read_all(api: Api, token: str, query: str, limit: int) -> list[Json]:
    """Follow `next` to the end of the log."""
    events: list[Json] = []
    after = None
    while True:
        page = ok(await api.get(f"/v1/events?limit={limit}{query}" + (f"&after={after}" if after else ""), token))
        assert set(page) == {"events", "next"}
        if not page["events"]:
            assert page["next"] == after
            return events
        events += page["events"]
        after = page["next"]
        assert after == page["events"][-1]["cursor"]


async def test_everything_that_happens_in_a_room_is_logged_in_order(
    api: Api, server: Server, performer_id: str
) -> None:
    first, second = await api.intake(performer_id), await api.intake(performer_id)
    await api.command("start", first)
    await api.command("pause", first)
    await api.command("resume", first)
    await api.change(performer_id, announcement="Two more")
    await api.command("complete", first)
    await api.command("refund", second, {"reason": "technical_error"})
    events = await read_all(api, server.performer(performer_id), "", 3)
    summaries = [
        (event["version"], event["event"], event["template"], event["itemId"])
        for event in events
        if event["version"] < 9
    ]
    assert summaries == [
        (1, "queue.item.created", "queue.item.created", first["itemId"]),
        (2, "queue.item.created", "queue.item.created", second["itemId"]),
        (3, "queue.item.started", "queue.item.started", first["itemId"]),
        (4, "queue.item.paused", None, first["itemId"]),
        (5, "queue.item.resumed", None, first["itemId"]),
        (6, "queue.room.changed", None, None),
        (7, "queue.item.finished", "queue.item.completed", first["itemId"]),
        (8, "queue.item.refunded", "queue.item.refunded", second["itemId"]),
    ]
    for event in events:
        assert set(event) == LOGGED_FIELDS
        assert event["performerId"] == performer_id
        assert INSTANT.fullmatch(event["at"])
        assert event["item"] is None or set(event["item"]) == WHOLE_FIELDS
    assert events[0]["item"] == first
    times = [datetime.fromisoformat(event["at"]) for event in events]
    assert times == sorted(times)


async def test_a_page_size_changes_nothing_but_the_pages(api: Api, server: Server, performer_id: str) -> None:
    for _ in range(7):
        await api.intake(performer_id)
    whole = await read_all(api, server.performer(performer_id), "", 1000)
    assert [event["version"] for event in whole] == list(range(1, 8))
    for limit in (1, 2, 7, 8):
        assert await read_all(api, server.performer(performer_id), "", limit) == whole


async def test_a_reader_that_has_everything_gets_the_cursor_to_go_on_from(
    api: Api, server: Server, performer_id: str
) -> None:
    empty = ok(await api.get("/v1/events", server.performer(performer_id)))
    assert empty == {"events": [], "next": None}
    await api.intake(performer_id)
    page = ok(await api.get("/v1/events", server.performer(performer_id)))
    again = ok(await api.get(f"/v1/events?after={page['next']}", server.performer(performer_id)))
    assert again == {"events": [], "next": page["next"]}
    await api.intake(performer_id)
    (event,) = ok(await api.get(f"/v1/events?after={page['next']}", server.performer(performer_id)))["events"]
    assert event["version"] == 2


async def test_an_admin_reads_every_room_or_one(api: Api, server: Server) -> None:
    stars = [fresh("star"), fresh("star")]
    for _ in range(2):
        for performer_id in stars:
            await api.intake(performer_id)
    everything = await read_all(api, server.admin, "", 1000)
    ours = [(event["performerId"], event["version"]) for event in everything if event["performerId"] in stars]
    assert ours == [(stars[0], 1), (stars[1], 1), (stars[0], 2), (stars[1], 2)]
    one = await read_all(api, server.admin, f"&performerId={stars[1]}", 1)
    assert [(event["performerId"], event["version"]) for event in one] == [(stars[1], 1), (stars[1], 2)]


async def test_a_feature_reads_its_own_events_of_every_room_or_one(api: Api, server: Server) -> None:
    feature = fresh("feature")
    stars = [fresh("star"), fresh("star")]
    for performer_id in stars:
        await api.intake(performer_id, sourceFeature=feature)
        await api.intake(performer_id)
        # An event without an item belongs to no feature.
        await api.change(performer_id, announcement="Hello")
    token = server.feature(feature)
    assert [event["performerId"] for event in await read_all(api, token, "", 1)] == stars
    assert [event["version"] for event in await read_all(api, token, f"&performerId={stars[0]}", 100)] == [1]


@pytest.mark.parametrize(
    "query",
    [
        "after=x",
        "after=-1",
        "after=1.5.2",
        "after=1e3",
        "after=%00",
        "after=99999999999999999999999",
        "after=٣",
        "after=1_0",
        "after=%201",
        "limit=0",
        "limit=1001",
        "limit=a",
        "performerId=a%20b",
        "performerId=%00",
        "performerId=",
    ],
)
async def test_a_wrong_parameter_is_refused(api: Api, server: Server, query: str) -> None:
    refusal = problem(await api.get(f"/v1/events?{query}", server.admin), 422, "VALIDATION_ERROR")
    assert refusal["errors"][0]["field"] == query.partition("=")[0]
