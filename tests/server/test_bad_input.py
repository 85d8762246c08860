"""Wrong request bodies, piece by piece: each is refused with its code and changes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.server import Api, Server, fresh, intake_body, nothing_changes, ok, problem

ITEMS = "/v1/queue/items"
LARGEST = 64 * 1024
MAX_DURATION = 3600
MOST_TOKENS = 2**53 - 1

TEXTS = {"idempotencyKey": 255, "sourceFeature": 64, "sourceEventId": 128, "escrowTransactionId": 128, "title": 200}
IDS = {"performerId": 64, "userId": 64}
REQUIRED = [*TEXTS, *IDS, "description", "tokens"]


async def refused(api: Api, body: dict[str, Any], field: str, code: str = "VALIDATION_ERROR") -> None:
    response = await api.post(ITEMS, api.server.admin, body)
    refusal = problem(response, 422, code)
    assert {wrong["field"].split(".")[0] for wrong in refusal["errors"]} == {field}
    assert field in refusal["detail"] or code == "INVALID_MODE"


@pytest.fixture
async def room(api: Api, performer_id: str) -> AsyncIterator[str]:
    """A room with one item; the test must not change it."""
    await api.intake(performer_id)
    async with nothing_changes(api, performer_id):
        yield performer_id


@pytest.mark.parametrize("field", REQUIRED)
async def test_a_missing_field_is_named(api: Api, room: str, field: str) -> None:
    body = intake_body(room)
    del body[field]
    await refused(api, body, field)


@pytest.mark.parametrize("field", REQUIRED)
async def test_a_field_of_the_wrong_type_is_named(api: Api, room: str, field: str) -> None:
    # An idempotencyKey of null is one that comes in the header.
    wrong = [0, -1, 1.5, 1e20, True, "", [], ["a"], {}, {"a": 1}]
    for value in [*wrong, "7"] if field == "tokens" else wrong if field == "idempotencyKey" else [*wrong, None]:
        await refused(api, intake_body(room, **{field: value}), field)


WRONG_OPTIONS: dict[str, list[Any]] = {
    "metadata": [None, 0, 1.5, True, "", "{}", [], [["a", 1]]],
    "durationSeconds": [0, -1, 1.5, 1e20, True, "", "60", [], {}],
    "queueMode": [0, 1, True, "", "ON", "On", "maybe", [], ["on"], {}],
}


async def test_an_optional_field_of_the_wrong_type_is_named(api: Api, room: str) -> None:
    for field, values in WRONG_OPTIONS.items():
        for value in values:
            code = "INVALID_MODE" if field == "queueMode" else "VALIDATION_ERROR"
            await refused(api, intake_body(room, **{field: value}), field, code)


@pytest.mark.parametrize(("field", "longest"), [*TEXTS.items(), *IDS.items(), ("description", 2000)])
async def test_a_text_may_be_just_so_long(api: Api, performer_id: str, field: str, longest: int) -> None:
    admin = api.server.admin
    # Counted in characters, whatever they take in bytes.
    letter = "x" if field in IDS else "é"
    unique = fresh("")[:8]
    body = intake_body(performer_id, **{field: unique + letter * (longest - len(unique))})
    item = ok(await api.post(ITEMS, admin, body), 201)
    assert len(item[field]) == longest
    body = intake_body(performer_id, **{field: letter * (longest + 1)})
    async with nothing_changes(api, performer_id):
        await refused(api, body, field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokens", 1),
        ("tokens", MOST_TOKENS),
        ("tokens", 1.0),
        ("durationSeconds", 1),
        ("durationSeconds", 60.0),
        ("durationSeconds", MAX_DURATION),
        ("durationSeconds", None),
        ("queueMode", None),
        ("metadata", {"a": "x" * (8192 - len('{"a":""}'))}),
    ],
)
async def test_the_last_value_within_a_bound_is_taken(api: Api, performer_id: str, field: str, value: Any) -> None:
    item = await api.intake(performer_id, **{field: value})
    assert item[field] == value or (field, item[field]) == ("queueMode", "on")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokens", MOST_TOKENS + 1),
        ("tokens", 10**400),
        ("tokens", -(10**30)),
        ("durationSeconds", MAX_DURATION + 1),
        ("durationSeconds", 10**30),
        ("metadata", {"a": "x" * (8193 - len('{"a":""}'))}),
        ("metadata", {"a": "é" * 4093}),
    ],
)
async def test_the_first_value_beyond_a_bound_is_refused(api: Api, room: str, field: str, value: Any) -> None:
    response = await api.post(ITEMS, api.server.admin, intake_body(room, **{field: value}))
    refusal = problem(response, 422, "VALIDATION_ERROR")
    # A number that JSON readers cannot hold is refused before anybody asks which field it is in.
    assert {wrong["field"] for wrong in refusal.get("errors", [])} in ({field}, set())


@pytest.mark.parametrize("field", IDS)
async def test_an_id_is_made_of_plain_characters(api: Api, room: str, field: str) -> None:
    for value in ("a b", "a/b", "a\n", "\na", "ä", "a?", "a%20", "<b>", "a,b", "٣"):
        await refused(api, intake_body(room, **{field: value}), field)


@pytest.mark.parametrize("value", ["Az09_.:-", "-", "a"])
async def test_every_plain_character_may_be_in_an_id(api: Api, performer_id: str, value: str) -> None:
    assert (await api.intake(performer_id, userId=value))["userId"] == value


async def test_every_wrong_field_is_listed_once(api: Api, room: str) -> None:
    body = intake_body(room, tokens=0, title="", queueMode="maybe", surprise=1)
    del body["userId"]
    refusal = problem(await api.post(ITEMS, api.server.admin, body), 422, "VALIDATION_ERROR")
    fields = [wrong["field"] for wrong in refusal["errors"]]
    assert sorted(fields) == ["queueMode", "surprise", "title", "tokens", "userId"]


async def test_an_unknown_field_is_refused(api: Api, room: str) -> None:
    for field in ("itemId", "status", "position", "createdAt", "settled", "performer_id", "Title", "__proto__"):
        await refused(api, {**intake_body(room), field: "value"}, field)


async def test_no_text_holds_nul(api: Api, room: str) -> None:
    for field in (*TEXTS, *IDS, "description"):
        await refused(api, intake_body(room, **{field: "a\0b"}), field)


async def test_metadata_may_hold_what_json_may_hold(api: Api, performer_id: str) -> None:
    metadata = {"": "", "nul": "\0", "deep": [[[[{}]]]], "number": 1e300, "small": -0.0}
    item = await api.intake(performer_id, metadata=metadata)
    assert ok(await api.get(f"{ITEMS}/{item['itemId']}", api.server.admin))["metadata"] == metadata


# Bodies that are not what JSON is


def with_metadata(performer_id: str, raw: str) -> bytes:
    """An intake whose metadata is this text."""
    return json.dumps(intake_body(performer_id, metadata="RAW")).replace('"RAW"', raw).encode()


NOT_STRICT_JSON = [
    '{"a": NaN}',
    '{"a": Infinity}',
    '{"a": -Infinity}',
    '{"a": 1e400}',
    '{"a": -1e999}',
    '{"a": ' + "9" * 5000 + "}",
    '{"a": "\\ud800"}',
    '{"a": "\\udc00\\ud800"}',
    '{"\\ud800": 1}',
    '{"a": 1, "a": 1}',
    '{"a": {"b": 1, "b": 2}}',
    '{"a": [[{"b": 1, "\\u0062": 2}]]}',
    "{'a': 1}",
    '{"a": 1,}',
    '{"a": 01}',
    '{"a": +1}',
    '{"a": .5}',
    '{"a": 0x10}',
    '{"a": "\x01"}',
    '{"a": tru}',
    '{"a": 1} /* why */',
    '{"a": ' + "[" * 31 + "]" * 31 + "}",
    "[" * 30_000 + "]" * 30_000,
    '{"a":' * 5_000 + "1" + "}" * 5_000,
    "[" * 20_000,
]


async def test_metadata_that_is_not_strict_and_shallow_json_is_refused(api: Api, room: str) -> None:
    for raw in NOT_STRICT_JSON:
        problem(await api.post(ITEMS, api.server.admin, content=with_metadata(room, raw)), 422, "VALIDATION_ERROR")


NO_JSON_OBJECT = [
    b"[]",
    b'"text"',
    b"1",
    b"null",
    b"true",
    b"{",
    b"{}}",
    b"{} {}",
    b"not json",
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b'{"title": "\xff"}',
    b'{"title": "\xc3\x28"}',
    b'{"title": "\xed\xa0\x80"}',
    "{}".encode("utf-16"),
    b"\0",
    b"title=a&tokens=1",
]


async def test_a_body_that_is_no_json_object_is_refused(api: Api, server: Server, room: str) -> None:
    path = f"/v1/performers/{room}/queue"
    for body in NO_JSON_OBJECT:
        problem(await api.post(ITEMS, server.admin, content=body), 422, "VALIDATION_ERROR")
        problem(await api.send("PATCH", path, server.admin, content=body), 422, "VALIDATION_ERROR")
        problem(await api.post(f"{path}/start-next", server.admin, content=body), 422, "VALIDATION_ERROR")


async def test_an_empty_body_lacks_every_field(api: Api, server: Server, room: str) -> None:
    for body in (b"", b"{}", b"  \n"):
        refusal = problem(await api.post(ITEMS, server.admin, content=body), 422, "VALIDATION_ERROR")
        assert set(REQUIRED) - {"idempotencyKey"} == {wrong["field"] for wrong in refusal["errors"]}


async def test_a_key_that_stands_twice_is_refused_wherever_it_stands(api: Api, server: Server, room: str) -> None:
    twice = json.dumps(intake_body(room))[:-1] + ', "tokens": 1}'
    problem(await api.post(ITEMS, server.admin, content=twice.encode()), 422, "VALIDATION_ERROR")


async def test_a_refusal_does_not_repeat_the_callers_values(api: Api, server: Server, room: str) -> None:
    secret = "my-card-number-4111"
    for body in (intake_body(room, tokens=secret), intake_body(room, userId=f"{secret} "), {"metadata": secret}):
        response = await api.post(ITEMS, server.admin, body)
        problem(response, 422, "VALIDATION_ERROR")
        assert secret not in response.text
        assert "pydantic" not in response.text


# Bodies that are too large


async def test_a_body_may_be_just_so_large(api: Api, server: Server, room: str) -> None:
    body = json.dumps(intake_body(room, surprise="")).encode()
    padded = body + b" " * (LARGEST - len(body))
    problem(await api.post(ITEMS, server.admin, content=padded), 422, "VALIDATION_ERROR")
    problem(await api.post(ITEMS, server.admin, content=padded + b" "), 413, "PAYLOAD_TOO_LARGE")


async def test_ten_megabytes_are_refused_by_their_length(api: Api, server: Server, room: str) -> None:
    body = json.dumps(intake_body(room, description="x" * 10_000_000)).encode()
    problem(await api.post(ITEMS, server.admin, content=body), 413, "PAYLOAD_TOO_LARGE")
    # The connection is still good for the next request.
    ok(await api.get("/healthz"))


async def test_a_body_that_does_not_say_how_large_it_is_is_cut_off(server: Server, room: str) -> None:
    """The chunked body would never end: the answer comes before its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"POST {ITEMS} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {server.admin}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n".encode()
    )
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    writer.write(chunk + chunk)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in head
    assert b"x-request-id" in head.lower()
    writer.close()


