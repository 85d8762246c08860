"""The OpenAPI document describes the whole service, and nothing else."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openapi_spec_validator
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.routing import Mount, Route, WebSocketRoute

from app.domain import errors
from app.main import create_app
from app.settings import Settings
from app.specs.examples import EXAMPLES
from app.specs.openapi import EVERYWHERE, document
from app.specs.operations import OPERATIONS, Operation
from app.wire.commands import COMMANDS
from app.wire.encoding import decode, encode
from app.wire.requests import Request, read
from tests.support.server import Api, Server, fresh, ok, serving

CASES = 6
"""Made-up requests an operation, valid ones and as many others."""
Json = dict[str, Any]

BEYOND_A_SCHEMA = {
    "change_settings": "maxDepth is bounded by MAX_QUEUE_DEPTH",
    "intake": "durationSeconds is bounded by MAX_DURATION_SECONDS",
    "complete": "refundTokens is less than the item has tokens",
    "wallet_check": "next is from the part before",
    "all_analytics": "from is before to, by at most 31 days",
    "analytics": "from is before to, by at most 31 days",
    "timeline": "from is before to, by at most 31 days",
    "events": "after is a cursor that this log has given",
    "register_webhook": "the URL has a host that may be called (WEBHOOK_HOSTS)",
    "disconnect_sockets": "one of two fields is given",
}
"""Operations whose valid requests JSON Schema does not tell from all others, and why: of these alone it is not asked
that every request that fits the schema is accepted."""

each_operation = pytest.mark.parametrize(
    "operation", OPERATIONS, ids=[f"{operation.method} {operation.path}" for operation in OPERATIONS]
)


@pytest.fixture(scope="module")
def described() -> Json:
    return document()


def strict(described: Json) -> Json:
    """The document for the tests, in which additional fields are errors. Callers must accept new fields."""
    copy: Json = decode(encode(described))
    for schema in copy["components"]["schemas"].values():
        if schema.get("type") == "object" and "properties" in schema:
            schema["additionalProperties"] = False
    return copy


def test_the_document_is_valid(described: Json) -> None:
    openapi_spec_validator.validate(described)


async def test_the_service_answers_with_the_document(api: Api, described: Json) -> None:
    assert ok(await api.get("/openapi.json")) == described


async def test_every_route_is_described_and_every_described_path_exists(tmp_path: Path) -> None:
    app = create_app(Settings(database_url=f"sqlite:///{tmp_path}/queue.db"))
    async with app.router.lifespan_context(app):
        routes = [route for route in app.routes if isinstance(route, Route)]
    assert len(routes) + sum(isinstance(route, Mount | WebSocketRoute) for route in app.routes) == len(app.routes)
    served = {(method, route.path) for route in routes for method in (route.methods or set()) - {"HEAD"}}
    files = {("GET", "/static/{path:path}"), ("GET", "/static/v1/protocol.d.ts")}  # no operations: the pages' own
    assert served - files == {(operation.method, operation.path) for operation in OPERATIONS}


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(names) == len(set(names))


def test_every_command_is_described_with_its_request() -> None:
    described = {(operation.method, operation.path): operation.body for operation in OPERATIONS}
    for spec in COMMANDS.values():
        assert described[spec.method, spec.path] is spec.request


@pytest.mark.parametrize(("model", "example"), EXAMPLES.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_every_example_is_a_valid_request(model: type[Request], example: Json) -> None:
    assert read(model, example).model_fields_set


def test_no_field_has_a_default_that_a_generated_client_would_demand(described: Json) -> None:
    for name, schema in described["components"]["schemas"].items():
        assert [field for field, inner in schema.get("properties", {}).items() if "default" in inner] == [], name


def test_only_operations_that_exist_are_beyond_a_schema() -> None:
    assert BEYOND_A_SCHEMA.keys() <= {operation.name for operation in OPERATIONS}


def test_every_refusal_belongs_to_an_operation() -> None:
    described = {refusal.code for operation in OPERATIONS for refusal in operation.refuses}
    defined = {
        kind.code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.QueueError) and "code" in vars(kind)
    }
    # The first belongs to methods that no operation has.
    assert defined - described - {refusal.code for refusal in EVERYWHERE} == {"METHOD_NOT_ALLOWED"}


# The service's answers


@pytest.fixture(scope="module")
def busy_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service for this file, whose requests would disturb other tests."""
    with serving(tmp_path_factory.mktemp("openapi"), user_intakes_per_minute=5) as server:
        yield server


