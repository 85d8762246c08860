"""The exception classes against the contract's codes, and against the tree in their docstring."""

import re
from itertools import combinations

import pytest

from app.domain import errors
from app.domain.errors import Conflict, FieldError, QueueError, QueueFull

# The contract's list of codes.
EXPECTED = {
    "VALIDATION_ERROR": 422,
    "DUPLICATE_IDEMPOTENCY_KEY": 422,
    "ESCROW_ALREADY_QUEUED": 409,
    "ESCROW_NOT_FOUND": 422,
    "QUEUE_FULL": 409,
    "USER_LIMIT_REACHED": 409,
    "QUEUE_CLOSED": 409,
    "QUEUE_EMPTY": 409,
    "ITEM_NOT_FOUND": 404,
    "PERFORMER_NOT_FOUND": 404,
    "INVALID_STATE_TRANSITION": 409,
    "ALREADY_PROCESSING": 409,
    "OUT_OF_ORDER": 409,
    "INVALID_MODE": 422,
    "RATE_LIMIT_EXCEEDED": 429,
    "PAYLOAD_TOO_LARGE": 413,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "UNAVAILABLE": 503,
    "INTERNAL": 500,
    # Beside the contract's: for bytes that never reach an endpoint.
    "BAD_REQUEST": 400,
    "REQUEST_TIMEOUT": 408,
    "URI_TOO_LONG": 414,
    "HEADERS_TOO_LARGE": 431,
}


def descendants(of: type[QueueError]) -> list[type[QueueError]]:
    return [cls for child in of.__subclasses__() for cls in (child, *descendants(child))]


def public() -> list[type[QueueError]]:
    """The public exception classes of the module."""
    return [cls for cls in descendants(QueueError) if cls.__module__ == errors.__name__ and cls is not Conflict]


def test_the_codes_and_their_statuses_are_exactly_the_contracts() -> None:
    assert {cls.code: cls.status for cls in public()} == EXPECTED


def test_two_classes_share_a_code_only_where_one_refines_the_other() -> None:
    for one, other in combinations(public(), 2):
        if one.code == other.code or one.title == other.title:
            assert issubclass(other, one)
            assert (one.code, one.status, one.title) == (other.code, other.status, other.title)


def test_the_tree_drawn_in_the_docstring_is_the_tree_of_the_code() -> None:
    drawn: dict[str, tuple[str, int | None, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([│├└─ ]*)(\w+)(?: +(\d{3}) (?:([A-Z_]+)|\(abstract))?", line):
            branches, name, status, code = found.groups()
            path = [*path[: len(branches) // 4], name]
            drawn[name] = (path[-2] if len(path) > 1 else "Exception", int(status) if status else None, code)
    real: dict[str, tuple[str, int | None, str | None]] = {}
    for cls in public():
        parent = cls.__base__
        assert parent is not None
        real[cls.__name__] = (parent.__name__, cls.status, cls.code)
    real["Conflict"] = ("QueueError", 409, None)
    assert drawn == {"QueueError": ("Exception", None, None), **real}


def test_a_refusal_carries_what_helps_the_caller() -> None:
    problem = FieldError("durationSeconds", "must be at least 1")
    refusal = QueueFull("Full.", errors=[problem], retry_after_seconds=5, item_id="i-1")
    assert str(refusal) == refusal.detail == "Full."
    assert refusal.errors == (problem,)
    assert refusal.retry_after_seconds == 5
    assert refusal.item_id == "i-1"


def test_a_refusal_says_no_more_than_it_was_given() -> None:
    refusal = QueueFull("Full.")
    assert (refusal.errors, refusal.retry_after_seconds, refusal.item_id) == ((), None, None)


@pytest.mark.parametrize("cls", public(), ids=lambda cls: cls.__name__)
def test_every_refusal_can_be_caught_as_one_kind(cls: type[QueueError]) -> None:
    with pytest.raises(QueueError):
        raise cls("Refused.")
