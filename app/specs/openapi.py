"""The OpenAPI 3.1 document, generated from the table of operations and the models in `wire`."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from typing_extensions import is_typeddict

from app.domain.errors import (
    BadRequest,
    HeadersTooLarge,
    Internal,
    PayloadTooLarge,
    RateLimitExceeded,
    RequestTimeout,
    Unavailable,
    UriTooLong,
)
from app.domain.operation import OperationStatus
from app.specs.examples import EXAMPLES
from app.specs.operations import OPERATIONS, TAGS, Operation
from app.wire import shapes
from app.wire.commands import Refusals
from app.wire.paging import (
    DEEPEST_SKIP,
    DEFAULT_LIMIT,
    LARGEST_DELIVERIES_LIMIT,
    LARGEST_EVENTS_LIMIT,
    LARGEST_LIMIT,
    LARGEST_VERSION,
    LONGEST_SEARCH,
    MOST_PERFORMERS,
)
from app.wire.requests import IDENTIFIER_PATTERN, NO_NUL
from app.wire.schemas import Schema, components, reference

CONTRACT_VERSION = "1.1.0"
EVENT_STREAM = "text/event-stream"

INSTANT: Schema = {"type": "string", "format": "date-time"}
CURSOR: Schema = {"type": "string", "pattern": r"^[0-9]{1,18}(\.[0-9]{1,18})?$"}
IDENTIFIER: Schema = {"type": "string", "pattern": IDENTIFIER_PATTERN}


def _query(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _header(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _whole_number(least: int, most: int, default: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most, "default": default}


PARAMETERS: Mapping[str, Schema] = {
    "limit": _query("limit", "The most entries to return.", _whole_number(1, LARGEST_LIMIT, DEFAULT_LIMIT)),
    "skip": _query("skip", "Entries to leave out at the beginning.", _whole_number(0, DEEPEST_SKIP, 0)),
    "events": _query("limit", "The most events on a page.", _whole_number(1, LARGEST_EVENTS_LIMIT, DEFAULT_LIMIT)),
    "version": _query(
        "version",
        "Return the room as it was at this version, from the event log and with the rights of the event log.",
        {"type": "integer", "minimum": 1, "maximum": LARGEST_VERSION},
    ),
    "afterVersion": _query(
        "afterVersion",
        "Only events above this version of the room: `next` of the page before.",
        {"type": "integer", "minimum": 0, "maximum": LARGEST_VERSION},
    ),
    "after": _query("after", "A cursor of this log: only events after it.", CURSOR),
    "performer": _query("performerId", "Only this room's events.", IDENTIFIER),
    "performers": _query(
        "performerId",
        "Only these rooms; may be repeated.",
        {"type": "array", "items": IDENTIFIER, "maxItems": MOST_PERFORMERS},
    ),
    "lastEventId": _header("Last-Event-ID", "A stream resumes after this cursor.", CURSOR),
    "from": _query("from", "The beginning of the span; by default a day before its end.", INSTANT),
    "to": _query("to", "The end of the span; by default now.", INSTANT),
    "operationStatus": _query("status", "Only those in this status.", {"type": "string", "enum": [*OperationStatus]}),
    "operationItem": _query("itemId", "Only this item's.", IDENTIFIER),
    "search": {
        **_query(
            "q",
            "An item's id, a user's id, an escrow's id, the wallet's reference or at least six of its last characters, "
            "the id of a feature's event, or an amount of tokens.",
            {"type": "string", "minLength": 1, "maxLength": LONGEST_SEARCH},
        ),
        "required": True,
    },
    "deliveries": _query(
        "limit", "The most attempts to return.", _whole_number(1, LARGEST_DELIVERIES_LIMIT, DEFAULT_LIMIT)
    ),
    "sourceFeature": _query(
        "sourceFeature",
        "For an administrator: the feature that owns the endpoints, in place of the administrators.",
        {"type": "string", "minLength": 1, "maxLength": 64, "pattern": NO_NUL},
    ),
    "idempotencyKey": _header(
        "Idempotency-Key",
        "The same key and the same body get the first answer again; another body is refused.",
        {"type": "string", "minLength": 1, "maxLength": 255},
    ),
    "requestId": _header("X-Request-ID", "Returned in the answer and written to the log.", {"type": "string"}),
}

EVERYWHERE: Refusals = (
    BadRequest,
    RequestTimeout,
    PayloadTooLarge,
    UriTooLong,
    RateLimitExceeded,
    HeadersTooLarge,
    Internal,
    Unavailable,
)
"""Refusals that every operation can give: limits on connections, heads and bodies, and failures of the service."""

HEADERS: Mapping[str, Schema] = {
    "X-Request-ID": {"description": "The caller's, or a new one.", "required": True, "schema": {"type": "string"}},
    "Location": {"description": "The address of the new resource.", "required": True, "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "The key was known; this is the first answer.",
        "schema": {"type": "string", "const": "true"},
    },
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"description": "The scheme.", "required": True, "schema": {"type": "string"}},
}

DESCRIPTION = """\
The queue of paid interactions on a live-streaming site. Times are RFC 3339 in UTC with milliseconds, ids are opaque,
unknown fields in a body are refused. Every error is an RFC 9457 problem document; its `code` says which one it is.
The live socket is described in [asyncapi.json](/asyncapi.json)."""

TOKENS = """\
A JWT with `sub`, `role` (feature, viewer, performer, moderator, admin) and `exp`; a moderator's names the room in
`performerId`."""


def document() -> Schema:
    """The OpenAPI document."""
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Performance Queue",
            "version": CONTRACT_VERSION,
            "description": DESCRIPTION,
            "contact": {"name": "The operator of the service"},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": description} for name, description in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "parameters": dict(PARAMETERS),
            "headers": dict(HEADERS),
            "responses": dict(_SHARED),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": TOKENS}
            },
        },
    }


def _schemas() -> dict[str, Schema]:
    answers = [answer for operation in OPERATIONS for answer in operation.answers.values()]
    models = {answer for answer in answers if isinstance(answer, type) and is_typeddict(answer)}
    requests = {operation.body for operation in OPERATIONS if operation.body is not None}
    return components(answers=[*models, shapes.Problem], requests=requests)


def _operation(operation: Operation) -> Schema:
    described: Schema = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": _responses(operation),
        "security": [],
    }
    if operation.who:
        described["security"] = [{"bearer": []}, {}] if operation.public else [{"bearer": []}]
    open_to_all = " Without a token too, where `PUBLIC_ROOMS` is on." if operation.public else ""
    who = f"For {operation.who}.{open_to_all}" if operation.who else "For everybody, without a token."
    described["description"] = "\n\n".join(filter(None, (who, operation.notes)))
    if operation.body is not None:
        body: Schema = {"schema": reference(operation.body)}
        if operation.body in EXAMPLES:
            body["example"] = EXAMPLES[operation.body]
        required = any(field.is_required() for field in operation.body.model_fields.values())
        described["requestBody"] = {"required": required, "content": {"application/json": body}}
    return described


def _parameters(operation: Operation) -> list[Schema]:
    # A page is served for any id; its script shows whether the room exists.
    schema = IDENTIFIER if operation.path.startswith("/v1/") else {"type": "string"}
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    names = [*operation.parameters, *(["idempotencyKey"] if operation.method == "POST" else []), "requestId"]
    return [*in_path, *({"$ref": f"#/components/parameters/{name}"} for name in names)]


def _answer(operation: Operation, status: int) -> Schema:
    answer = operation.answers[status]
    if answer is None:
        return {"description": HTTPStatus(status).phrase, "headers": _headers(["X-Request-ID"])}
    if isinstance(answer, str):
        content: Schema = {answer: {"schema": {"type": "object" if answer.endswith("json") else "string"}}}
    else:
        content = {"application/json": {"schema": reference(answer) if is_typeddict(answer) else {"type": "object"}}}
    if operation.name == "events":
        content[EVENT_STREAM] = {"schema": {"type": "string"}}
    headers = ["X-Request-ID"]
    if status == HTTPStatus.CREATED:
        headers.append("Location")
    elif operation.method == "POST":
        headers.append("Idempotent-Replayed")
    return {"description": HTTPStatus(status).phrase, "headers": _headers(headers), "content": content}


def _responses(operation: Operation) -> dict[str, Schema]:
    """By status: the answers, and the problem documents with the codes that they can carry here."""
    responses = {str(status): _answer(operation, status) for status in operation.answers}
    for status, codes in _by_status((*operation.refuses, *EVERYWHERE)).items():
        problem = _problem(status, codes)
        if status in operation.answers:
            responses[str(status)]["content"].update(problem["content"])
        elif problem == _SHARED.get(_shared_name(status)):
            responses[str(status)] = {"$ref": f"#/components/responses/{_shared_name(status)}"}
        else:
            responses[str(status)] = problem
    return responses


def _by_status(refusals: Refusals) -> dict[int, dict[str, str]]:
    """By status, in order: the titles of the refusals by code."""
    codes: dict[int, dict[str, str]] = {}
    for refusal in sorted(refusals, key=lambda refusal: refusal.status):
        codes.setdefault(refusal.status, {})[refusal.code] = refusal.title
    return codes


def _problem(status: int, codes: Mapping[str, str]) -> Schema:
    schema = {
        "allOf": [reference(shapes.Problem)],
        "properties": {"status": {"const": status}, "code": {"enum": [*codes]}},
    }
    return {
        "description": "; ".join(f"`{code}` {title}" for code, title in codes.items()),
        "headers": _headers(["X-Request-ID", *_HEADERS_OF_STATUS.get(status, ())]),
        "content": {"application/problem+json": {"schema": schema}},
    }


def _shared_name(status: int) -> str:
    """The name of the response that every operation can give with this status: RequestTimeout for 408."""
    return "".join(word.capitalize() for word in HTTPStatus(status).name.split("_"))


_HEADERS_OF_STATUS: Mapping[int, Sequence[str]] = {
    HTTPStatus.UNAUTHORIZED: ["WWW-Authenticate"],
    HTTPStatus.TOO_MANY_REQUESTS: ["Retry-After"],
    HTTPStatus.SERVICE_UNAVAILABLE: ["Retry-After"],
}


def _headers(names: Sequence[str]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


_SHARED: Mapping[str, Schema] = {
    _shared_name(status): _problem(status, codes) for status, codes in _by_status(EVERYWHERE).items()
}
"""The responses that every operation can give."""
