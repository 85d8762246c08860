"""Items and settings as JSON, whole: in events of the earlier layout, and in events between processes.

The previous release reads them too. It cannot read fields that it does not know, so those are left out while they have
their default.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import asdict, fields

from app.domain.event import RoomSettings
from app.domain.item import Clock, Item
from app.store import compact
from app.store.members import with_item_enums, with_settings_enums

_ITEM_FIELDS = frozenset(Item.__struct_fields__)
_SETTINGS_FIELDS = frozenset(RoomSettings.__struct_fields__)
_KNOWN_TO_PREVIOUS: Mapping[type[Struct], set[str]] = {
    Item: {*compact.FIXED, *compact.SHORT_NAMES, "status"},
    RoomSettings: {
        "mode",
        "accepting",
        "paused",
        "pause_reason",
        "strict_fifo",
        "max_depth",
        "notify_positions",
        "announcement",
        "performer_online",
        "offline_since",
    },
}
"""The fields of the records that the previous release knows."""
ONLY_IN_ITS_ROW = ("quoted_low_seconds", "quoted_high_seconds")
"""Fields that are not in an item's JSON, which the previous release could then not read, but only in the item's row."""
_NEW_ITEM_DEFAULTS, _NEW_SETTINGS_DEFAULTS = (
    {field.name: field.default for field in fields(kind) if field.name not in known}
    for kind, known in _KNOWN_TO_PREVIOUS.items()
)


def whole_item_json(item: Item) -> str:
    """An item as JSON, without the fields of ONLY_IN_ITS_ROW."""
    return _json_for_previous(item, _NEW_ITEM_DEFAULTS, ONLY_IN_ITS_ROW)


def settings_json(settings: RoomSettings) -> str:
    """The settings of a room as JSON."""
    return _json_for_previous(settings, _NEW_SETTINGS_DEFAULTS, ())


def _json_for_previous(record: Item | RoomSettings, new_defaults: Mapping[str, Any], left_out: tuple[str, ...]) -> str:
    values = asdict(record)
    for name in (*left_out, *(name for name, default in new_defaults.items() if values[name] == default)):
        del values[name]
    return orjson.dumps(values, default=asdict).decode()


def item_from_json(text: str) -> Item:
    """An item from JSON. Fields of a newer release are ignored; fields that are missing get their default."""
    values = {name: value for name, value in orjson.loads(text).items() if name in _ITEM_FIELDS}
    for name, value in values.items():
        if name.endswith("_at") and value is not None:
            values[name] = datetime.fromisoformat(value)
    clock = values["clock"]
    since = clock["since"]
    values["clock"] = Clock(used_seconds=clock["used_seconds"], since=since and datetime.fromisoformat(since))
    values["notified"] = tuple(values["notified"])
    return Item(**with_item_enums(values))


def settings_from_json(text: str) -> RoomSettings:
    """The settings of a room from JSON. Fields of a newer release are ignored."""
    values = {name: value for name, value in orjson.loads(text).items() if name in _SETTINGS_FIELDS}
    if values["notify_positions"] is not None:
        values["notify_positions"] = tuple(values["notify_positions"])
    if values["offline_since"] is not None:
        values["offline_since"] = datetime.fromisoformat(values["offline_since"])
    return RoomSettings(**with_settings_enums(values))
