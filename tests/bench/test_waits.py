"""The scoring of waits: truths, baselines and an exported log are what they say."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from app.domain.event import Logged
from app.wire.shapes import logged_event
from tests.bench.waits.event_log import moments_by_room
from tests.bench.waits.nights import KINDS, USUAL, nights
from tests.bench.waits.score import BASELINES, OURS, Score, told


def test_the_same_seed_gives_the_same_nights_and_another_seed_others() -> None:
    def starts(seed: int) -> list[float]:
        return [number.actual for number in told(nights(USUAL, seed, 1))]

    assert starts(1) == starts(1) != starts(2)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_of_performer_serves_a_night(kind: object) -> None:
    score = Score()
    for number in told(nights(kind, 1, 1)):  # type: ignore[arg-type]
        assert number.actual >= 0
        assert set(number.predicted) == {OURS, *BASELINES}
        assert all(seconds >= 0 for seconds in number.predicted.values())
        score.add(number, 1)
    assert score.numbers > 50


def test_estimates_beat_the_best_baseline_over_a_few_nights() -> None:
    score = Score()
    for kind in KINDS[:4]:
        for number in told(nights(kind, 5, 2)):
            score.add(number, kind.name)
    assert score.ratio < 0.85
    assert 0.7 < score.coverage < 0.9


def test_an_exported_log_gives_the_numbers_of_the_night_it_was_made_of(tmp_path: Path) -> None:
    night = list(nights(USUAL, 3, 1))
    lines = [
        json.dumps(logged_event(Logged(cursor=str(number), event=moment.event)), default=encoded)
        for number, moment in enumerate(night)
    ]
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(lines))
    (moments,) = moments_by_room(file).values()
    assert [moment.room.version for moment in moments] == [moment.room.version for moment in night]
    again, before = (
        [(number.item_id, number.ahead, number.actual, round(number.predicted[OURS], 3)) for number in told(each)]
        for each in (moments, night)
    )
    assert again == before


def test_a_line_that_is_no_event_is_named(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('\n{"event": "queue.item.created"}\n')
    with pytest.raises(ValueError, match="line 2 is not an event of the log"):
        moments_by_room(file)


def encoded(value: object) -> str:
    assert isinstance(value, datetime)
    return value.isoformat()
