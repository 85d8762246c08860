"""Error responses: one problem+json document (RFC 9457) for every error, named by the request's id."""

import re
from collections.abc import Iterable
from http import HTTPStatus

import uuid_utils
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from app.domain.errors import Internal, MethodNotAllowed, NotFound, QueueError
from app.wire.encoding import encode
from app.wire.shapes import WholeItem, problem

REQUEST_ID = "X-Request-ID"
REQUEST_ID_HEADER = REQUEST_ID.lower().encode()
"""The header's name in an ASGI message."""

_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The caller's own id for this request if it sent a sane one, else a new one. `headers`: of the ASGI scope."""
    for name, value in headers:
        if name == REQUEST_ID_HEADER and _SANE_REQUEST_ID.fullmatch(value):
            return value.decode()
    return str(uuid_utils.uuid7())


def problem_response(error: QueueError, item: WholeItem | None = None) -> Response:
    """The response to an error, with its headers. `item`: the one that the error is about, as its caller may see it."""
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(encode(problem(error, item)), error.status, headers, media_type="application/problem+json")


def refused_by_routing(scope: Scope, error: HTTPException) -> Response:
    """The problem document for an exception of Starlette's routing: not found, or a method that is not allowed."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        return problem_response(NotFound(f"There is nothing at {scope['path']}."))
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response = problem_response(MethodNotAllowed(f"{scope['method']} is not possible at {scope['path']}."))
        response.headers.update(error.headers or {})
        return response
    return problem_response(Internal("Something went wrong here."))