@pytest.fixture(scope="module")
def schema(busy_server: Server, described: Json) -> Any:
    schema = schemathesis.openapi.from_dict(strict(described))
    schema.config.update(base_url=busy_server.url)
    rejection = schema.config.checks.negative_data_rejection
    rejection.expected_statuses = [*rejection.expected_statuses, "408", "413", "414", "431"]  # the bounds' refusals
    return schema


def known_ids(server: Server) -> dict[str, list[str]]:
    """Existing ids: of a new room, and of its items in every status."""

    async def fill() -> dict[str, list[str]]:
        async with server.api() as api:
            room = fresh("star")
            items = [await api.intake(room) for _ in range(6)]
            await api.command("refund", items[0], {"reason": "admin_refund"})
            await api.command("abandon", items[1])
            await api.command("complete", await api.start_next(room))
            await api.start_next(room)
            users = [items[0]["userId"], "nobody"]
            return {
                "itemId": [item["itemId"] for item in items],
                "performerId": [room, "nobody"],
                "userId": users,
            }

    return asyncio.run(fill())


@each_operation
def test_the_answers_to_valid_requests_are_described(operation: Operation, schema: Any, busy_server: Server) -> None:
    keep_to_the_document(operation, GenerationMode.POSITIVE, schema, busy_server)


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.who], ids=lambda operation: operation.name)
def test_the_answers_to_invalid_requests_are_described(operation: Operation, schema: Any, busy_server: Server) -> None:
    keep_to_the_document(operation, GenerationMode.NEGATIVE, schema, busy_server)


@each_operation
@pytest.mark.parametrize("token", ["none", "bad", "viewer"])
async def test_the_answers_to_callers_other_than_an_administrator_are_described(
    operation: Operation, token: str, api: Api, described: Json
) -> None:
    tokens = {"none": None, "bad": "x.y.z", "viewer": api.server.viewer("nosy")}
    path = re.sub(r"\{\w+\}", "none", operation.path)
    response = await api.send(operation.method, path, tokens[token])
    if operation.who and (token == "bad" or (token == "none" and not operation.public)):
        assert response.status_code == 401
    answers = described["paths"][operation.path][operation.method.lower()]["responses"]
    answer = answers[str(response.status_code)]
    if "$ref" in answer:
        answer = described["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    media = response.headers["Content-Type"].partition(";")[0]
    assert media in answer["content"]
    if media == "application/problem+json":
        assert response.json()["code"] in answer["content"][media]["schema"]["properties"]["code"]["enum"]


def keep_to_the_document(operation: Operation, mode: GenerationMode, schema: Any, busy_server: Server) -> None:
    """Send generated requests of an administrator: every status, header, media type, code and field must be described,
    and nothing may fail."""
    cases = schema[operation.path][operation.method].as_strategy(generation_mode=mode)
    known = known_ids(busy_server) if mode is GenerationMode.POSITIVE and "{" in operation.path else {}
    leave_out: list[Any] = [positive_data_acceptance] if operation.name in BEYOND_A_SCHEMA else []
    if operation.name == "events":
        # Last-Event-ID counts for a stream only.
        leave_out.append(negative_data_rejection)

    named = {parameter.name for parameter in schema[operation.path][operation.method].query}

    @settings(
        max_examples=CASES if operation.who else 1,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, data=st.data())
    def ask(case: Any, data: st.DataObject) -> None:
        for name in known.keys() & case.path_parameters.keys():
            if data.draw(st.booleans()):
                case.path_parameters[name] = data.draw(st.sampled_from(known[name]))
        if mode is GenerationMode.POSITIVE and "Idempotency-Key" in case.headers:
            # Another request's would be refused.
            case.headers["Idempotency-Key"] = fresh("key")
        if operation.name == "intake" and mode is GenerationMode.POSITIVE:
            case.body |= {"idempotencyKey": fresh("key"), "userId": "ada"}
        excluded = list(leave_out)
        if (case.query or {}).keys() - named:
            # A name in the query that no operation knows is ignored, as it is everywhere on the Web.
            excluded.append(negative_data_rejection)
        case.call_and_validate(headers={"Authorization": f"Bearer {busy_server.admin}"}, excluded_checks=excluded)

    ask()
