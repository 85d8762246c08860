"""The state of the estimate, stored and read again: exactly, and in few bytes."""

from datetime import timedelta
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.estimate import GAPS_KEPT, NOTHING_LEARNT, SCORES_KEPT, History
from app.domain.item import Clock, Item, Reason
from app.store.histories import decoded, encoded
from tests.support.builders import build_item, moment

INLINE_BYTES = 1_900
"""PostgreSQL moves a row's long values out of the table where the row would take more than about 2,000 bytes."""


def _taught(random: Random, items: int, features: int) -> History:
    """By so many items, served, cancelled or left, with pauses, after quoted waits, over several sessions."""
    history, at = NOTHING_LEARNT, moment(0)
    for _ in range(items):
        at += timedelta(milliseconds=random.choice((random.randrange(90_000), random.randrange(4_000_000))))
        declared = random.choice((None, random.randrange(1, 3_600)))
        item: Item = build_item(
            source_feature=f"feature-{random.randrange(features)}",
            duration_seconds=declared,
            created_at=at - timedelta(milliseconds=random.randrange(5_000_000)),
            quoted_wait_seconds=random.choice((None, random.uniform(0, 5_000))),
            quoted_position=random.randrange(1, 50),
        )
        if random.random() < 0.2:
            history = history.left(msgspec.structs.replace(item, abandon_reason=Reason.USER_CANCELLED), at)
            continue
        history = history.started(item, at)
        used = random.uniform(0.001, 900)
        ended = at + timedelta(milliseconds=int(used * 1000) + random.randrange(60_000))
        item = msgspec.structs.replace(
            item,
            started_at=at,
            finished_at=random.choice((None, ended)),
            clock=Clock(used_seconds=used),
        )
        history, at = history.ended(item, ended, 60.0), ended
    return history


@given(seed=st.integers(0, 10_000), items=st.integers(0, 60))
def test_a_stored_history_is_read_as_it_was(seed: int, items: int) -> None:
    history = _taught(Random(seed), items, features=3)
    assert decoded(encoded(history)) == history


def test_a_full_history_stays_in_its_row_on_postgresql() -> None:
    history = _taught(Random(1), 1_000, features=6)
    assert (len(history.gaps), len(history.scores), len(history.fits)) == (GAPS_KEPT, SCORES_KEPT, 12)
    assert len(encoded(history)) <= INLINE_BYTES


@pytest.mark.parametrize(
    "learnt",
    [
        b"",
        b"\xff",
        msgspec.msgpack.encode(History()),
        msgspec.msgpack.encode(["3", [], 0.0, [], 0.0, 0.0, [], None, 0.0]),
    ],
    ids=["empty", "no MessagePack", "the first form", "a later form"],
)
def test_another_form_is_no_history(learnt: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decoded(learnt)