async def test_an_oversized_body_is_refused_whoever_sends_it_and_wherever(api: Api, server: Server, room: str) -> None:
    body = b"x" * (LARGEST + 1)
    for path in (ITEMS, f"/v1/performers/{room}/queue/start-next", "/v1/nothing/here"):
        problem(await api.post(path, content=body), 413, "PAYLOAD_TOO_LARGE")


# Bodies of commands


WRONG_COMMANDS: list[tuple[str, dict[str, Any]]] = [
    ("start", {"reason": "user_cancelled"}),
    ("start", {"surprise": 1}),
    ("pause", {"surprise": 1}),
    ("resume", {"surprise": 1}),
    ("complete", {"refundTokens": 0}),
    ("complete", {"refundTokens": -1}),
    ("complete", {"refundTokens": 1.5}),
    ("complete", {"refundTokens": "1"}),
    ("complete", {"refundTokens": True}),
    ("complete", {"refund_tokens": 1}),
    ("complete", {"refundTokens": 10**15}),
    ("abandon", {"reason": "bored"}),
    ("abandon", {"reason": None}),
    ("abandon", {"reason": 1}),
    ("refund", {}),
    ("refund", {"reason": "bored"}),
    ("refund", {"reason": None}),
    ("refund", {"reason": "user_cancelled", "amount": 1}),
]


