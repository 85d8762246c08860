import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.operation import OperationKind, Receipt
from app.wallet.answers import (
    MAX_RETRY_AFTER_SECONDS,
    Conflict,
    Escrow,
    EscrowAnswer,
    EscrowStatus,
    NoEscrow,
    Rejected,
    Retry,
    Succeeded,
    WalletAnswer,
    WalletResponse,
    classify,
    classify_escrow,
    classify_failure,
    is_held,
    read_escrow,
    retry_after_seconds,
)
from tests.support.builders import NOON
from tests.support.strict_wallet import build_operation

SETTLE = build_operation(OperationKind.SETTLE)
REFUND = build_operation(OperationKind.REFUND)
PARTIAL = build_operation(OperationKind.PARTIAL)

RECEIPTS: dict[OperationKind, dict[str, Any]] = {
    OperationKind.SETTLE: {"transactionId": "tx-1", "settledAmount": 100},
    OperationKind.REFUND: {"transactionId": "tx-1", "refundedAmount": 100},
    OperationKind.PARTIAL: {"transactionId": "tx-1", "settledAmount": 70, "refundedAmount": 30},
}


def ok(fields: object) -> WalletResponse:
    return WalletResponse(status=200, body=orjson.dumps(fields))


@pytest.mark.parametrize("operation", [SETTLE, REFUND, PARTIAL], ids=lambda operation: operation.kind)
def test_a_receipt_with_an_id_and_the_ordered_amounts_is_done(operation: Any) -> None:
    assert classify(operation, ok(RECEIPTS[operation.kind]), NOON) == Succeeded(
        receipt=Receipt(
            transaction_id="tx-1", settled_tokens=operation.settle_tokens, refunded_tokens=operation.refund_tokens
        )
    )


@pytest.mark.parametrize(
    "extra",
    [
        {"refundedAmount": 0},
        {"refundedAmount": None},
        {"settledAmount": 100.0},
        {"error": None},
        {"errors": []},
        {"success": True},
        {"modelEarnedBalance": "plenty"},
        {"unknown": {"x": 1}},
    ],
)
def test_a_receipt_may_say_more_than_it_must(extra: dict[str, Any]) -> None:
    assert isinstance(classify(SETTLE, ok(RECEIPTS[OperationKind.SETTLE] | extra), NOON), Succeeded)


@pytest.mark.parametrize("transaction_id", ["7", "x" * 255])
def test_a_transaction_id_has_up_to_255_characters(transaction_id: str) -> None:
    done = classify(SETTLE, ok({"transactionId": transaction_id, "settledAmount": 100}), NOON)
    assert isinstance(done, Succeeded)
    assert done.receipt.transaction_id == transaction_id


NOT_RECEIPTS: list[object] = [
    {"settledAmount": 100},
    {"transactionId": None, "settledAmount": 100},
    {"transactionId": "", "settledAmount": 100},
    {"transactionId": "  ", "settledAmount": 100},
    {"transactionId": 17, "settledAmount": 100},
    {"transactionId": "x" * 256, "settledAmount": 100},
    {"transactionId": ["tx-1"], "settledAmount": 100},
    {"transactionId": "tx-1"},
    {"transactionId": "tx-1", "settledAmount": None},
    {"transactionId": "tx-1", "settledAmount": 99},
    {"transactionId": "tx-1", "settledAmount": 101},
    {"transactionId": "tx-1", "settledAmount": 0},
    {"transactionId": "tx-1", "settledAmount": -100},
    {"transactionId": "tx-1", "settledAmount": 100.5},
    {"transactionId": "tx-1", "settledAmount": "100"},
    {"transactionId": "tx-1", "settledAmount": True},
    {"transactionId": "tx-1", "settledAmount": [100]},
    {"transactionId": "tx-1", "refundedAmount": 100},
    {"transactionId": "tx-1", "settledAmount": 100, "refundedAmount": 100},
    {"transactionId": "tx-1", "settledAmount": 100, "error": "insufficient funds"},
    {"transactionId": "tx-1", "settledAmount": 100, "errors": [{"code": 7}]},
    {"transactionId": "tx-1", "settledAmount": 100, "success": False},
    [],
    [{"transactionId": "tx-1", "settledAmount": 100}],
    "tx-1",
    100,
    None,
    {},
]


