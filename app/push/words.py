"""The texts of notifications; keys and texts are those of the viewer's page (static/messages)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.domain.item import Item, Status, WalletStatus
from app.domain.push import Language, Moment
from app.domain.room import Room

LONGEST_TITLE = 60
"""Characters of an item's title that are shown; a lock screen has room for no more."""

Message = str | tuple[str, str]
"""A text, or its singular and its plural form."""

MESSAGES: Mapping[Language, Mapping[str, Message]] = {
    Language.EN: {
        "queue.item.next_up_notice": "You’re next. Get ready!",
        "notice.outlook": "You’re next after “{title}”, about {time}",
        "hero.onStage": "You’re on stage now",
        "outcome.abandoned": "Your request was ended early",
        "outcome.refunded": "Your request was refunded",
        "outcome.why": "Why: {reason}",
        "refund.back": ("Your {n} token is back in your balance.", "Your {n} tokens are back in your balance."),
        "refund.coming": (
            "Your {n} token is on its way back to you. That takes a moment.",
            "Your {n} tokens are on their way back to you. That takes a moment.",
        ),
        "refund.slow": (
            "Your {n} token is coming back; it takes longer than usual. You needn’t do anything.",
            "Your {n} tokens are coming back; it takes longer than usual. You needn’t do anything.",
        ),
        "reason.performer_disconnected": "The performer lost the connection",
        "reason.performer_declined": "Declined by the performer",
        "reason.user_cancelled": "Cancelled by the viewer",
        "reason.timeout": "Took too long",
        "reason.technical_error": "Technical problem",
        "reason.admin_refund": "Decided by the support team",
    },
    Language.DE: {
        "queue.item.next_up_notice": "Du bist als Nächstes dran. Mach dich bereit!",
        "notice.outlook": "Nach „{title}“ bist du dran, in etwa {time}",
        "hero.onStage": "Jetzt bist du dran",
        "outcome.abandoned": "Dein Wunsch wurde vorzeitig beendet",
        "outcome.refunded": "Dein Wunsch wurde erstattet",
        "outcome.why": "Grund: {reason}",
        "refund.back": ("{n} Token ist wieder in deinem Guthaben.", "{n} Token sind wieder in deinem Guthaben."),
        "refund.coming": (
            "{n} Token ist auf dem Weg zurück zu dir. Das dauert einen Moment.",
            "{n} Token sind auf dem Weg zurück zu dir. Das dauert einen Moment.",
        ),
        "refund.slow": (
            "{n} Token kommt zurück; es dauert länger als sonst. Du musst nichts tun.",
            "{n} Token kommen zurück; es dauert länger als sonst. Du musst nichts tun.",
        ),
        "reason.performer_disconnected": "Die Verbindung zur Bühne ist abgerissen",
        "reason.performer_declined": "Von der Bühne abgelehnt",
        "reason.user_cancelled": "Vom Zuschauer zurückgezogen",
        "reason.timeout": "Hat zu lange gedauert",
        "reason.technical_error": "Technisches Problem",
        "reason.admin_refund": "Vom Support entschieden",
    },
}


@dataclass(frozen=True, slots=True)
class Text:
    title: str
    body: str


def text_of(moment: Moment, item: Item, room: Room, now: datetime, language: Language) -> Text | None:
    """The text for a moment of an item, from the present state; None: the moment is over."""
    match moment:
        case Moment.NEXT if room.head is not None and room.head.item_id == item.item_id:
            return Text(_next_up(item, room, now, language), clamped(item.title))
        case Moment.STARTED if item.status is Status.STARTED:
            return Text(_say(language, "hero.onStage"), clamped(item.title))
        case Moment.ENDED if item.status in (Status.ABANDONED, Status.REFUNDED):
            lines = clamped(item.title), _tokens(item, language), _why(item, language)
            return Text(_say(language, f"outcome.{item.status}"), "\n".join(filter(None, lines)))
        case _:
            return None


def _next_up(item: Item, room: Room, now: datetime, language: Language) -> str:
    """The title for the next item. It names a time only if an item is on stage and the room is not paused."""
    if room.started is None or room.settings.paused:
        return _say(language, "queue.item.next_up_notice")
    position = room.position(item.item_id)
    wait = room.waits(now, position)[position - 1]
    seconds = wait.seconds if wait.range_seconds is None else sum(wait.range_seconds) / 2
    return _say(language, "notice.outlook", title=clamped(room.started.title), time=stopwatch(seconds))


def _tokens(item: Item, language: Language) -> str:
    """The sentence about the tokens; empty if the wallet has refused, because the page then shows a reference."""
    if item.wallet_status in (WalletStatus.DEAD, WalletStatus.WRITTEN_OFF):
        return ""
    if item.status is Status.REFUNDED and item.wallet_status is WalletStatus.DONE:
        return _say(language, "refund.back", item.tokens)
    slow = item.wallet_status is WalletStatus.RETRYING
    return _say(language, "refund.slow" if slow else "refund.coming", item.tokens)


def _why(item: Item, language: Language) -> str:
    reason = item.refund_reason or item.abandon_reason
    return "" if reason is None else _say(language, "outcome.why", reason=_say(language, f"reason.{reason}"))


def _say(language: Language, key: str, n: int = 0, **params: str) -> str:
    message = MESSAGES[language][key]
    if isinstance(message, tuple):
        message = message[n != 1]
    number = f"{n:,}" if language is Language.EN else f"{n:,}".replace(",", ".")
    return message.format(n=number, **params)


def clamped(title: str) -> str:
    return title if len(title) <= LONGEST_TITLE else f"{title[: LONGEST_TITLE - 1].rstrip()}…"


def stopwatch(seconds: float) -> str:
    """A duration as the page writes it: 4:05, 1:04:05."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
