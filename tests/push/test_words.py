"""The texts of notifications: those of the page, and only true ones."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from app.domain.event import RoomSettings
from app.domain.item import Item, Reason, Status, WalletStatus
from app.domain.push import Language, Moment
from app.domain.room import Policy, Room
from app.push.words import MESSAGES, Text, stopwatch, text_of
from tests.support.builders import NOON, build_item

STATIC = Path(__file__).parents[2] / "static/messages"


def of_the_page(language: Language) -> dict[str, str | tuple[str, str]]:
    """The page's messages by key; plurals as pairs."""
    source = "".join(path.read_text() for path in STATIC.glob(f"{language}*.js"))
    texts: dict[str, str | tuple[str, str]] = dict(re.findall(r'^  "?([\w.]+)"?:\s+"([^"]*)",$', source, re.MULTILINE))
    pairs = re.findall(r'^  "([\w.]+)": \{\s*one: "([^"]*)",\s*other: "([^"]*)",?\s*\},$', source, re.MULTILINE)
    return texts | {key: (one, other) for key, one, other in pairs}


@pytest.mark.parametrize("language", Language)
def test_the_words_are_the_pages(language: Language) -> None:
    page = of_the_page(language)
    assert {key: page[key] for key in MESSAGES[language]} == MESSAGES[language]


def test_there_are_words_for_every_reason_in_every_language() -> None:
    keys = {frozenset(messages) for messages in MESSAGES.values()}
    assert len(keys) == 1
    assert {f"reason.{reason}" for reason in Reason} <= keys.pop()


def room_of(*items: Item, paused: bool = False) -> Room:
    return Room(
        performer_id="star",
        policy=Policy(),
        version=1,
        last_at=NOON,
        settings=RoomSettings(performer_online=True, paused=paused),
        items=items,
    )


JOLENE = build_item(1, title="Jolene", status=Status.STARTED, started_at=NOON, duration_seconds=160)
MINE = build_item(2, title="Sing a song")
NEXT = Moment.NEXT, MINE


def test_the_notice_to_the_next_viewer_names_the_item_before_it_and_the_wait() -> None:
    def said(room: Room, language: Language = Language.EN) -> Text | None:
        return text_of(*NEXT, room, NOON, language)

    assert said(room_of(JOLENE, MINE)) == Text("You’re next after “Jolene”, about 2:40", "Sing a song")
    assert said(room_of(JOLENE, MINE), Language.DE) == Text("Nach „Jolene“ bist du dran, in etwa 2:40", "Sing a song")
    plain = Text("You’re next. Get ready!", "Sing a song")
    assert said(room_of(MINE)) == plain
    assert said(room_of(JOLENE, MINE, paused=True)) == plain


def test_a_notice_that_is_no_longer_true_has_no_text() -> None:
    other = build_item(3, created_at=NOON - timedelta(seconds=1))
    assert text_of(*NEXT, room_of(JOLENE, other, MINE), NOON, Language.EN) is None
    assert text_of(*NEXT, room_of(), NOON, Language.EN) is None
    assert text_of(*NEXT, room_of(replace(MINE, status=Status.STARTED)), NOON, Language.EN) is None
    for status in (Status.CREATED, Status.FINISHED, Status.REFUNDED):
        assert text_of(Moment.STARTED, replace(MINE, status=status), room_of(), NOON, Language.EN) is None
    for status in (Status.CREATED, Status.STARTED, Status.FINISHED):
        assert text_of(Moment.ENDED, replace(MINE, status=status), room_of(), NOON, Language.EN) is None


def test_the_viewer_of_a_started_item_is_notified() -> None:
    started = replace(MINE, status=Status.STARTED)
    assert text_of(Moment.STARTED, started, room_of(started), NOON, Language.DE) == Text(
        "Jetzt bist du dran", "Sing a song"
    )


@pytest.mark.parametrize(
    ("fields", "title", "tokens", "why"),
    [
        (
            {"status": Status.ABANDONED, "abandon_reason": Reason.TIMEOUT, "wallet_status": WalletStatus.PENDING},
            "Your request was ended early",
            "Your 1,200 tokens are on their way back to you. That takes a moment.",
            "Why: Took too long",
        ),
        (
            {"status": Status.REFUNDED, "refund_reason": Reason.ADMIN_REFUND, "wallet_status": WalletStatus.DONE},
            "Your request was refunded",
            "Your 1,200 tokens are back in your balance.",
            "Why: Decided by the support team",
        ),
        (
            {"status": Status.REFUNDED, "wallet_status": WalletStatus.RETRYING},
            "Your request was refunded",
            "Your 1,200 tokens are coming back; it takes longer than usual. You needn’t do anything.",
            None,
        ),
        ({"status": Status.ABANDONED, "wallet_status": WalletStatus.DEAD}, "Your request was ended early", None, None),
    ],
)
def test_an_end_says_what_becomes_of_the_tokens(
    fields: dict[str, object], title: str, tokens: str | None, why: str | None
) -> None:
    text = text_of(Moment.ENDED, replace(MINE, tokens=1200, **fields), room_of(), NOON, Language.EN)
    assert text == Text(title, "\n".join(filter(None, ("Sing a song", tokens, why))))


def test_one_token_is_singular_and_german_has_its_own_thousands() -> None:
    ended = replace(MINE, status=Status.REFUNDED, wallet_status=WalletStatus.DONE)
    for tokens, language, said in (
        (1, Language.EN, "Your 1 token is back in your balance."),
        (1, Language.DE, "1 Token ist wieder in deinem Guthaben."),
        (12_000, Language.DE, "12.000 Token sind wieder in deinem Guthaben."),
    ):
        text = text_of(Moment.ENDED, replace(ended, tokens=tokens), room_of(), NOON, language)
        assert text is not None
        assert said in text.body


def test_a_long_title_is_cut_and_none_is_taken_for_a_template() -> None:
    for title, shown in (("ä" * 200, "ä" * 59 + "…"), ("{n} {title} %s", "{n} {title} %s")):
        mine = replace(MINE, title=title)
        room = room_of(replace(JOLENE, title=title), mine)
        assert text_of(Moment.NEXT, mine, room, NOON, Language.EN) == Text(
            f"You’re next after “{shown}”, about 2:40", shown
        )


@pytest.mark.parametrize(("seconds", "face"), [(-1, "0:00"), (59.9, "0:59"), (245, "4:05"), (3845, "1:04:05")])
def test_a_wait_is_read_like_a_stop_watch(seconds: float, face: str) -> None:
    assert stopwatch(seconds) == face
