"""The scoring of waits: truths, baselines and an exported log are what they say."""

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from app.domain.event import Logged
from app.wire.shapes import logged_event
from tests.bench.bench import Bench
from tests.bench.figures import Ledger, Standing, Verdict
from tests.bench.scale import QUICK
from tests.bench.scenarios.waits import ALL, NAME, PLACES, PLACES_AHEAD, SCENARIO
from tests.bench.waits.event_log import moments_by_room
from tests.bench.waits.nights import KINDS, USUAL, nights
from tests.bench.waits.score import BASELINES, OURS, Score, told
from tests.support.guides import TEXTS


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


@pytest.fixture(scope="module")
def measured() -> Ledger:
    """The result of `python -m tests.bench --quick --only waits`. All random values come from seeds."""
    bench = Bench(scale=QUICK, server_core=0, load_core=0, cache=Path(), viewers=[], peers=frozenset())
    (turn,) = SCENARIO.turns(bench)
    for round_number in range(QUICK.rounds):
        turn.take(round_number)
    return bench.ledger


def test_the_estimates_meet_their_bars(measured: Ledger) -> None:
    verdicts = [
        Verdict(scenario=NAME, bar=bar, found=measured.cases[bar.case].spread(bar.subject, bar.measure))
        for bar in SCENARIO.bars(QUICK)
    ]
    assert [each for each in verdicts if each.standing is not Standing.MET] == []


def test_the_guide_has_the_figures_of_the_command_that_it_names(measured: Ledger) -> None:
    guide = " ".join(TEXTS["waits"].splitlines())
    assert "`python -m tests.bench --quick --only waits`" in guide

    def middle(case: str, subject: str, measure: str) -> float:
        spread = measured.cases[case].spread(subject, measure)
        assert spread is not None
        return spread.middle

    rows = re.findall(r"^\| ([a-z][a-z ·]+) \| ([\d. ·]+) \|$", TEXTS["waits"], re.MULTILINE)
    ratios = dict(
        pair for names, figures in rows for pair in zip(names.split(" · "), figures.split(" · "), strict=True)
    )
    assert ratios == {
        "all kinds": f"{middle(NAME, ALL, 'ratio'):.2f}",
        **{kind.name: f"{middle(NAME, kind.name, 'ratio'):.2f}" for kind in KINDS},
    }
    inside = [middle(PLACES, place, "inside") for place in PLACES_AHEAD]
    assert f"{middle(NAME, ALL, 'ranged'):.0f} % of the numbers come with a range" in guide
    assert f"{min(inside):.0f} to {max(inside):.0f} % of the waits lie inside it" in guide
    assert f"{middle(NAME, ALL, 'rising'):.1f} % of the items are once told a fifth more" in guide


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
