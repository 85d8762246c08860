"""The table of rights, checked for every route and every role; and invalid tokens."""

import base64
import json
import time
from dataclasses import dataclass
from typing import Any

import httpx2
import jwt
import pytest

from tests.support.server import Api, Json, Server, fresh, intake_body, nothing_changes, ok, problem

ITEMS = "/v1/queue/items"

WHO = (
    "nobody",
    "its feature",
    "another feature",
    "its user",
    "another user",
    "its performer",
    "another performer",
    "its moderator",
    "another moderator",
    "an admin",
    # The same name in another role is somebody else.
    "a user named like the performer",
    "a feature named like the user",
    "a performer named like the user",
)
ROOM = {"its performer", "its moderator", "an admin"}
READERS = ROOM | {"its feature", "its user"}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An item in a room, and a token of every kind of caller."""

    api: Api
    performer_id: str
    item: Json

    def token(self, who: str) -> str | None:
        server, user = self.api.server, self.item["userId"]
        return {
            "nobody": None,
            "its feature": server.feature(),
            "another feature": server.feature("dice"),
            "its user": server.viewer(user),
            "another user": server.viewer("somebody-else"),
            "its performer": server.performer(self.performer_id),
            "another performer": server.performer("another-star"),
            "its moderator": server.token("moderator", "max", self.performer_id),
            "another moderator": server.token("moderator", "max", "another-star"),
            "an admin": server.admin,
            "a user named like the performer": server.viewer(self.performer_id),
            "a feature named like the user": server.feature(user),
            "a performer named like the user": server.performer(user),
        }[who]

    async def ask(self, method: str, path: str, who: str, body: Any = None) -> httpx2.Response:
        filled = path.format(item=self.item["itemId"], performer_id=self.performer_id, user=self.item["userId"])
        return await self.api.send(method, filled, self.token(who), body)

    async def everybody_but(self, allowed: set[str], method: str, path: str, body: Any = None) -> None:
        """Check that all callers without the right are refused: with 401 without a token, with 403 otherwise."""
        async with nothing_changes(self.api, self.performer_id):
            for who in WHO:
                if who not in allowed:
                    response = await self.ask(method, path, who, body)
                    assert response.status_code in (401, 403), who
                    problem(response, *((401, "UNAUTHORIZED") if who == "nobody" else (403, "FORBIDDEN")))


@pytest.fixture
async def scene(api: Api, performer_id: str) -> Scene:
    return Scene(api=api, performer_id=performer_id, item=await api.intake(performer_id))


# Reading

READS: dict[str, set[str]] = {
    f"{ITEMS}/{{item}}": READERS,
    f"{ITEMS}/{{item}}/position": READERS,
    f"{ITEMS}/{{item}}/transitions": READERS,
    "/v1/performers/{performer_id}/queue": set(WHO),
    "/v1/performers/{performer_id}/queue/depth": set(WHO),
    "/v1/performers/{performer_id}/queue/outlook": set(WHO),
    "/v1/performers/{performer_id}/queue/history": ROOM,
    "/v1/users/{user}/queue/items": {"its user", "an admin"},
    "/v1/events?performerId={performer_id}": ROOM | {"its feature", "another feature", "a feature named like the user"},
    "/v1/admin/rooms": {"an admin"},
    "/v1/admin/audiences": {"an admin"},
    "/v1/admin/items?q=100": {"an admin"},
    "/v1/admin/wallet-operations": {"an admin"},
    "/healthz": set(WHO),
    "/readyz": set(WHO),
}


@pytest.mark.parametrize("path", READS)
async def test_only_the_callers_in_the_table_may_read(scene: Scene, path: str) -> None:
    for who in READS[path]:
        ok(await scene.ask("GET", path, who))
    await scene.everybody_but(READS[path], "GET", path)


# Commands: whoever is allowed does it in a room of their own.

COMMANDS: dict[str, tuple[Json | None, set[str]]] = {
    "start": (None, ROOM),
    "complete": (None, ROOM),
    "abandon": (None, ROOM),
    "refund": ({"reason": "technical_error"}, ROOM),
    "pause": (None, ROOM),
    "resume": (None, ROOM),
}


@pytest.mark.parametrize("name", COMMANDS)
async def test_only_the_callers_in_the_table_may_send_commands(scene: Scene, name: str) -> None:
    body, allowed = COMMANDS[name]
    path = f"{ITEMS}/{{item}}/{name}"
    await scene.everybody_but(allowed, "POST", path, body)
    for who in allowed:
        # Refused or done: but not for want of a right.
        assert (await scene.ask("POST", path, who, body)).status_code in (200, 409), who


async def test_a_user_may_cancel_their_own_item_and_no_more(scene: Scene) -> None:
    path = f"{ITEMS}/{{item}}/refund"
    await scene.everybody_but(ROOM | {"its user"}, "POST", path, {"reason": "user_cancelled"})
    for reason in ("performer_declined", "timeout", "technical_error", "admin_refund", "performer_disconnected"):
        problem(await scene.ask("POST", path, "its user", {"reason": reason}), 403, "FORBIDDEN")
    assert ok(await scene.ask("POST", path, "its user", {"reason": "user_cancelled"}))["status"] == "refunded"


async def test_only_the_callers_in_the_table_may_change_the_room(scene: Scene) -> None:
    path = "/v1/performers/{performer_id}/queue"
    await scene.everybody_but(ROOM, "PATCH", path, {"announcement": "Hello"})
    await scene.everybody_but(ROOM, "POST", f"{path}/start-next")
    for who in ROOM:
        ok(await scene.ask("PATCH", path, who, {"announcement": who}))
        assert (await scene.ask("POST", f"{path}/start-next", who)).status_code in (200, 409)


async def test_only_its_own_feature_and_an_admin_may_queue_an_item(scene: Scene) -> None:
    allowed = {"its feature", "an admin"}
    await scene.everybody_but(allowed, "POST", ITEMS, intake_body(scene.performer_id))
    for who in allowed:
        ok(await scene.ask("POST", ITEMS, who, intake_body(scene.performer_id)), 201)


async def test_a_refusal_does_not_show_an_item_to_a_caller_who_may_not_see_it(scene: Scene) -> None:
    await scene.api.command("start", scene.item)
    other = await scene.api.intake(scene.performer_id)
    path = f"{ITEMS}/{other['itemId']}/start"
    refusal = problem(await scene.api.post(path, scene.token("its moderator")), 409, "ALREADY_PROCESSING")
    assert refusal["item"]["itemId"] == scene.item["itemId"]
    for who in ("its user", "its feature", "another performer"):
        response = await scene.api.post(path, scene.token(who))
        problem(response, 403, "FORBIDDEN")
        assert scene.item["escrowTransactionId"] not in response.text


async def test_a_feature_reads_its_own_events_only(scene: Scene) -> None:
    path = "/v1/events?performerId={performer_id}"
    (event,) = ok(await scene.ask("GET", path, "its feature"))["events"]
    assert event["item"] == scene.item
    assert ok(await scene.ask("GET", path, "another feature"))["events"] == []


async def test_a_performer_reads_the_own_rooms_events_only(scene: Scene) -> None:
    for who in ("its performer", "its moderator"):
        events = ok(await scene.ask("GET", "/v1/events", who))["events"]
        assert [event["performerId"] for event in events] == [scene.performer_id]
    problem(await scene.ask("GET", "/v1/events?performerId={performer_id}", "another performer"), 403, "FORBIDDEN")


# Tokens that are no good


def altered(token: str, **claims: Any) -> str:
    """A token with other claims under the old signature."""
    head, payload, signature = token.split(".")
    padded = payload + "=" * (-len(payload) % 4)
    changed = {**json.loads(base64.urlsafe_b64decode(padded)), **claims}
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b'=').decode()}.{signature}"


def bad_tokens(server: Server, performer_id: str) -> dict[str, str]:
    claims = {"sub": performer_id, "role": "performer", "exp": int(time.time()) + 600}
    secret = server.settings.auth_secret
    return {
        "not a token": "let-me-in",
        "three dots": "...",
        "expired": jwt.encode({**claims, "exp": int(time.time()) - 60}, secret),
        "another key": jwt.encode(claims, "another-key-that-is-long-enough-too!"),
        "alg none": jwt.encode(claims, "", algorithm="none"),
        "another algorithm": jwt.encode(claims, secret, algorithm="HS512"),
        "promoted": altered(server.viewer(performer_id), role="admin"),
        "moved": altered(server.performer("another-star"), sub=performer_id),
        "no exp": jwt.encode({"sub": performer_id, "role": "performer"}, secret),
        "no sub": jwt.encode({"role": "performer", "exp": claims["exp"]}, secret),
        "no role": jwt.encode({"sub": performer_id, "exp": claims["exp"]}, secret),
        "unknown role": jwt.encode({**claims, "role": "king"}, secret),
        "the service's own role": jwt.encode({**claims, "role": "system"}, secret),
        "a moderator of nothing": jwt.encode({**claims, "role": "moderator"}, secret),
        "exp is NaN": jwt.encode({**claims, "exp": float("nan")}, secret),
        "too long": "x" * 8193,
        "cut short": server.performer(performer_id)[:-4],
    }


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_an_invalid_token_is_refused_everywhere(scene: Scene) -> None:
    api, performer_id = scene.api, scene.performer_id
    room, item = f"/v1/performers/{performer_id}/queue", f"{ITEMS}/{scene.item['itemId']}"
    async with nothing_changes(api, performer_id):
        for name, token in bad_tokens(api.server, performer_id).items():
            for method, path, body in (
                ("POST", ITEMS, intake_body(performer_id)),
                ("GET", item, None),
                ("POST", f"{item}/start", None),
                ("POST", f"{room}/start-next", None),
                ("PATCH", room, {"accepting": False}),
                ("GET", f"{room}/history", None),
                ("GET", "/v1/events", None),
                ("GET", "/v1/admin/rooms", None),
                # A bad token is refused even where none is needed.
                ("GET", room, None),
                ("GET", f"{room}/depth", None),
            ):
                response = await api.send(method, path, token, body)
                assert response.status_code == 401, name
                problem(response, 401, "UNAUTHORIZED")
                assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "Bearer", "Token abc", "", "Bearer a b c"])
async def test_an_authorization_that_is_no_bearer_token_is_refused(scene: Scene, header: str) -> None:
    for path in (f"{ITEMS}/{scene.item['itemId']}", f"/v1/performers/{scene.performer_id}/queue"):
        response = await scene.api.send("GET", path, headers={"Authorization": header})
        problem(response, 401, "UNAUTHORIZED")


async def test_the_scheme_of_the_header_may_be_spelt_in_any_case(scene: Scene) -> None:
    path = f"{ITEMS}/{scene.item['itemId']}"
    for scheme in ("bearer", "BEARER", "Bearer"):
        ok(await scene.api.send("GET", path, headers={"Authorization": f"{scheme} {scene.api.server.admin}"}))


async def test_a_token_in_the_query_is_not_looked_at(scene: Scene) -> None:
    path = f"{ITEMS}/{scene.item['itemId']}?token={scene.api.server.admin}"
    problem(await scene.api.get(path), 401, "UNAUTHORIZED")


async def test_an_unknown_caller_is_refused_before_the_body_is_read(api: Api, performer_id: str) -> None:
    problem(await api.post(ITEMS, None, content=b"not json"), 401, "UNAUTHORIZED")
    problem(await api.post(f"{ITEMS}/{fresh('item')}/start"), 401, "UNAUTHORIZED")
    problem(
        await api.send("PATCH", f"/v1/performers/{performer_id}/queue", None, {"mode": "maybe"}), 401, "UNAUTHORIZED"
    )
