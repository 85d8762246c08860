"""The table of rights, row by row: the callers in it are allowed, and all others are not."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from app.access import rights
from app.access.auth import Principal
from app.domain.command import Role
from app.domain.errors import Forbidden
from app.domain.item import Reason
from app.domain.view import View

# The item in question was bought by `ada` through the feature `wheel`, in the room of `mira`.
PERFORMER, USER, FEATURE = "mira", "ada", "wheel"


def principal(role: Role, sub: str, performer_id: str | None = None) -> Principal:
    return Principal(role=role, sub=sub, performer_id=performer_id, expires_at=datetime(2026, 1, 31, tzinfo=UTC))


PRINCIPALS = {
    "the feature": principal(Role.FEATURE, FEATURE),
    "another feature": principal(Role.FEATURE, "dice"),
    "the owner": principal(Role.VIEWER, USER),
    "another viewer": principal(Role.VIEWER, "bob"),
    "the performer": principal(Role.PERFORMER, PERFORMER, PERFORMER),
    "another performer": principal(Role.PERFORMER, "zoe", "zoe"),
    "the moderator": principal(Role.MODERATOR, "max", PERFORMER),
    "another moderator": principal(Role.MODERATOR, "moe", "zoe"),
    "an admin": principal(Role.ADMIN, "ops"),
    # The same name in another role is another person.
    "a viewer named like the performer": principal(Role.VIEWER, PERFORMER),
    "a viewer named like the feature": principal(Role.VIEWER, FEATURE),
    "a feature named like the owner": principal(Role.FEATURE, USER),
    "a performer named like the owner": principal(Role.PERFORMER, USER, USER),
    "a performer named like the feature": principal(Role.PERFORMER, FEATURE, FEATURE),
    "a moderator named like the performer": principal(Role.MODERATOR, PERFORMER, "zoe"),
}

ROOM = {"the performer", "the moderator", "an admin"}

Action = Callable[[Principal], object]
TABLE: dict[str, tuple[Action, set[str]]] = {
    "intake": (lambda who: rights.may_intake(who, FEATURE), {"the feature", "an admin"}),
    "read an item": (
        lambda who: rights.may_read_item(who, PERFORMER, USER, FEATURE),
        {"the feature", "the owner", *ROOM},
    ),
    "drive": (lambda who: rights.may_drive(who, PERFORMER), ROOM),
    "cancel": (lambda who: rights.may_refund(who, PERFORMER, USER, Reason.USER_CANCELLED), {"the owner", *ROOM}),
    "refund": (lambda who: rights.may_refund(who, PERFORMER, USER, Reason.TECHNICAL_ERROR), ROOM),
    "read a user": (lambda who: rights.may_read_user(who, USER), {"the owner", "an admin"}),
    "read a room's events": (
        lambda who: rights.events_scope(who, PERFORMER),
        {
            *ROOM,
            # A feature gets what is its own of that room, which may be nothing.
            "the feature",
            "another feature",
            "a feature named like the owner",
        },
    ),
    "administer": (rights.may_administer, {"an admin"}),
}


@pytest.mark.parametrize("action", TABLE)
@pytest.mark.parametrize("who", PRINCIPALS)
def test_only_the_callers_in_the_table_are_allowed(action: str, who: str) -> None:
    act, allowed = TABLE[action]
    if who in allowed:
        act(PRINCIPALS[who])
    else:
        with pytest.raises(Forbidden) as caught:
            act(PRINCIPALS[who])
        assert caught.value.detail.endswith(".")


@pytest.mark.parametrize("who", PRINCIPALS)
def test_whole_items_are_shown_to_the_rooms_own_side_only(who: str) -> None:
    assert rights.view_of(PRINCIPALS[who], PERFORMER) is (View.FULL if who in ROOM else View.PUBLIC)


def test_an_anonymous_viewer_sees_the_public_shape() -> None:
    assert rights.view_of(None, PERFORMER) is View.PUBLIC


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.USER_CANCELLED])
def test_a_viewer_may_cancel_but_give_no_other_reason(reason: Reason) -> None:
    with pytest.raises(Forbidden, match="user_cancelled"):
        rights.may_refund(PRINCIPALS["the owner"], PERFORMER, USER, reason)


@pytest.mark.parametrize(
    ("who", "asked", "scope"),
    [
        ("an admin", None, (None, None)),
        ("an admin", PERFORMER, (PERFORMER, None)),
        ("the feature", None, (None, FEATURE)),
        ("the feature", PERFORMER, (PERFORMER, FEATURE)),
        ("the performer", None, (PERFORMER, None)),
        ("the performer", PERFORMER, (PERFORMER, None)),
        ("the moderator", None, (PERFORMER, None)),
    ],
)
def test_the_event_log_is_narrowed_to_what_is_ones_own(
    who: str, asked: str | None, scope: tuple[str | None, str | None]
) -> None:
    assert rights.events_scope(PRINCIPALS[who], asked) == scope


def test_a_viewer_may_not_read_the_event_log() -> None:
    with pytest.raises(Forbidden, match="Viewers"):
        rights.events_scope(PRINCIPALS["the owner"], None)
