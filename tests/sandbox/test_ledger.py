from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from sqlalchemy import Engine, Executable, delete, insert, literal, select, update

from app.sandbox.ledger import (
    UNKNOWN_USER,
    AlreadyResolved,
    BalanceTooLow,
    HoldStatus,
    KeyReused,
    Ledger,
    LedgerRefusal,
    NoSuchEscrow,
    Resolution,
    WrongRequest,
)
from app.sandbox.ledger_audit import LedgerTotals, audit, read_totals
from app.sandbox.tables import ACCOUNT, ESCROW, MINT, POSTING
from app.store.engines import open_engines
from tests.support.builders import NOON
from tests.support.sandbox_audit import create_tables, hold, memory_engine, resolution
from tests.support.stores import HandClock


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = memory_engine()
    yield engine
    assert audit(engine) == []
    assert read_totals(engine).balanced
    engine.dispose()


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    ledger = Ledger(engine, clock=HandClock())
    ledger.grant("viewer-1", 1000, key="grant-1")
    return ledger


def test_a_grant_makes_tokens_available(ledger: Ledger, engine: Engine) -> None:
    assert ledger.available("viewer-1") == 1000
    assert ledger.available("nobody") == 0
    assert read_totals(engine) == LedgerTotals(granted=1000, available=1000, escrow=0, earned=0)


def test_a_hold_moves_tokens_into_its_escrow(ledger: Ledger, engine: Engine) -> None:
    escrow_id = hold(ledger, amount=100)
    assert read_totals(engine) == LedgerTotals(granted=1000, available=900, escrow=100, earned=0)
    found = ledger.escrow("viewer-1", escrow_id)
    assert found is not None
    assert (found.amount, found.status, found.created_ms) == (100, HoldStatus.HELD, NOON.timestamp() * 1000)


def test_an_escrow_is_seen_by_its_own_user_only(ledger: Ledger) -> None:
    escrow_id = hold(ledger)
    assert ledger.escrow("viewer-2", escrow_id) is None
    assert ledger.escrow("viewer-1", "no-such") is None


def test_nobody_holds_more_than_is_available(ledger: Ledger, engine: Engine) -> None:
    with pytest.raises(BalanceTooLow):
        hold(ledger, amount=1001)
    with pytest.raises(BalanceTooLow):
        hold(ledger, "viewer-2", 1)
    assert read_totals(engine) == LedgerTotals(granted=1000, available=1000, escrow=0, earned=0)
    hold(ledger, amount=1000)


@pytest.mark.parametrize(
    ("settle", "refund", "status"),
    [(100, 0, HoldStatus.SETTLED), (0, 100, HoldStatus.REFUNDED), (70, 30, HoldStatus.SETTLED)],
)
def test_a_resolution_empties_the_escrow(
    ledger: Ledger, engine: Engine, settle: int, refund: int, status: HoldStatus
) -> None:
    escrow_id = hold(ledger)
    done = ledger.resolve(resolution(escrow_id, settle, refund), key="k")
    assert (done.user_available, done.model_earned) == (900 + refund, settle)
    assert read_totals(engine) == LedgerTotals(granted=1000, available=900 + refund, escrow=0, earned=settle)
    assert ledger.earned("star") == settle
    found = ledger.escrow("viewer-1", escrow_id)
    assert found is not None
    assert (found.status, found.settled_amount, found.refunded_amount) == (status, settle, refund)


def test_a_repeated_key_gets_the_first_answer_and_moves_nothing(ledger: Ledger, engine: Engine) -> None:
    escrow_id = hold(ledger)
    assert hold(ledger) == escrow_id
    first = ledger.resolve(resolution(escrow_id, 70, 30), key="k")
    ledger.grant("viewer-1", 5, key="grant-2")
    assert ledger.grant("viewer-1", 5, key="grant-2").user_available == 935
    assert ledger.resolve(resolution(escrow_id, 70, 30), key="k") == first
    assert read_totals(engine) == LedgerTotals(granted=1005, available=935, escrow=0, earned=70)


def test_a_key_stands_for_one_request(ledger: Ledger) -> None:
    first, second = hold(ledger), hold(ledger, key="hold-2")
    with pytest.raises(KeyReused):
        hold(ledger, amount=101)
    ledger.resolve(resolution(first, 100, 0), key="k")
    for other in (resolution(first, 70, 30), resolution(second, 100, 0), resolution(first, 100, 0, model_id="moon")):
        with pytest.raises(KeyReused):
            ledger.resolve(other, key="k")


