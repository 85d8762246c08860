"""Rows of what rooms have taught the wait estimate, so that a room is loaded without reading its last items again.

A row is written whenever the room has learnt something, in the transaction that taught it. It holds numbers only, as
MessagePack. One that another release has written in another form is passed over: the room learns from its items then.
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
    """By performer id, of the rooms that have a row."""
    found = {}
    for performer_id, learnt in rows_with(connection, _LEARNT, list(performer_ids)) if performer_ids else ():
        try:
            found[performer_id] = _DECODER.decode(learnt)
        except msgspec.MsgspecError:
            continue
    return found
