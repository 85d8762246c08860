from collections import Counter
from random import Random

import orjson
import pytest

from app.sandbox.faults import Fault, FaultKind, FaultRates, Faults, Reply, deliver

RECEIPT = Reply(status=200, body=orjson.dumps({"transactionId": "tx-1", "settledAmount": 100}))
BEFORE = {FaultKind.ERROR, FaultKind.CONFLICT, FaultKind.TIMEOUT_BEFORE}
UNANSWERED = {FaultKind.TIMEOUT_BEFORE, FaultKind.TIMEOUT_AFTER}
DICE = [0.0, 0.2, 0.4, 0.6, 0.8, 0.999999]


class Effect:
    def __init__(self, reply: Reply = RECEIPT) -> None:
        self.times = 0
        self.reply = reply

    def __call__(self) -> Reply:
        self.times += 1
        return self.reply


def test_without_a_fault_the_work_is_done_once_and_answered() -> None:
    effect = Effect()
    assert deliver(effect, None) == RECEIPT
    assert effect.times == 1


@pytest.mark.parametrize("dice", DICE)
@pytest.mark.parametrize("kind", FaultKind)
def test_every_fault_has_its_effect_and_its_answer(kind: FaultKind, dice: float) -> None:
    effect = Effect()
    reply = deliver(effect, Fault(kind, dice))
    assert effect.times == (0 if kind in BEFORE else 2 if kind is FaultKind.DUPLICATE else 1)
    assert (reply is None) == (kind in UNANSWERED)
    assert (reply == RECEIPT) == (kind is FaultKind.DUPLICATE)


def statuses(kind: FaultKind) -> set[int]:
    replies = [deliver(Effect(), Fault(kind, dice)) for dice in DICE]
    return {reply.status for reply in replies if reply is not None}


def test_each_fault_answers_with_its_own_statuses() -> None:
    assert statuses(FaultKind.ERROR) == {429, 500, 503}
    assert statuses(FaultKind.CONFLICT) == {409}
    assert statuses(FaultKind.LOST_ANSWER) == {502}
    assert statuses(FaultKind.WRONG_ANSWER) == {200}


def test_a_refusal_is_not_made_a_success_by_spoiling_it() -> None:
    refusal = Reply(status=422, body=b"{}")
    assert deliver(Effect(refusal), Fault(FaultKind.WRONG_ANSWER, 0.5)) is refusal


def test_rates_are_met_and_counted() -> None:
    faults = Faults(Random(7), FaultRates(error=0.1, duplicate=0.3))
    drawn = Counter(fault.kind if (fault := faults.draw()) else None for _ in range(10_000))
    assert drawn[FaultKind.ERROR] == pytest.approx(1000, rel=0.15)
    assert drawn[FaultKind.DUPLICATE] == pytest.approx(3000, rel=0.15)
    assert drawn.keys() == {FaultKind.ERROR, FaultKind.DUPLICATE, None}
    assert faults.injected == {kind: count for kind, count in drawn.items() if kind is not None}


def test_the_same_seed_gives_the_same_faults() -> None:
    rates = FaultRates(error=0.2, lost_answer=0.2, wrong_answer=0.2)
    one, other = Faults(Random(3), rates), Faults(Random(3), rates)
    assert [one.draw() for _ in range(100)] == [other.draw() for _ in range(100)]


def test_changing_one_rate_does_not_change_the_random_values_of_later_requests() -> None:
    calm, rough = Faults(Random(3)), Faults(Random(3), FaultRates(error=1))
    for faults in (calm, rough):
        for _ in range(10):
            faults.draw()
    calm.rates = rough.rates = FaultRates(duplicate=0.5)
    assert [calm.draw() for _ in range(50)] == [rough.draw() for _ in range(50)]


def test_latency_varies_around_what_was_set() -> None:
    faults = Faults(Random(1), FaultRates(latency_seconds=2))
    delays = [faults.delay_seconds() for _ in range(1000)]
    assert 1 <= min(delays) < 1.1
    assert 2.9 < max(delays) <= 3
    assert Faults(Random(1)).delay_seconds() == 0


@pytest.mark.parametrize(
    "rates",
    [
        {"error": -0.1},
        {"error": 1.1},
        {"error": float("nan")},
        {"error": True},
        {"error": "0.1"},
        {"latency_seconds": 61},
        {"error": 0.6, "duplicate": 0.6},
    ],
)
def test_impossible_rates_are_refused(rates: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be a number|add up to more"):
        FaultRates(**rates)
