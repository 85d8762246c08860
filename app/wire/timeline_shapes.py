"""The JSON of a room's timeline: its events with actor, reason, quoted wait and moved tokens."""

from collections.abc import Sequence
from datetime import datetime

from typing_extensions import TypedDict

from app.domain.command import Role
from app.domain.event import Event, EventName
from app.domain.item import Item, Status, WalletStatus

# Spelt as a call because "from" is a keyword.
TimelineStep = TypedDict(
    "TimelineStep",
    {
        "version": int,
        "at": datetime,
        "event": EventName,
        "template": str | None,
        "actorRole": Role,
        "actorId": str,
        "reason": str | None,
        "itemId": str | None,
        "userId": str | None,
        "title": str | None,
        "tokens": int | None,
        "from": Status | None,
        "to": Status | None,
        "position": int,
        "toldWaitSeconds": int | None,
        "toldWaitRange": list[int] | None,
        "walletStatus": WalletStatus | None,
        "settledTokens": int | None,
        "refundedTokens": int | None,
    },
)
"""One event. `toldWaitSeconds` and `toldWaitRange` are the wait quoted to the owner on arrival; `settledTokens` and
`refundedTokens` are the item's totals, once the wallet has confirmed them."""

TimelineShape = TypedDict(
    "TimelineShape",
    {
        "performerId": str,
        "from": datetime,
        "to": datetime,
        "steps": list[TimelineStep],
        "next": int | None,
    },
)
"""`next`: the `afterVersion` of the next page; null at the end of the span."""


def timeline_step(event: Event) -> TimelineStep:
    item = event.item
    return {
        "version": event.version,
        "at": event.at,
        "event": event.name,
        "template": event.template,
        "actorRole": event.actor.role,
        "actorId": event.actor.id,
        "reason": event.reason,
        "itemId": item.item_id if item else None,
        "userId": item.user_id if item else None,
        "title": item.title if item else None,
        "tokens": item.tokens if item else None,
        "from": event.from_status,
        "to": item.status if item else None,
        "position": event.position,
        "toldWaitSeconds": _rounded(item.quoted_wait_seconds if item else None),
        "toldWaitRange": _quoted_range(item),
        "walletStatus": item.wallet_status if item else None,
        "settledTokens": item.settled_tokens if item else None,
        "refundedTokens": item.refunded_tokens if item else None,
    }


def timeline_steps(events: Sequence[Event]) -> list[TimelineStep]:
    return [timeline_step(event) for event in events]


def _rounded(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


def _quoted_range(item: Item | None) -> list[int] | None:
    if item is None or item.quoted_low_seconds is None or item.quoted_high_seconds is None:
        return None
    return [round(item.quoted_low_seconds), round(item.quoted_high_seconds)]
