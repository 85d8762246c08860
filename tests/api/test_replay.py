"""`?version=` over HTTP: the queue of that version, the rights of the event log, and clear refusals."""

from typing import Any

from app.domain.command import Role
from tests.support.live_socket import LiveSocket
from tests.support.server import Api, Server, fresh, ok, problem


def path_of(performer_id: str) -> str:
    return f"/v1/performers/{performer_id}/queue"


def state_of(socket: LiveSocket) -> dict[str, Any]:
    snapshot = socket.frames[-1]
    assert snapshot["type"] == "snapshot"
    return {"room": snapshot["room"], "items": snapshot["items"]}


async def test_every_version_replays_as_the_snapshot_that_the_panel_got(
    api: Api, server: Server, performer_id: str
) -> None:
    performer = server.performer(performer_id)
    seen: dict[int, dict[str, Any]] = {}
    async with server.live(performer_id, performer) as panel:

        async def look() -> None:
            await panel.send({"type": "resync"})
            await panel.until("snapshot")
            state = state_of(panel)
            if state["room"]["version"]:
                seen[state["room"]["version"]] = state

        items = []
        for number in range(3):
            items.append(await api.intake(performer_id, title=f"Wish {number}", metadata={"number": number}))
            await look()
        await api.command("start", items[1])
        await look()
        await api.command("pause", items[1])
        await look()
        await api.change(performer_id, paused=True, announcement="Back soon")
        await look()
        await api.change(performer_id, paused=False)
        await api.command("resume", items[1])
        await look()
        await api.command("complete", items[1])
        await look()
        await api.command("abandon", items[0])
        await look()
    assert len(seen) >= 8
    for version, state in seen.items():
        assert ok(await api.get(f"{path_of(performer_id)}?version={version}", performer)) == state


async def test_replay_has_the_rights_of_the_event_log(api: Api, server: Server, performer_id: str) -> None:
    mine, other = fresh("feature"), fresh("feature")
    first = await api.intake(performer_id, sourceFeature=mine)
    second = await api.intake(performer_id, sourceFeature=other)
    path = f"{path_of(performer_id)}?version=2"
    for token in (server.performer(performer_id), server.admin, server.token(Role.MODERATOR, "helper", performer_id)):
        assert [item["itemId"] for item in ok(await api.get(path, token))["items"]] == [
            first["itemId"],
            second["itemId"],
        ]
    (own,) = ok(await api.get(path, server.feature(other)))["items"]
    assert (own["itemId"], own["position"]) == (second["itemId"], 2)
    problem(await api.get(path), 401, "UNAUTHORIZED")
    problem(await api.get(path, server.viewer(first["userId"])), 403, "FORBIDDEN")
    problem(await api.get(path, server.performer(fresh("star"))), 403, "FORBIDDEN")


async def test_an_unknown_version_is_refused_clearly(api: Api, server: Server, performer_id: str) -> None:
    await api.intake(performer_id)
    for wrong in ("", "0", "-1", "one", "1.0", "9" * 20):
        refusal = problem(
            await api.get(f"{path_of(performer_id)}?version={wrong}", server.admin), 422, "VALIDATION_ERROR"
        )
        assert [each["field"] for each in refusal["errors"]] == ["version"]
    refusal = problem(await api.get(f"{path_of(performer_id)}?version=1000", server.admin), 404, "NOT_FOUND")
    assert "has not been at version 1000" in refusal["detail"]
    problem(await api.get(f"{path_of(fresh('star'))}?version=1", server.admin), 404, "PERFORMER_NOT_FOUND")
