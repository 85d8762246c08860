"""Analytics over HTTP: who sees which figures, and over which spans."""

from urllib.parse import urlencode

import pytest

from tests.support.server import Api, Server, fresh, ok, problem


def path_of(performer_id: str, **query: str) -> str:
    return f"/v1/performers/{performer_id}/queue/analytics?{urlencode(query)}"


async def test_a_performer_sees_the_last_day_of_their_own_room(api: Api, server: Server, performer_id: str) -> None:
    finished, waiting = await api.intake(performer_id), await api.intake(performer_id)
    await api.command("start", finished)
    await api.command("complete", finished)
    figures = ok(await api.get(path_of(performer_id), server.performer(performer_id)))
    assert figures["performerId"] == performer_id
    assert (figures["counts"]["created"], figures["counts"]["finished"]) == (2, 1)
    assert figures["features"][0]["sourceFeature"] == waiting["sourceFeature"]
    assert figures["from"] < finished["createdAt"] < figures["to"]


async def test_the_waits_that_were_shown_are_judged_by_the_places_ahead(
    api: Api, server: Server, performer_id: str
) -> None:
    for _ in range(3):
        await api.intake(performer_id)
    first = ok(await api.post(f"/v1/performers/{performer_id}/queue/start-next", server.performer(performer_id)))
    await api.command("complete", first)
    ok(await api.post(f"/v1/performers/{performer_id}/queue/start-next", server.performer(performer_id)))
    by_ahead = ok(await api.get(path_of(performer_id), server.performer(performer_id)))["estimateByAhead"]
    assert [(each["aheadFrom"], each["aheadTo"], each["count"]) for each in by_ahead] == [
        (0, 0, 1),
        (1, 1, 1),
        (2, 3, 0),
        (4, 6, 0),
        (7, 10, 0),
        (11, None, 0),
    ]
    assert by_ahead[1]["meanAbsoluteSeconds"] == pytest.approx(60, abs=20)
    assert (by_ahead[1]["rangeRate"], by_ahead[1]["insideRate"]) == (0, None)


async def test_an_administrator_sees_all_rooms_and_an_empty_span_holds_nothing(
    api: Api, server: Server, performer_id: str
) -> None:
    await api.intake(performer_id)
    assert ok(await api.get("/v1/admin/analytics", server.admin))["counts"]["created"] >= 1
    long_ago = {"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"}
    figures = ok(await api.get(f"/v1/admin/analytics?{urlencode(long_ago)}", server.admin))
    assert figures["performerId"] is None
    assert figures["counts"]["created"] == 0


async def test_others_may_not_look(api: Api, server: Server, performer_id: str) -> None:
    await api.intake(performer_id)
    problem(await api.get(path_of(performer_id), server.performer(fresh("star"))), 403, "FORBIDDEN")
    problem(await api.get("/v1/admin/analytics", server.performer(performer_id)), 403, "FORBIDDEN")
    problem(await api.get(path_of(fresh("star")), server.admin), 404, "PERFORMER_NOT_FOUND")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-13-01T00:00:00Z"}, "to"),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "from"),
        ({"from": "2025-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "from"),
    ],
)
async def test_an_invalid_span_is_refused(
    api: Api, server: Server, performer_id: str, query: dict[str, str], field: str
) -> None:
    await api.intake(performer_id)
    refusal = problem(
        await api.get(path_of(performer_id, **query), server.performer(performer_id)), 422, "VALIDATION_ERROR"
    )
    assert refusal["errors"][0]["field"] == field