@pytest.mark.parametrize(("settle", "refund"), [(100, 0), (0, 100), (70, 30)])
def test_an_escrow_is_resolved_once(ledger: Ledger, engine: Engine, settle: int, refund: int) -> None:
    escrow_id = hold(ledger)
    ledger.resolve(resolution(escrow_id, 100, 0), key="k")
    before = read_totals(engine)
    with pytest.raises(AlreadyResolved):
        ledger.resolve(resolution(escrow_id, settle, refund), key="another")
    assert read_totals(engine) == before


@pytest.mark.parametrize(("settle", "refund"), [(99, 0), (101, 0), (0, 99), (70, 31), (70, 29)])
def test_the_amounts_must_add_up_to_the_hold(ledger: Ledger, settle: int, refund: int) -> None:
    escrow_id = hold(ledger)
    with pytest.raises(WrongRequest):
        ledger.resolve(resolution(escrow_id, settle, refund), key="k")


def test_a_refund_goes_to_the_user_who_held(ledger: Ledger) -> None:
    escrow_id = hold(ledger)
    with pytest.raises(WrongRequest):
        ledger.resolve(resolution(escrow_id, 0, 100, user_id="viewer-2"), key="k")
    ledger.resolve(resolution(escrow_id, 0, 100, user_id="viewer-1"), key="k")
    assert ledger.available("viewer-1") == 1000


def test_an_unknown_escrow_is_refused(ledger: Ledger) -> None:
    with pytest.raises(NoSuchEscrow):
        ledger.resolve(resolution("no-such", 100, 0), key="k")


@pytest.mark.parametrize(("settle", "refund"), [(100, 0), (0, 100), (70, 30)])
def test_a_lenient_ledger_mints_and_holds_the_tokens_of_an_unknown_escrow(
    engine: Engine, settle: int, refund: int
) -> None:
    lenient = Ledger(engine, clock=HandClock(), adopts_unknown_escrows=True)
    order = resolution("made-up", settle, refund, user_id="viewer-1" if refund else None)
    assert lenient.escrow("viewer-1", "made-up") is None
    first = lenient.resolve(order, key="key-1")
    assert lenient.resolve(order, key="key-1") == first
    assert read_totals(engine) == LedgerTotals(granted=100, available=refund, escrow=0, earned=settle)
    assert lenient.available("viewer-1") == refund
    assert lenient.escrow("viewer-1" if refund else UNKNOWN_USER, "made-up") is not None
    with pytest.raises(AlreadyResolved):
        lenient.resolve(order, key="key-2")


def test_a_lenient_ledger_adopts_no_escrow_that_is_held(engine: Engine) -> None:
    lenient = Ledger(engine, clock=HandClock(), adopts_unknown_escrows=True)
    lenient.grant("viewer-1", 1000, key="grant-1")
    escrow_id = hold(lenient)
    lenient.resolve(resolution(escrow_id, 100, 0), key="key-1")
    assert read_totals(engine) == LedgerTotals(granted=1000, available=900, escrow=0, earned=100)


def test_a_refused_request_leaves_its_key_free(ledger: Ledger) -> None:
    with pytest.raises(BalanceTooLow):
        hold(ledger, amount=5000)
    ledger.grant("viewer-1", 5000, key="grant-2")
    hold(ledger, amount=5000)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, in a file or on a server, for several connections."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/books.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


def test_of_racing_resolutions_one_wins(database_url: str) -> None:
    engines = open_engines(database_url, lanes=4)
    create_tables(engines.writer)
    ledger = Ledger(engines.writer, clock=HandClock())
    ledger.grant("viewer-1", 1000, key="grant")
    escrows = [hold(ledger, key=f"hold-{number}") for number in range(5)]

    def attempt(number: int) -> str:
        escrow_id, way = escrows[number % 5], number % 3
        order = resolution(escrow_id, *((100, 0), (0, 100), (70, 30))[way])
        try:
            return ledger.resolve(order, key=f"{escrow_id}-{way}").transaction_id
        except AlreadyResolved:
            return ""

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(60)))
    for number in range(5):
        assert len(set(answers[number::5]) - {""}) == 1
    assert audit(engines.writer) == []
    assert read_totals(engines.writer).escrow == 0
    engines.dispose()


