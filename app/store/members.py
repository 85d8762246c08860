"""Members of enumerations from the texts that the tables hold."""

from enum import StrEnum
from typing import Any, TypeVar

from app.domain.command import Mode
from app.domain.event import PauseReason
from app.domain.item import Reason, Status, WalletStatus

E = TypeVar("E", bound=StrEnum)


def member(kind: type[E], text: str) -> E:
    """The member with this value. A value of a newer release becomes an unlisted member, which no code handles."""
    try:
        return kind(text)
    except ValueError:
        carried = str.__new__(kind, text)
        carried._name_, carried._value_ = text, text
        return carried


def with_item_enums(values: dict[str, Any]) -> dict[str, Any]:
    """An item's fields, with members in place of texts; changes and returns `values`."""
    values["status"] = member(Status, values["status"])
    values["wallet_status"] = member(WalletStatus, values["wallet_status"])
    for name in ("abandon_reason", "refund_reason"):
        if values[name] is not None:
            values[name] = member(Reason, values[name])
    return values


def with_settings_enums(values: dict[str, Any]) -> dict[str, Any]:
    """The settings of a room, with members in place of texts; changes and returns `values`."""
    values["mode"] = member(Mode, values["mode"])
    if values["pause_reason"] is not None:
        values["pause_reason"] = member(PauseReason, values["pause_reason"])
    return values
