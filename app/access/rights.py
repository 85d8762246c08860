"""Authorization: the table of rights, one function for each row.

A function returns if the action is allowed, and raises Forbidden with the reason as a sentence if it is not. `auth` has
verified the principal before; `domain.decision` checks the state of the room afterwards. Nothing is looked up here.
"""

from app.access.auth import Principal
from app.domain.command import Role
from app.domain.errors import Forbidden
from app.domain.item import Reason
from app.domain.view import View


def may_intake(principal: Principal, source_feature: str) -> None:
    if principal.role is Role.ADMIN or _is_feature(principal, source_feature):
        return
    if principal.role is Role.FEATURE:
        raise Forbidden("A feature may only queue items of its own sourceFeature.")
    raise Forbidden("Only features may queue items.")


def may_read_item(principal: Principal, performer_id: str, user_id: str, source_feature: str) -> None:
    if _runs_room(principal, performer_id) or _is_viewer(principal, user_id) or _is_feature(principal, source_feature):
        return
    raise Forbidden("This item belongs to somebody else.")


def view_of(principal: Principal | None, performer_id: str) -> View:
    """The view of a room that a caller gets. None: an anonymous viewer."""
    return View.FULL if principal is not None and _runs_room(principal, performer_id) else View.PUBLIC


def may_drive(principal: Principal, performer_id: str) -> None:
    """Start, complete, abandon, pause and resume; the room's settings, history and analytics."""
    if _runs_room(principal, performer_id):
        return
    if principal.performer_id is not None:
        raise Forbidden("This is another performer's room.")
    raise Forbidden("Only the performer, a moderator of the room or an administrator may do this.")


def may_refund(principal: Principal, performer_id: str, user_id: str, reason: Reason) -> None:
    """A viewer may cancel only a waiting item; that is checked by `domain.decision`."""
    if principal.role is not Role.VIEWER:
        may_drive(principal, performer_id)
    elif not _is_viewer(principal, user_id):
        raise Forbidden("This item belongs to somebody else.")
    elif reason is not Reason.USER_CANCELLED:
        raise Forbidden("A viewer may only cancel: the reason must be user_cancelled.")


def may_read_user(principal: Principal, user_id: str) -> None:
    if principal.role is Role.ADMIN or _is_viewer(principal, user_id):
        return
    raise Forbidden("Only the user or an administrator may read a user's history.")


def webhook_owner(principal: Principal, source_feature: str | None, *, everybody: bool = False) -> str | None:
    """The feature whose webhook endpoints a request is about: a feature's own, or the one that an administrator names.

    For an administrator who names none: "" for the administrators' own endpoints, None with `everybody` for all.
    """
    if principal.role is Role.ADMIN:
        return source_feature if source_feature is not None or everybody else ""
    if principal.role is not Role.FEATURE:
        raise Forbidden("Only a feature or an administrator may have webhooks.")
    if source_feature not in (None, principal.sub):
        raise Forbidden("A feature may only manage its own webhooks.")
    return principal.sub


def push_user(principal: Principal) -> str:
    """The user whose push subscriptions a request is about: their own."""
    if principal.role is not Role.VIEWER:
        raise Forbidden("Only a viewer has push subscriptions.")
    return principal.sub


def events_scope(principal: Principal, performer_id: str | None) -> tuple[str | None, str | None]:
    """The (performer_id, source_feature) that the event log is narrowed to; None does not narrow.

    `performer_id` is the room that was asked for, None if none was.
    """
    match principal.role:
        case Role.ADMIN:
            return performer_id, None
        case Role.FEATURE:
            return performer_id, principal.sub
        case Role.PERFORMER | Role.MODERATOR if performer_id in (None, principal.performer_id):
            return principal.performer_id, None
        case Role.PERFORMER | Role.MODERATOR:
            raise Forbidden("This is another performer's room.")
        case _:
            raise Forbidden("Viewers may not read the event log.")


def may_administer(principal: Principal) -> None:
    if principal.role is not Role.ADMIN:
        raise Forbidden("Only administrators may do this.")


def _runs_room(principal: Principal, performer_id: str) -> bool:
    return principal.role is Role.ADMIN or principal.performer_id == performer_id


def _is_feature(principal: Principal, source_feature: str) -> bool:
    return principal.role is Role.FEATURE and principal.sub == source_feature


def _is_viewer(principal: Principal, user_id: str) -> bool:
    return principal.role is Role.VIEWER and principal.sub == user_id
