"""The stored states of rooms' wait estimates, so that a room is loaded without reading its last items again.

A row is written whenever the state changes, in the same transaction. It holds only numbers, as MessagePack. A row that
another release has written in another form is ignored: the room then learns from its last items.
"""

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import Connection, Table

from app.domain.estimate import History
from app.domain.room import Room
from app.store.engines import rows_with
from app.store.tables import HistoryRow, table_of

HISTORIES: Table = table_of(HistoryRow)

_LEARNT = "SELECT performer_id, learnt FROM histories WHERE performer_id IN "
_DECODER = msgspec.msgpack.Decoder(History)
_ENCODER = msgspec.msgpack.Encoder()


def history_values(room: Room) -> dict[str, Any]:
    return {"performer_id": room.performer_id, "learnt": _ENCODER.encode(room.history)}


def histories(connection: Connection, performer_ids: Collection[str]) -> dict[str, History]:
    """The stored histories of these rooms, by performer id; a room without a readable row is left out."""
    found = {}
    for performer_id, learnt in rows_with(connection, _LEARNT, list(performer_ids)) if performer_ids else ():
        try:
            found[performer_id] = _DECODER.decode(learnt)
        except msgspec.MsgspecError:
            continue
    return found
