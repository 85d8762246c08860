"""The AsyncAPI document describes the live socket: every frame that is sent has a described form."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.specs.asyncapi import SERVER_FRAMES, document
from app.wire.client_frames import CLIENT_FRAMES
from app.wire.commands import COMMANDS
from app.wire.encoding import decode, encode
from tests.support.live_socket import LiveSocket
from tests.support.server import Api, Server, ok

Json = dict[str, Any]


@pytest.fixture(scope="module")
def described() -> Json:
    return document()


@pytest.fixture(scope="module")
def strict(described: Json) -> Json:
    """The document for the tests, in which additional fields are errors. Clients must accept new fields."""
    copy: Json = decode(encode(described))
    for schema in copy["components"]["schemas"].values():
        if schema.get("type") == "object" and "properties" in schema:
            schema["additionalProperties"] = False
    return copy


def problems(strict: Json, frame: Json) -> list[str]:
    """The parts of a frame that violate its message's schema."""
    payload = strict["components"]["messages"][frame["type"]]["payload"]
    checker = Draft202012Validator.FORMAT_CHECKER
    validator = Draft202012Validator({**payload, "components": strict["components"]}, format_checker=checker)
    return [f"{frame['type']}: {error.message} at {error.json_path}" for error in validator.iter_errors(frame)]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_somewhere(described: Json) -> None:
    for reference in references(described):
        target: Any = described
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


async def test_the_service_answers_with_the_document(api: Api, described: Json) -> None:
    assert ok(await api.get("/asyncapi.json")) == described


def test_every_message_of_the_channel_belongs_to_an_operation(described: Json) -> None:
    used = {
        reference["$ref"].rpartition("/")[2]
        for operation in described["operations"].values()
        for reference in operation["messages"]
    }
    assert used == set(described["channels"]["live"]["messages"]) == set(described["components"]["messages"])


def test_every_frame_that_a_client_may_send_is_described(described: Json) -> None:
    assert set(CLIENT_FRAMES) | set(SERVER_FRAMES) == set(described["components"]["messages"])
    assert COMMANDS.keys() < CLIENT_FRAMES.keys()


def test_every_code_that_a_connection_is_closed_with_is_described(described: Json) -> None:
    codes = described["channels"]["live"]["x-close-codes"]
    assert {int(code) for code in codes} == {1012, 1013, 4000, 4002, 4003, 4500, 4501, 4503, 4504, 4529}
    assert all(meaning.endswith(".") for meaning in codes.values())


async def play(api: Api, server: Server, performer_id: str, live: LiveSocket) -> None:
    """Make every kind of event in a room once, with commands over the performer's socket."""

    async def done(name: str, **fields: Any) -> Json:
        answer = await live.command(name, **fields)
        assert answer["type"] == "ack", answer
        return answer

    items = [(await api.intake(performer_id, userId="ada", durationSeconds=30))["itemId"] for _ in range(4)]
    await done("start-next")
    await done("pause", itemId=items[0])
    await done("resume", itemId=items[0])
    await done("complete", itemId=items[0], refundTokens=1)
    await done("start", itemId=items[2])
    await done("abandon", itemId=items[2], reason="technical_error")
    await done("refund", itemId=items[1], reason="admin_refund")
    await done("settings", announcement="Back soon", paused=True, maxDepth=5, notifyPositions=[1])
    await done("settings", mode="off")
    await api.intake(performer_id, queueMode="off")
    for refused in (
        await live.command("start", itemId="none"),
        await live.command("complete", itemId=items[3]),
        await live.command("abandon", itemId=items[3], reason="bored"),
        await live.command("start-next", surprise=1),
    ):
        assert refused["type"] == "error"
    await live.send({"type": "resync"})
    await live.settled()


async def test_every_frame_that_a_socket_sends_is_described(
    api: Api, server: Server, performer_id: str, strict: Json
) -> None:
    async with (
        server.live(performer_id) as anybody,
        server.live(performer_id, server.viewer("ada")) as owner,
        server.live(performer_id, server.performer(performer_id)) as performer,
        server.live(performer_id, server.admin) as admin,
    ):
        await anybody.until("snapshot")
        point = f"?epoch={anybody.epoch}&since={anybody.version}"
        await play(api, server, performer_id, performer)
        version = await api.version(performer_id)
        everyone = [anybody, owner, performer, admin]
        # Viewers are sent nothing of what moves money alone, and stay behind it.
        for live in (performer, admin):
            await live.reach(version)
        await anybody.auth(server.viewer("ada"))
        assert (await anybody.command("start-next"))["type"] == "error"
        async with server.live(performer_id, query=point) as back:
            assert (await back.until("update"))["recovered"]
            for live in [*everyone, back]:
                await live.settled()
            sent_frames = [frame for live in [*everyone, back] for frame in live.frames]
    assert [problem for frame in sent_frames for problem in problems(strict, frame)] == []
    assert {frame["type"] for frame in sent_frames} == SERVER_FRAMES.keys()


def test_the_strict_schemas_notice_additional_fields(strict: Json) -> None:
    pong = {"type": "pong", "serverTime": "2026-01-31T12:00:00.000Z"}
    assert problems(strict, pong) == []
    assert problems(strict, {**pong, "userId": "ada"})
    assert problems(strict, {**pong, "serverTime": "yesterday"})
    assert problems(strict, {"type": "pong"})


FRAMES: list[tuple[Json, bool]] = [
    ({"type": "ping"}, True),
    ({"type": "ping", "id": "1"}, True),
    ({"type": "resync", "why": "because"}, False),
    ({"type": "auth", "token": "a.b.c"}, True),
    ({"type": "auth"}, False),
    ({"type": "start", "id": "1", "itemId": "a"}, True),
    ({"type": "start", "itemId": "a"}, False),
    ({"type": "start", "id": "1"}, False),
    ({"type": "start", "id": "1", "itemId": "a", "reason": "timeout"}, False),
    ({"type": "start-next", "id": "1"}, True),
    ({"type": "start-next", "id": ""}, False),
    ({"type": "complete", "id": "1", "itemId": "a", "refundTokens": 5}, True),
    ({"type": "complete", "id": "1", "itemId": "a", "refundTokens": 0}, False),
    ({"type": "refund", "id": "1", "itemId": "a"}, False),
    ({"type": "refund", "id": "1", "itemId": "a", "reason": "admin_refund"}, True),
    ({"type": "settings", "id": "1", "paused": True, "announcement": None}, True),
    ({"type": "settings", "id": "1", "paused": "yes"}, False),
    ({"type": "settings", "id": "1", "itemId": "a"}, False),
]


@pytest.mark.parametrize(("frame", "is_valid"), FRAMES)
def test_the_schema_accepts_exactly_the_frames_that_the_server_accepts(
    strict: Json, frame: Json, is_valid: bool
) -> None:
    assert (problems(strict, frame) == []) is is_valid


async def test_the_socket_refuses_frames_that_the_document_does_not_describe(server: Server, performer_id: str) -> None:
    async with server.live(performer_id, server.performer(performer_id)) as live:
        await live.until("snapshot")
        for frame, is_valid in FRAMES:
            if is_valid or frame["type"] == "auth":
                continue
            await live.send(frame)
            refusal = await live.until("error")
            assert refusal["code"] == "VALIDATION_ERROR"
