"""Waits: how far the estimates are from what came, beside five simple predictors, on ten kinds of performers.

Every round takes other performers of each kind, a few consecutive nights each. With `--log` the rooms of an exported
event log are scored in their place, using only what was known when each number was told.
"""

from collections.abc import Iterable
from functools import partial

from tests.bench.bench import Bench, Scenario, Turn
from tests.bench.figures import Bar, Case, Column
from tests.bench.scale import Scale
from tests.bench.waits.event_log import moments_by_room
from tests.bench.waits.nights import KINDS, Moment, nights
from tests.bench.waits.score import BASELINES, BUCKETS, OURS, Score, bucket_of, told

NAME = "waits"
PLACES = "waits by places ahead"
PLACES_AHEAD = tuple(
    f"{low} ahead" if low == high else f"{low} and more ahead" if high == BUCKETS[-1][1] else f"{low}–{high} ahead"
    for low, high in BUCKETS
)
ALL = "all"
NIGHTS = 3
COLUMNS = (
    Column(measure="numbers", title="numbers told", digits=0),
    Column(measure="error", title="mean absolute error, s", digits=0),
    *(Column(measure=name, title=f"{name}, s", digits=0) for name in BASELINES),
    Column(measure="ratio", title="× best of the five", digits=2, ranged=True),
    Column(measure="bias", title="bias, s", digits=0),
    Column(measure="ranged", title="with a range, %", digits=0),
    Column(measure="inside", title="inside it, %", digits=0),
    Column(measure="rising", title="items told a fifth more, %", digits=1),
)


def _turns(bench: Bench) -> list[Turn]:
    return [Turn(subject=ALL, take=partial(_take, bench))]


def _take(bench: Bench, round_number: int) -> None:
    case = bench.ledger.case(NAME, NAME, "Waits: numbers told and what came", COLUMNS)
    places = bench.ledger.case(NAME, PLACES, "The same by places ahead", COLUMNS)
    total, by_places = Score(), [Score() for _ in BUCKETS]
    for subject, nights_of_subject in _subjects(bench, round_number):
        score = Score()
        for performer, moments in nights_of_subject:
            for number in told(moments):
                for each in (score, total, by_places[bucket_of(number.ahead)]):
                    each.add(number, (subject, performer))
        _note(case, round_number, subject, score)
    _note(case, round_number, ALL, total)
    for place, score in zip(PLACES_AHEAD, by_places, strict=True):
        _note(places, round_number, place, score)


def _subjects(bench: Bench, round_number: int) -> Iterable[tuple[str, Iterable[tuple[object, Iterable[Moment]]]]]:
    """Each kind, or each room of the log, with its performers and their moments."""
    if bench.log is not None:
        rooms = moments_by_room(bench.log)
        return [(performer_id, [(performer_id, moments)]) for performer_id, moments in rooms.items()]
    seeds = range(round_number * bench.scale.performers, (round_number + 1) * bench.scale.performers)
    return [(kind.name, [(seed, nights(kind, seed, NIGHTS)) for seed in seeds]) for kind in KINDS]


def _note(case: Case, round_number: int, subject: str, score: Score) -> None:
    if not score.numbers:
        return
    case.note(
        round_number,
        subject,
        numbers=score.numbers,
        error=score.errors[OURS] / score.numbers,
        **{name: score.errors[name] / score.numbers for name in BASELINES},
        ratio=score.ratio,
        bias=score.bias / score.numbers,
        ranged=100 * score.with_range,
        rising=100 * score.rising,
    )
    if score.ranged:
        case.note(round_number, subject, inside=100 * score.coverage)


def _bars(scale: Scale) -> tuple[Bar, ...]:
    inside = (
        Bar(case=PLACES, subject=place, text=f"inside, {place}", measure="inside", at_least=low, at_most=high)
        for place in PLACES_AHEAD
        for low, high in ((72.0, None), (None, 88.0))
    )
    return (
        Bar(case=NAME, subject=ALL, text="× best baseline, all", measure="ratio", at_most=0.75),
        *(
            Bar(case=NAME, subject=kind.name, text=f"× best baseline, {kind.name}", measure="ratio", at_most=0.95)
            for kind in KINDS
        ),
        Bar(case=NAME, subject=ALL, text="numbers with a range, %", measure="ranged", at_least=90),
        Bar(case=NAME, subject=ALL, text="items told a fifth more, %", measure="rising", at_most=3),
        *inside,
    )


SCENARIO = Scenario(name=NAME, about="estimated waits against what came", turns=_turns, bars=_bars)