async def test_a_command_with_a_wrong_body_is_refused(api: Api, server: Server, performer_id: str) -> None:
    item = await api.intake(performer_id)
    await api.start_next(performer_id)
    async with nothing_changes(api, performer_id):
        for name, body in WRONG_COMMANDS:
            response = await api.post(f"{ITEMS}/{item['itemId']}/{name}", server.performer(performer_id), body)
            refusal = problem(response, 422, "VALIDATION_ERROR")
            assert len(refusal["errors"]) == 1


WRONG_SETTINGS: list[dict[str, Any]] = [
    {"mode": 1},
    {"mode": "maybe"},
    {"accepting": "yes"},
    {"accepting": None},
    {"paused": 1},
    {"strictFifo": "true"},
    {"maxDepth": 0},
    {"maxDepth": 51},
    {"maxDepth": 1.5},
    {"maxDepth": "5"},
    {"maxDepth": True},
    {"maxPerUser": 0},
    {"maxPerUser": 1001},
    {"maxPerUser": "2"},
    {"maxPerUser": 2.5},
    {"maxWaitSeconds": 0},
    {"maxWaitSeconds": -5},
    {"maxWaitSeconds": True},
    {"maxWaitSeconds": 2**60},
    {"notifyPositions": [0]},
    {"notifyPositions": [-1]},
    {"notifyPositions": ["1"]},
    {"notifyPositions": [1.5]},
    {"notifyPositions": 3},
    {"notifyPositions": list(range(1, 200))},
    {"announcement": 5},
    {"announcement": "a\0b"},
    {"announcement": "x" * 5000},
    {"performerOnline": True},
    {"version": 1},
    {"depth": 0},
    {"max_depth": 5},
]


async def test_a_wrong_setting_is_refused_and_named(api: Api, server: Server, room: str) -> None:
    for body in WRONG_SETTINGS:
        response = await api.send("PATCH", f"/v1/performers/{room}/queue", server.performer(room), body)
        (field,) = body
        refusal = problem(response, 422, "INVALID_MODE" if field == "mode" else "VALIDATION_ERROR")
        assert {wrong["field"].split(".")[0] for wrong in refusal["errors"]} == {field}


async def test_one_wrong_setting_keeps_the_others_from_being_made(api: Api, server: Server, room: str) -> None:
    body = {"accepting": False, "maxDepth": 0}
    response = await api.send("PATCH", f"/v1/performers/{room}/queue", server.performer(room), body)
    problem(response, 422, "VALIDATION_ERROR")
