"""The names of the contract, on which callers, tokens and stored rows rely."""

from enum import StrEnum

import pytest

from app.domain.command import PRESENCE, TIMER, WALLET, Mode, Role
from app.domain.errors import QueueError
from app.domain.event import EventName, PauseReason
from app.domain.item import Move, Reason, Status, WalletStatus
from app.domain.operation import OperationKind, OperationStatus, Resolution
from app.domain.push import Language, Moment
from app.domain.room import Policy
from app.domain.webhook import EndpointStatus
from app.wallet.answers import EscrowStatus
from tests.support.builders import Stage

WORDS: dict[type[StrEnum], str] = {
    Role: "feature viewer performer moderator admin system",
    Mode: "on off",
    Status: "created started finished abandoned refunded",
    Move: "start complete abandon refund pause resume",
    WalletStatus: "none pending retrying done dead written_off",
    Reason: "performer_disconnected performer_declined user_cancelled timeout technical_error admin_refund",
    PauseReason: "requested performer_disconnected",
    EventName: (
        "queue.item.created queue.item.started queue.item.finished queue.item.abandoned queue.item.refunded "
        "queue.item.settled queue.item.paused queue.item.resumed queue.item.wallet_changed "
        "queue.room.changed queue.performer.online queue.performer.offline"
    ),
    OperationKind: "settle refund partial",
    OperationStatus: "pending retrying done dead",
    Resolution: "settle refund written_off",
    EscrowStatus: "held settling settled refunding refunded partial_settling",
    EndpointStatus: "active parked",
    Language: "en de",
    Moment: "next started ended",
}


@pytest.mark.parametrize("kind", WORDS, ids=lambda kind: kind.__name__)
def test_the_words_are_the_contracts(kind: type[StrEnum]) -> None:
    assert " ".join(kind) == WORDS[kind]


def test_the_wallets_side_of_an_item_is_not_public_and_chat_has_its_own_keys() -> None:
    stage = Stage()
    item = stage.complete(stage.start(stage.intake()))
    stage.report(item, OperationStatus.RETRYING)
    stage.confirm(item)
    assert [(event.name, event.is_public, event.template) for event in stage.events] == [
        ("queue.item.created", True, "queue.item.created"),
        ("queue.item.started", True, "queue.item.started"),
        ("queue.item.finished", True, "queue.item.completed"),
        ("queue.item.wallet_changed", False, None),
        ("queue.item.settled", False, "queue.item.settled"),
    ]
    gone = Stage()
    gone.confirm(gone.abandon(gone.intake()))
    assert [event.template for event in gone.events[1:]] == ["queue.item.abandoned", "queue.item.refunded"]


def test_the_services_own_actors_are_distinct_in_the_audit_trail() -> None:
    assert [(actor.role, actor.id) for actor in (TIMER, WALLET, PRESENCE)] == [
        ("system", "timer"),
        ("system", "wallet"),
        ("system", "presence"),
    ]


def test_the_rules_without_settings_are_the_contracts() -> None:
    assert Policy() == Policy(
        max_depth=50,
        default_duration_seconds=60,
        notify_positions=(3, 1),
        rope_drop_seconds=600,
        started_timeout_seconds=3600,
        disconnect_grace_seconds=120,
        settle_delay_seconds=0,
    )


def test_an_error_of_no_other_kind_is_internal() -> None:
    assert (QueueError.code, QueueError.status) == ("INTERNAL", 500)