@pytest.mark.parametrize("fields", NOT_RECEIPTS, ids=repr)
def test_a_200_that_is_not_the_promised_receipt_is_tried_again(fields: object) -> None:
    assert isinstance(classify(SETTLE, ok(fields), NOON), Retry)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        None,
        b"<html><body>OK</body></html>",
        b'{"transactionId": "tx-1", "settledAmount": 100',
        b'{"transactionId": "tx-1", "settledAmount": NaN}',
        b'{"transactionId": "\xff", "settledAmount": 100}',
        b"[" * 100_000,
        b'{"transactionId": "tx-1", "settledAmount": 1e999}',
    ],
    ids=["empty", "too long", "html", "cut off", "nan", "not utf-8", "deep", "infinite"],
)
def test_a_200_that_cannot_be_read_is_tried_again(body: bytes | None) -> None:
    assert isinstance(classify(SETTLE, WalletResponse(status=200, body=body), NOON), Retry)


@pytest.mark.parametrize(
    "amounts",
    [
        {"settledAmount": 30, "refundedAmount": 70},
        {"settledAmount": 100, "refundedAmount": 0},
        {"settledAmount": 70},
        {"refundedAmount": 30},
        {"settledAmount": 70, "refundedAmount": 31},
    ],
    ids=repr,
)
def test_a_split_is_done_only_with_both_amounts(amounts: dict[str, Any]) -> None:
    assert isinstance(classify(PARTIAL, ok({"transactionId": "tx-1", **amounts}), NOON), Retry)


STATUSES: dict[int, type[WalletAnswer]] = {
    **dict.fromkeys([400, 401, 403, 404, 422], Rejected),
    **dict.fromkeys([402, 405, 406, 410, 413, 415, 418, 451], Rejected),
    409: Conflict,
    **dict.fromkeys([408, 423, 425, 429], Retry),
    **dict.fromkeys([500, 501, 502, 503, 504, 507, 599], Retry),
    **dict.fromkeys([201, 202, 204, 206], Retry),
    **dict.fromkeys([301, 302, 303, 304, 307, 308], Retry),
}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_every_status_has_its_class_whatever_the_body_claims(status: int, kind: type[WalletAnswer]) -> None:
    answer = replace(ok(RECEIPTS[OperationKind.SETTLE]), status=status)
    result = classify(SETTLE, answer, NOON)
    assert isinstance(result, kind)
    assert not isinstance(result, Succeeded)
    assert str(status) in result.problem


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_named_as_ours(status: int) -> None:
    result = classify(SETTLE, WalletResponse(status=status), NOON)
    assert isinstance(result, Rejected)
    assert "credentials" in result.problem
    assert "WALLET_API_TOKEN" in result.problem


def test_a_conflict_that_needs_no_finding_out_is_tried_again() -> None:
    assert isinstance(classify_failure(WalletResponse(status=409), NOON), Retry)


@given(st.binary(max_size=200), st.integers(100, 599))
def test_no_accident_of_bytes_is_success(body: bytes, status: int) -> None:
    assert not isinstance(classify(SETTLE, WalletResponse(status=status, body=body), NOON), Succeeded)


@given(
    st.dictionaries(
        st.sampled_from(["transactionId", "settledAmount", "refundedAmount", "error", "success"]),
        st.sampled_from([None, True, False, -1, 0, 99, 100, 100.0, 100.5, "tx-1", "", " ", "100", [], {}]),
    )
)
def test_done_means_an_id_and_exactly_what_was_ordered(fields: dict[str, Any]) -> None:
    result = classify(SETTLE, ok(fields), NOON)
    if isinstance(result, Succeeded):
        assert fields["transactionId"].strip()
        assert fields["settledAmount"] == 100
        assert not fields.get("refundedAmount")
        assert not fields.get("error")
        assert fields.get("success") is not False