TAMPERING: list[tuple[Executable, Executable]] = [
    (
        update(ACCOUNT).where(ACCOUNT.c.kind == "available").values(balance=ACCOUNT.c.balance + 1),
        update(ACCOUNT).where(ACCOUNT.c.kind == "available").values(balance=ACCOUNT.c.balance - 1),
    ),
    (
        update(POSTING).where(POSTING.c.account == MINT).values(amount=POSTING.c.amount + 1),
        update(POSTING).where(POSTING.c.account == MINT).values(amount=POSTING.c.amount - 1),
    ),
    (
        insert(POSTING).from_select(
            ["transaction_id", "transfer", "account", "amount", "at_ms"],
            select(POSTING.c.transaction_id, POSTING.c.transfer, literal("a third"), literal(0), POSTING.c.at_ms).where(
                POSTING.c.account == MINT
            ),
        ),
        delete(POSTING).where(POSTING.c.account == "a third"),
    ),
    (update(ESCROW).values(status="settled"), update(ESCROW).values(status="held")),
    (update(ESCROW).values(settled_amount=1), update(ESCROW).values(settled_amount=0)),
]


@pytest.mark.parametrize(("change", "undo"), TAMPERING)
def test_the_audit_finds_what_does_not_agree(
    ledger: Ledger, engine: Engine, change: Executable, undo: Executable
) -> None:
    hold(ledger)
    with engine.begin() as connection:
        connection.execute(change)
    assert audit(engine)
    with engine.begin() as connection:
        connection.execute(undo)
    assert audit(engine) == []


USERS = ["ann", "bob", "eve"]
MODELS = ["star", "moon"]


@dataclass(frozen=True)
class Known:
    """One escrow, as the model knows it."""

    escrow_id: str
    user: str
    amount: int


class BooksMachine(RuleBasedStateMachine):
    """Random transactions against a model of plain sums: all balances agree after every step."""

    held = Bundle("held")
    ended = Bundle("ended")

    @initialize()
    def open_books(self) -> None:
        self.engine = memory_engine()
        self.ledger = Ledger(self.engine, clock=HandClock())
        self.available = dict.fromkeys(USERS, 0)
        self.earned = dict.fromkeys(MODELS, 0)
        self.escrow = 0
        self.steps = 0

    def key(self) -> str:
        self.steps += 1
        return f"key-{self.steps}"

    @rule(user=st.sampled_from(USERS), amount=st.integers(1, 500))
    def grant(self, user: str, amount: int) -> None:
        self.ledger.grant(user, amount, key=self.key())
        self.available[user] += amount

    @rule(target=held, user=st.sampled_from(USERS), amount=st.integers(1, 300))
    def hold(self, user: str, amount: int) -> Known | MultipleResults[Known]:
        key = self.key()
        if amount > self.available[user]:
            with pytest.raises(BalanceTooLow):
                hold(self.ledger, user, amount, key=key)
            return multiple()
        escrow_id = hold(self.ledger, user, amount, key=key)
        assert hold(self.ledger, user, amount, key=key) == escrow_id
        self.available[user] -= amount
        self.escrow += amount
        return Known(escrow_id, user, amount)

    @rule(target=ended, known=consumes(held), model=st.sampled_from(MODELS), part=st.floats(0, 1))
    def resolve(self, known: Known, model: str, part: float) -> tuple[Known, Resolution, str]:
        settle = round(known.amount * part)
        order = resolution(known.escrow_id, settle, known.amount - settle, model_id=model, user_id=known.user)
        key = self.key()
        first = self.ledger.resolve(order, key=key)
        assert self.ledger.resolve(order, key=key) == first
        self.escrow -= known.amount
        self.available[known.user] += known.amount - settle
        self.earned[model] += settle
        return known, order, key

    @rule(end=ended, model=st.sampled_from(MODELS))
    def resolve_again(self, end: tuple[Known, Resolution, str], model: str) -> None:
        known, order, key = end
        self.ledger.resolve(order, key=key)
        for other in (resolution(known.escrow_id, known.amount, 0, model_id=model), order):
            with pytest.raises(AlreadyResolved):
                self.ledger.resolve(other, key=self.key())

    @rule(known=held, change=st.sampled_from([-1, 1]))
    def resolve_wrongly(self, known: Known, change: int) -> None:
        right = resolution(known.escrow_id, 0, known.amount, user_id=known.user)
        for wrong in (
            replace(right, refund=right.refund + change),
            replace(right, user_id="another"),
            replace(right, escrow_id="no-such"),
        ):
            with pytest.raises(LedgerRefusal):
                self.ledger.resolve(wrong, key=self.key())

    @invariant()
    def every_balance_agrees(self) -> None:
        assert {user: self.ledger.available(user) for user in USERS} == self.available
        assert {model: self.ledger.earned(model) for model in MODELS} == self.earned
        books = read_totals(self.engine)
        assert books.balanced
        assert (books.available, books.escrow, books.earned) == (
            sum(self.available.values()),
            self.escrow,
            sum(self.earned.values()),
        )
        assert audit(self.engine) == []

    def teardown(self) -> None:
        self.engine.dispose()


TestBooks = BooksMachine.TestCase
TestBooks.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
