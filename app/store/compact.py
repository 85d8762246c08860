"""The compact layout of an event: only the changing fields of its item; the others are in the item's own row.

A compact item is MARK, the letters of the fields SET_ONCE that have a value by then, and a JSON object of the other
changing fields. Times are milliseconds relative to the event's time. Fields with their default value, and parameters
that follow from the item, are left out. A text that does not begin with MARK is the earlier layout, the whole item as
JSON.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any

import orjson
from msgspec import NODEFAULT
from msgspec.structs import fields
from sqlalchemy import RowMapping

from app.domain.event import Event
from app.domain.item import STOPPED, Clock, Item
from app.store.tables import milliseconds, moment, moment_or_none

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
SET_ONCE: Mapping[str, str] = {
    "started_at": "s",
    "finished_at": "f",
    "abandoned_at": "a",
    "refunded_at": "r",
    "settled": "d",
    "settled_at": "t",
    "settlement_transaction_id": "i",
    "settled_tokens": "n",
    "refunded_tokens": "m",
    "refund_transaction_id": "j",
}
"""The fields of an item that never change once they have a value, with their letters: the value is in the item's row.
Saves 5 % of the bytes of an item on PostgreSQL, 7 % on SQLite (`python -m tests.bench --only disk`). Earlier compact
items have the values in their JSON."""
ITEM_EVENT = "queue.item."
"""The first part of the names of all events of items. It is not stored with a compact item, which saves 3 % of the
bytes of an item (`python -m tests.bench --only disk`). Earlier compact rows have whole names."""
PREFIX = "of_"
"""The prefix of the item's columns in a row that joins an event with its item: those of FIXED and of SET_ONCE."""
_OF_LETTER = {letter: (name, PREFIX + name, name.endswith("_at")) for name, letter in SET_ONCE.items()}
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
    """The item after an event at this time. Its row must have the same values of the fields SET_ONCE."""
    letters = MARK
    changed: dict[str, Any] = {}
    for name, value, default in zip(_CHANGING_NAMES, _values_of(item), _DEFAULTS, strict=True):
        if value != default:
            if name in SET_ONCE:
                letters += SET_ONCE[name]
            else:
                changed[SHORT_NAMES.get(name, name)] = _laid_out(value, at)
    if item.updated_at != at:
        changed[SHORT_NAMES["updated_at"]] = _laid_out(item.updated_at, at)
    return letters + orjson.dumps(changed).decode() if changed else letters


def _laid_out(value: Any, at: datetime) -> Any:
    if isinstance(value, datetime):
        return milliseconds(value) - milliseconds(at)
    if isinstance(value, Clock):
        since = () if value.since is None else (milliseconds(value.since) - milliseconds(at),)
        return [value.used_seconds, *since]
    return value


def stored(text: str) -> dict[str, Any]:
    """The fields in the JSON of a compact item, by short names."""
    return _divided(text)[1]


def _divided(text: str) -> tuple[str, dict[str, Any]]:
    """The letters of a compact item, and the fields in its JSON."""
    letters, brace, rest = text[len(MARK) :].partition("{")
    return letters, orjson.loads(brace + rest) if brace else {}


def changing_values(text: str, at: datetime, row: RowMapping | Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a compact item except the status, as plain values. Fields of a newer release are ignored.

    `row` has the item's columns SET_ONCE, times as milliseconds.
    """
    changed: dict[str, Any] = {"updated_at": at}
    base = milliseconds(at)
    letters, stated = _divided(text)
    for letter in letters:
        if letter in _OF_LETTER:
            name, column, is_time = _OF_LETTER[letter]
            changed[name] = moment_or_none(row[column]) if is_time else row[column]
    for short, value in stated.items():
        name = _LONG_NAMES.get(short, short)
        if name == "clock":
            used, since = (*value, None)[:2]
            changed[name] = (
                STOPPED
                if used == 0.0 and since is None
                else Clock(used_seconds=used, since=None if since is None else moment(base + since))
            )
        elif name == "notified":
            changed[name] = tuple(value)
        elif name == "updated_at" or (name.endswith("_at") and name in _CHANGING_NAMES):
            changed[name] = moment(base + value)
        elif name in _CHANGING_NAMES:
            changed[name] = value
    return changed


def stored_name(name: str) -> str:
    """The stored name of an event with a compact item."""
    return name.removeprefix(ITEM_EVENT)


def full_name(name: str) -> str:
    """The name of an event from its stored name in any layout."""
    return name if "." in name else ITEM_EVENT + name


def stored_names(names: Iterable[str]) -> list[str]:
    """The stored names of events in all layouts, for a condition."""
    return [stored for name in names for stored in (name, stored_name(name))]


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