def test_problems_never_repeat_what_the_wallet_sent() -> None:
    secret = "sk_live_do_not_print"
    for status in STATUSES | {200: Retry}:
        result = classify(SETTLE, WalletResponse(status=status, retry_after=secret, body=secret.encode()), NOON)
        assert secret not in repr(result)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("9" * 5000, MAX_RETRY_AFTER_SECONDS),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("", None),
        (format_datetime(NOON + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOON - timedelta(seconds=90), usegmt=True), 0.0),
        ("Sat Jan 31 12:00:10 2026", 10.0),
        ("Sat, 31 Jan 2026 12:00:10 -0000", 10.0),
        ("Sat, 31 Jan 2026 13:00:10 +0100", 10.0),
        ("Fri, 31 Jan 9999 12:00:00 GMT", MAX_RETRY_AFTER_SECONDS),
        ("Fri, 31 Jan 99999 12:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOON) == seconds


@given(
    st.text(string.printable, max_size=60)
    | st.datetimes().map(lambda at: format_datetime(at.replace(tzinfo=UTC), usegmt=True))
)
def test_no_retry_after_breaks_the_client(header: str) -> None:
    seconds = retry_after_seconds(header, NOON)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS


@pytest.mark.parametrize("status", [429, 500, 503, 302])
def test_try_again_carries_what_the_wallet_asked_for(status: int) -> None:
    result = classify(SETTLE, WalletResponse(status=status, retry_after="12"), NOON)
    assert isinstance(result, Retry)
    assert result.retry_after_seconds == 12.0


HELD = Escrow(escrow_id="escrow-1", user_id="viewer-1", amount=100, status=EscrowStatus.HELD)

FATES: dict[EscrowStatus, dict[OperationKind, type[WalletAnswer]]] = {
    EscrowStatus.HELD: dict.fromkeys(OperationKind, Retry),
    EscrowStatus.SETTLING: dict.fromkeys(OperationKind, Retry),
    EscrowStatus.REFUNDING: dict.fromkeys(OperationKind, Retry),
    EscrowStatus.PARTIAL_SETTLING: dict.fromkeys(OperationKind, Retry),
    EscrowStatus.SETTLED: {
        OperationKind.SETTLE: Succeeded,
        OperationKind.PARTIAL: Succeeded,
        OperationKind.REFUND: Rejected,
    },
    EscrowStatus.REFUNDED: {
        OperationKind.SETTLE: Rejected,
        OperationKind.PARTIAL: Rejected,
        OperationKind.REFUND: Succeeded,
    },
}


@pytest.mark.parametrize("kind", OperationKind)
@pytest.mark.parametrize("status", EscrowStatus)
def test_after_a_conflict_the_status_decides(status: EscrowStatus, kind: OperationKind) -> None:
    result = classify_escrow(build_operation(kind), replace(HELD, status=status))
    assert isinstance(result, FATES[status][kind])


def test_an_operation_confirmed_by_the_status_has_no_transaction_id() -> None:
    found = replace(HELD, status=EscrowStatus.SETTLED)
    assert classify_escrow(PARTIAL, found) == Succeeded(
        receipt=Receipt(transaction_id=None, settled_tokens=70, refunded_tokens=30)
    )


@pytest.mark.parametrize(
    ("kind", "settled", "refunded", "result"),
    [
        (OperationKind.SETTLE, 100, 0, Succeeded),
        (OperationKind.SETTLE, 100, None, Succeeded),
        (OperationKind.SETTLE, 70, 30, Rejected),
        (OperationKind.PARTIAL, 70, 30, Succeeded),
        (OperationKind.PARTIAL, 100, 0, Rejected),
        (OperationKind.PARTIAL, 30, 70, Rejected),
        (OperationKind.PARTIAL, None, 30, Succeeded),
        (OperationKind.PARTIAL, None, 0, Rejected),
    ],
)
def test_amounts_that_the_status_states_must_be_ours(
    kind: OperationKind, settled: int | None, refunded: int | None, result: type[WalletAnswer]
) -> None:
    found = replace(HELD, status=EscrowStatus.SETTLED, settled_amount=settled, refunded_amount=refunded)
    assert isinstance(classify_escrow(build_operation(kind), found), result)


def test_an_escrow_resolved_another_way_is_said_plainly() -> None:
    result = classify_escrow(REFUND, replace(HELD, status=EscrowStatus.SETTLED))
    assert isinstance(result, Rejected)
    assert "another way" in result.problem
    assert "settled" in result.problem
    assert "100 to refund" in result.problem


@pytest.mark.parametrize("status", EscrowStatus)
def test_an_escrow_of_another_amount_is_never_ours(status: EscrowStatus) -> None:
    assert isinstance(classify_escrow(SETTLE, replace(HELD, status=status, amount=99)), Rejected)


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (NoEscrow(), Rejected),
        (Retry(problem="asleep", retry_after_seconds=3), Retry),
        (Rejected(problem="credentials"), Rejected),
    ],
)
def test_a_status_that_cannot_be_read_decides_nothing(found: EscrowAnswer, kind: type[WalletAnswer]) -> None:
    result = classify_escrow(SETTLE, found)
    assert isinstance(result, kind)
    assert isinstance(found, NoEscrow) or result is found


