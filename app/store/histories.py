"""The stored states of rooms' wait estimates, so that a room is loaded without reading its last items again.

A row is written whenever the state changes, in the same transaction. It stays below the 2 KB at which PostgreSQL would
move it out of its table, where each update leaves dead rows until VACUUM (`python -m tests.bench --only disk`: 1.4 KB
an item more). A row that another release has written in another form is ignored: the room then learns from
its last items.
"""

from collections.abc import Collection
from typing import Any, Literal

import msgspec
from msgspec.structs import astuple
from sqlalchemy import Connection, Table

from app.domain.estimate import GAP_DIGITS, SCORE_DIGITS, History
from app.domain.fit import Fit
from app.domain.room import Room
from app.store.engines import rows_with
from app.store.tables import HistoryRow, milliseconds, moment_or_none, table_of

HISTORIES: Table = table_of(HistoryRow)

_LEARNT = "SELECT performer_id, learnt FROM histories WHERE performer_id IN "
_GAP_UNIT = 10**GAP_DIGITS
_SCORE_UNIT = 10**SCORE_DIGITS


class _Learnt(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The stored layout of a History, in MessagePack: a list without names, gaps and scores as integers."""

    form: Literal["2"] = "2"
    fits: list[tuple[str, bool, tuple[float, float, float, float, float, float]]]
    """Feature, whether its items declare a duration, and the fields of the Fit in their order."""
    pace: float
    gaps: list[int]
    """Milliseconds."""
    leavers: float
    waited_seconds: float
    scores: list[int]
    """Ten-thousandths."""
    last_end_at: int | None
    """Milliseconds since 1970."""
    paused_seconds: float


# That a room is loaded without its last items saves nine tenths of the CPU (`bench --without histories`).
_DECODER = msgspec.msgpack.Decoder(_Learnt)
_ENCODER = msgspec.msgpack.Encoder()


def history_values(room: Room) -> dict[str, Any]:
    return {"performer_id": room.performer_id, "learnt": encoded(room.history)}


def encoded(history: History) -> bytes:
    """A history in the stored layout."""
    return _ENCODER.encode(
        _Learnt(
            fits=[(feature, declares, astuple(fit)) for (feature, declares), fit in history.fits.items()],
            pace=history.pace,
            gaps=[round(gap * _GAP_UNIT) for gap in history.gaps],
            leavers=history.leavers,
            waited_seconds=history.waited_seconds,
            scores=[round(score * _SCORE_UNIT) for score in history.scores],
            last_end_at=milliseconds(history.last_end_at),
            paused_seconds=history.paused_seconds,
        )
    )


def decoded(learnt: bytes) -> History:
    """The history in the stored layout. Raises msgspec.MsgspecError for bytes of another layout."""
    found = _DECODER.decode(learnt)
    return History(
        fits={(feature, declares): _fit(*fields) for feature, declares, fields in found.fits},
        pace=found.pace,
        gaps=tuple([gap / _GAP_UNIT for gap in found.gaps]),
        leavers=found.leavers,
        waited_seconds=found.waited_seconds,
        scores=tuple([score / _SCORE_UNIT for score in found.scores]),
        last_end_at=moment_or_none(found.last_end_at),
        paused_seconds=found.paused_seconds,
    )


def _fit(weight: float, x: float, y: float, xx: float, xy: float, yy: float) -> Fit:
    return Fit(weight=weight, x=x, y=y, xx=xx, xy=xy, yy=yy)


def histories(connection: Connection, performer_ids: Collection[str]) -> dict[str, History]:
    """The stored histories of these rooms, by performer id; a room without a readable row is left out."""
    found = {}
    for performer_id, learnt in rows_with(connection, _LEARNT, list(performer_ids)) if performer_ids else ():
        try:
            found[performer_id] = decoded(learnt)
        except msgspec.MsgspecError:
            continue
    return found
