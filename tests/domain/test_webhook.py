"""A webhook endpoint's secrets and its state when it is new."""

from typing import Any

import pytest

from app.domain.webhook import ADMINISTRATORS, Delivery, Endpoint, EndpointStatus
from tests.support.builders import NOON, moment


def endpoint(**fields: Any) -> Endpoint:
    values: dict[str, Any] = {
        "owner": "wheel",
        "name": "main",
        "url": "https://site.example/hook",
        "events": None,
        "secret": "new",
        "cursor": "0",
        "next_attempt_at": NOON,
        "created_at": NOON,
        "updated_at": NOON,
    }
    return Endpoint(**{**values, **fields})


def test_a_new_endpoint_is_active_and_has_never_failed() -> None:
    new = endpoint()
    assert (new.status, new.failures, new.secrets(NOON)) == (EndpointStatus.ACTIVE, 0, ("new",))


@pytest.mark.parametrize(("seconds", "secrets"), [(-1, ("new", "old")), (0, ("new",)), (1, ("new",))])
def test_the_previous_secret_signs_as_well_until_its_time_is_over(seconds: float, secrets: tuple[str, ...]) -> None:
    changed = endpoint(previous_secret="old", previous_secret_until=NOON)
    assert changed.secrets(moment(seconds)) == secrets


@pytest.mark.parametrize(
    "fields", [{"previous_secret": "old"}, {"previous_secret_until": moment(60)}], ids=lambda fields: next(iter(fields))
)
def test_without_a_previous_secret_and_its_end_one_secret_signs(fields: dict[str, Any]) -> None:
    assert endpoint(**fields).secrets(NOON) == ("new",)


@pytest.mark.parametrize(("problem", "is_delivered"), [(None, True), ("HTTP 500", False)])
def test_an_event_is_delivered_where_there_was_no_problem(problem: str | None, is_delivered: bool) -> None:
    attempt = Delivery(
        message_id="evt_1",
        event="queue.item.created",
        performer_id="star",
        version=1,
        at=NOON,
        milliseconds=12,
        status_code=None,
        problem=problem,
    )
    assert attempt.is_delivered is is_delivered


def test_the_owner_that_stands_for_the_administrators_is_the_one_in_stored_rows() -> None:
    assert ADMINISTRATORS == ""