def test_an_intake_may_rely_on_a_held_escrow_of_its_amount_only() -> None:
    assert is_held(HELD, tokens=100)
    assert not is_held(HELD, tokens=99)
    assert not any(
        is_held(replace(HELD, status=status), tokens=100) for status in EscrowStatus if status is not EscrowStatus.HELD
    )


STATUS_ANSWER = {"escrowId": "escrow-1", "userId": "viewer-1", "amount": 100, "status": "held"}


def test_an_escrow_is_read_from_the_published_shape() -> None:
    assert read_escrow(orjson.dumps(STATUS_ANSWER)) == HELD
    divided = STATUS_ANSWER | {"status": "settled", "settledAmount": 70, "refundedAmount": 30}
    assert read_escrow(orjson.dumps(divided)) == replace(
        HELD, status=EscrowStatus.SETTLED, settled_amount=70, refunded_amount=30
    )


@pytest.mark.parametrize("status", ["held", "settling", "settled", "refunding", "refunded", "partial_settling"])
def test_an_escrow_is_read_in_every_status_that_the_wallet_has(status: str) -> None:
    found = read_escrow(orjson.dumps(STATUS_ANSWER | {"status": status}))
    assert found is not None
    assert found.status == status
    assert found.is_resolved is (status in ("settled", "refunded"))


@pytest.mark.parametrize(
    "change",
    [
        {"escrowId": None},
        {"escrowId": ""},
        {"userId": 5},
        {"amount": 0},
        {"amount": "100"},
        {"amount": True},
        {"status": "frozen"},
        {"status": None},
        {"status": ["held"]},
        {"error": "no"},
    ],
    ids=repr,
)
def test_an_escrow_of_another_shape_is_not_read(change: dict[str, Any]) -> None:
    assert read_escrow(orjson.dumps(STATUS_ANSWER | change)) is None


def test_times_are_compared_with_the_clock_given() -> None:
    later = datetime(2030, 1, 1, tzinfo=UTC)
    assert retry_after_seconds(format_datetime(later + timedelta(seconds=5), usegmt=True), later) == 5.0


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_only_401_and_403_speak_of_our_credentials(status: int) -> None:
    rejected = classify(SETTLE, WalletResponse(status=status), NOON)
    assert isinstance(rejected, Rejected)
    assert rejected.concerns_credentials is (status in (401, 403))
    assert f"({status})" in rejected.problem
    assert ("request wrong" in rejected.problem) is (status in (400, 422))


def test_an_answer_means_that_the_wallet_was_reached() -> None:
    tried = classify(SETTLE, WalletResponse(status=500), NOON)
    assert isinstance(tried, Retry)
    assert tried.reached is True
    assert tried.may_have_acted is True
    assert Retry(problem="no connection", reached=False).may_have_acted is False
    assert Rejected(problem="no such escrow").concerns_credentials is False


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("seconds", [3600, -3600, 6, -6])
def test_a_token_refused_by_a_clock_that_differs_is_tried_again(status: int, seconds: int) -> None:
    date = format_datetime(NOON + timedelta(seconds=seconds), usegmt=True)
    tried = classify(SETTLE, WalletResponse(status=status, date=date), NOON)
    assert isinstance(tried, Retry)
    assert tried.clocks_differ
    assert not tried.may_have_acted
    assert f"differ by {abs(seconds)} s" in tried.problem


@pytest.mark.parametrize("seconds", [0, 5, -5])
def test_a_token_refused_by_a_clock_that_agrees_is_not(seconds: int) -> None:
    date = format_datetime(NOON + timedelta(seconds=seconds), usegmt=True)
    assert isinstance(classify(SETTLE, WalletResponse(status=401, date=date), NOON), Rejected)


@pytest.mark.parametrize("date", ["soon", "", "Fri, 31 Jan 2026 25:00:00 GMT"])
def test_a_date_that_is_none_says_nothing_of_the_clock(date: str) -> None:
    assert isinstance(classify(SETTLE, WalletResponse(status=401, date=date), NOON), Rejected)


def test_other_refusals_are_not_the_clocks() -> None:
    date = format_datetime(NOON + timedelta(hours=1), usegmt=True)
    assert isinstance(classify(SETTLE, WalletResponse(status=422, date=date), NOON), Rejected)
