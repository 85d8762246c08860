"""A room's timeline: every event of a span once, with actor, reason, estimate and payment."""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from app.domain.command import Role
from tests.support.server import Api, Server, fresh, ok, problem


def path_of(performer_id: str, **query: str) -> str:
    return f"/v1/performers/{performer_id}/queue/timeline?{urlencode({'limit': 1000} | query)}"


async def test_a_step_names_its_actor_its_reason_and_the_wait_that_was_shown(
    api: Api, server: Server, performer_id: str
) -> None:
    first = await api.intake(performer_id, durationSeconds=90, title="One")
    second = await api.intake(performer_id, title="Two")
    await api.command("start", second)
    await api.command("abandon", second, {"reason": "technical_error"})
    timeline = ok(await api.get(path_of(performer_id), server.performer(performer_id)))
    steps = timeline["steps"]
    assert [(each["version"], each["event"], each["title"]) for each in steps[:4]] == [
        (1, "queue.item.created", "One"),
        (2, "queue.item.created", "Two"),
        (3, "queue.item.started", "Two"),
        (4, "queue.item.abandoned", "Two"),
    ]
    assert (steps[0]["actorRole"], steps[0]["actorId"]) == ("feature", first["sourceFeature"])
    assert (steps[0]["toldWaitSeconds"], steps[1]["toldWaitSeconds"], steps[1]["toldWaitRange"]) == (0, 90, None)
    assert (steps[0]["from"], steps[2]["from"], steps[2]["to"]) == (None, "created", "started")
    assert (steps[2]["actorRole"], steps[2]["reason"]) == ("performer", "overtook 1")
    assert (steps[3]["reason"], steps[3]["tokens"]) == ("technical_error", second["tokens"])
    assert timeline["next"] is None


async def test_payments_are_at_the_event_of_their_confirmation(api: Api, server: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    await api.command("refund", item, {"reason": "performer_declined"})

    async def steps() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = ok(await api.get(path_of(performer_id), server.admin))["steps"]
        return found

    assert (await steps())[1]["refundedTokens"] is None
    assert (await steps())[1]["walletStatus"] == "pending"


async def test_pages_hold_every_event_once(api: Api, server: Server, performer_id: str) -> None:
    for _ in range(5):
        await api.intake(performer_id)
    versions: list[int] = []
    after: int | None = 0
    while after is not None:
        page = ok(await api.get(path_of(performer_id, limit="2", afterVersion=str(after)), server.admin))
        versions += [each["version"] for each in page["steps"]]
        after = page["next"]
    assert versions == [1, 2, 3, 4, 5]


async def test_a_span_begins_and_ends_where_it_says(api: Api, server: Server, performer_id: str) -> None:
    for _ in range(3):
        await api.intake(performer_id)
    whole = ok(await api.get(path_of(performer_id), server.admin))["steps"]
    moments = [each["at"] for each in whole]

    async def versions(**span: str) -> list[int]:
        return [each["version"] for each in ok(await api.get(path_of(performer_id, **span), server.admin))["steps"]]

    since = [each["version"] for each in whole if each["at"] >= moments[1]]
    assert await versions(**{"from": moments[1]}) == since
    before = [each["version"] for each in whole if each["at"] < moments[2]]
    assert await versions(to=moments[2]) == before
    later = (datetime.fromisoformat(moments[-1]) + timedelta(milliseconds=1)).isoformat()
    assert await versions(**{"from": later}) == []
    assert await versions(**{"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"}) == []


async def test_it_is_the_performers_side_and_the_administrators(api: Api, server: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    path = path_of(performer_id)
    for token in (server.performer(performer_id), server.admin, server.token(Role.MODERATOR, "helper", performer_id)):
        assert len(ok(await api.get(path, token))["steps"]) == 1
    problem(await api.get(path), 401, "UNAUTHORIZED")
    for stranger in (server.viewer(item["userId"]), server.performer(fresh("star")), server.feature(fresh("feature"))):
        problem(await api.get(path, stranger), 403, "FORBIDDEN")
    problem(await api.get(path_of(fresh("star")), server.admin), 404, "PERFORMER_NOT_FOUND")


async def test_invalid_parameters_are_refused(api: Api, server: Server, performer_id: str) -> None:
    await api.intake(performer_id)
    for query in ({"limit": "0"}, {"limit": "1001"}, {"afterVersion": "-1"}, {"from": "today"}):
        refusal = problem(await api.get(path_of(performer_id, **query), server.admin), 422, "VALIDATION_ERROR")
        assert [each["field"] for each in refusal["errors"]] == list(query)
