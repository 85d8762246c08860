"""The compact layout of an event: only the changing fields of its item; the fixed ones are in the item's own row.

Times are milliseconds relative to the event's time. Fields with their default value, and parameters that follow from
the item, are left out. A text that begins with MARK is compact; another text is the earlier layout, the whole item as
JSON.
"""

from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any

import orjson
from msgspec import NODEFAULT
from msgspec.structs import fields

from app.domain.event import Event
from app.domain.item import STOPPED, Clock, Item
from app.store.tables import milliseconds, moment

MARK = "~"
"""The first character of a compact item; no JSON text begins with it."""
WHOLE_PARAMS = "="
"""The first character of parameters that are stored whole."""
FIXED = (
    "item_id",
    "performer_id",
    "user_id",
    "source_feature",
    "source_event_id",
    "escrow_transaction_id",
    "idempotency_key",
    "tokens",
    "title",
    "description",
    "duration_seconds",
    "metadata",
    "queue_mode",
    "pass_through_mode",
    "created_at",
    "quoted_wait_seconds",
    "quoted_position",
    "quoted_low_seconds",
    "quoted_high_seconds",
)
"""The fields of an item that never change once it is queued."""
PREFIX = "of_"
"""The prefix of the item's FIXED columns in a row that joins an event with its item."""
SHORT_NAMES: Mapping[str, str] = {
    "updated_at": "u",
    "paused": "p",
    "started_at": "s",
    "finished_at": "f",
    "abandoned_at": "a",
    "refunded_at": "r",
    "abandon_reason": "ar",
    "refund_reason": "rr",
    "wallet_status": "w",
    "settled": "d",
    "settled_at": "da",
    "settlement_transaction_id": "dt",
    "settled_tokens": "dn",
    "refunded_tokens": "rn",
    "refund_transaction_id": "rt",
    "clock": "c",
    "notified": "n",
}
"""The stored names of fields. A field that is not listed is stored under its own name."""
_LONG_NAMES = {short: name for name, short in SHORT_NAMES.items()}
# The status has its own column, and `updated_at` is nearly always the event's own time.
_CHANGING = tuple(field for field in fields(Item) if field.name not in (*FIXED, "status", "updated_at"))
_CHANGING_NAMES = tuple(field.name for field in _CHANGING)
_DEFAULTS = tuple(field.default for field in _CHANGING)
assert NODEFAULT not in _DEFAULTS, "a field of an item that can change has a default"  # noqa: S101
_values_of = attrgetter(*_CHANGING_NAMES)


def compact_item(item: Item, at: datetime) -> str:
    """The item after an event at this time: MARK and a JSON object, or MARK alone if every field has its default."""
    changed: dict[str, Any] = {}
    for name, value, default in zip(_CHANGING_NAMES, _values_of(item), _DEFAULTS, strict=True):
        if value != default:
            changed[SHORT_NAMES.get(name, name)] = _laid_out(value, at)
    if item.updated_at != at:
        changed[SHORT_NAMES["updated_at"]] = _laid_out(item.updated_at, at)
    return MARK + orjson.dumps(changed).decode() if changed else MARK


def _laid_out(value: Any, at: datetime) -> Any:
    if isinstance(value, datetime):
        return milliseconds(value) - milliseconds(at)
    if isinstance(value, Clock):
        return [value.used_seconds, value.since and milliseconds(value.since) - milliseconds(at)]
    return value


def stored(text: str) -> dict[str, Any]:
    """The fields of a compact item, by short names."""
    return orjson.loads(text[len(MARK) :]) if len(text) > len(MARK) else {}


def changing_values(text: str, at: datetime) -> dict[str, Any]:
    """The fields of a compact item except the status, as plain values. Fields of a newer release are ignored."""
    changed: dict[str, Any] = {"updated_at": at}
    base = milliseconds(at)
    for short, value in stored(text).items():
        name = _LONG_NAMES.get(short, short)
        if name == "clock":
            used, since = value
            changed[name] = (
                STOPPED
                if value == [0.0, None]
                else Clock(used_seconds=used, since=None if since is None else moment(base + since))
            )
        elif name == "notified":
            changed[name] = tuple(value)
        elif name == "updated_at" or (name.endswith("_at") and name in _CHANGING_NAMES):
            changed[name] = moment(base + value)
        elif name in _CHANGING_NAMES:
            changed[name] = value
    return changed


def compact_params(event: Event, item: Item) -> str:
    """The parameters that do not follow from the item, as JSON; empty if there are none."""
    params = dict(event.params)
    derived = derived_params(item.title, item.tokens, item.source_feature, event.position)
    if list(params.items())[: len(derived)] != list(derived.items()):
        return WHOLE_PARAMS + orjson.dumps(params).decode()
    rest = {name: value for name, value in params.items() if name not in derived}
    return orjson.dumps(rest).decode() if rest else ""


def expanded_params(text: str, derived: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `compact_params`. `derived`: the parameters that follow from the item."""
    if text.startswith(WHOLE_PARAMS):
        params: dict[str, Any] = orjson.loads(text[len(WHOLE_PARAMS) :])
        return params
    return {**derived, **(orjson.loads(text) if text else {})}


def derived_params(title: str, tokens: int, source_feature: str, position: int) -> dict[str, Any]:
    """The parameters that follow from the item and its position, in the order in which `recorder` writes them."""
    return {"title": title, "tokens": tokens, "sourceFeature": source_feature, "position": position}
