"""The invented people, features and requests of a simulated day.

Constants, and functions that draw from them; a draw depends only on the `Random` that is passed in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Something that users can request. `notes`: examples of their messages. `seconds` None: no declared duration."""

    title: str
    tokens: int
    seconds: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """A feature of the host site: its sourceFeature, the prefix of its event ids, and its offers."""

    feature: str
    event: str
    offers: tuple[Offer, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A user's request, before its feature holds tokens and posts the intake."""

    catalogue: Catalogue
    performer_id: str
    user_id: str
    title: str
    description: str
    tokens: int
    seconds: int | None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    passes_through: bool = False
    """The request is settled at once and never queued (queueMode off)."""


TIP_MENU = Catalogue(
    feature="tip-menu",
    event="tip",
    weight=3,
    offers=(
        Offer(
            title="Shout-out on stream",
            tokens=25,
            seconds=8,
            notes=(
                "It is my sister's birthday, her name is Lena.",
                "Greetings from rainy Bergen!",
                "Please say hello to the night shift at ward 4.",
            ),
        ),
        Offer(
            title="Tell your best joke",
            tokens=40,
            seconds=15,
            notes=("The worse the better.", "One with a duck in it, please.", "My coffee is ready to be spat out."),
        ),
        Offer(
            title="Sing a chorus",
            tokens=120,
            seconds=25,
            notes=(
                "Anything from the eighties.",
                "The one you sang on Tuesday, it has been in my head ever since.",
                "Something slow, I am going to propose tonight.",
            ),
        ),
        Offer(
            title="Ten push-ups",
            tokens=60,
            seconds=20,
            notes=("Count out loud!", "I will do them with you.", "Half of them on one arm for double the respect."),
        ),
        Offer(
            title="Name my plant",
            tokens=30,
            seconds=10,
            notes=("It is a fern and very dramatic.", "A small cactus, lost one arm last winter."),
        ),
        Offer(
            title="Read a tongue twister",
            tokens=45,
            seconds=12,
            notes=("The one with the thistles. Three times.", "Faster than last week!"),
        ),
        Offer(
            title="Pick my next book",
            tokens=30,
            seconds=14,
            notes=("No vampires, please.", "I liked the one about the lighthouse keeper."),
        ),
        Offer(
            title="Song request",
            tokens=150,
            seconds=25,
            notes=("Something we can sing along to.", "The sad one. You know which.", "Your own newest one!"),
        ),
        Offer(
            title="Balance a spoon",
            tokens=55,
            seconds=17,
            notes=("On the nose, with a smile.", "My record is eleven seconds, beat that."),
        ),
        Offer(
            title="Say it in Italian",
            tokens=40,
            seconds=9,
            notes=("“The soup is cold but my heart is warm.”", "“I would like to return this lamp.”"),
        ),
        Offer(
            title="Show us your desk",
            tokens=35,
            seconds=None,
            notes=("All of it. Also the part behind the camera.", "Is that the famous mug?"),
        ),
    ),
)

WHEEL = Catalogue(
    feature="wheel",
    event="spin",
    weight=2,
    offers=(
        Offer(title="Wheel: accent for a minute", tokens=80, seconds=18, notes=("Scottish!", "Surprise us.")),
        Offer(
            title="Wheel: dance break",
            tokens=90,
            seconds=22,
            notes=("The wheel has spoken.", "With the chair as a partner, please."),
        ),
        Offer(
            title="Wheel: truth question",
            tokens=50,
            seconds=16,
            notes=("What was your first gig like?", "Which song can you not hear any more?"),
        ),
        Offer(
            title="Wheel: whisper a minute",
            tokens=65,
            seconds=20,
            notes=("The whole weather report.", "Like a nature film about us."),
        ),
        Offer(
            title="Wheel: swap the hat",
            tokens=45,
            seconds=10,
            notes=("The one with the feather.", "Whatever is nearest."),
        ),
        Offer(
            title="Wheel: draw the chat's idea",
            tokens=110,
            seconds=25,
            notes=("A lighthouse with stage fright.", "A cat that files tax returns."),
        ),
    ),
)

SLOT_MACHINE = Catalogue(
    feature="slot-machine",
    event="pull",
    weight=1.5,
    offers=(
        Offer(
            title="Jackpot: full song",
            tokens=500,
            seconds=25,
            notes=("Three cherries! I want the one about the sea.", "I never win anything. Play whatever you like!"),
        ),
        Offer(
            title="Two of a kind: guitar riff",
            tokens=75,
            seconds=12,
            notes=("In a minor key.", "The opening one, loud."),
        ),
        Offer(
            title="Double bells: drum solo",
            tokens=130,
            seconds=20,
            notes=("On the table if need be.", "My neighbours deserve this."),
        ),
        Offer(
            title="Lucky seven: seven compliments",
            tokens=77,
            seconds=14,
            notes=("For my grandmother, she is watching.", "For the moderator, who has had a long day."),
        ),
    ),
)

CATALOGUES = (TIP_MENU, WHEEL, SLOT_MACHINE)

APPLAUSE = Offer(title="A round of applause", tokens=10, seconds=None, notes=("Just because.", "That was lovely."))
"""A request that the performer does not have to perform."""

PERFORMERS = ("mira", "nova", "juno", "aria", "tess", "remy", "iris", "otto", "kai", "lou")
USERS = (
    "ada",
    "ben.k",
    "carla77",
    "dario",
    "emil",
    "fatima",
    "gus",
    "hana",
    "ivo",
    "jonas_w",
    "kofi",
    "luna.fox",
    "marek",
    "nia",
    "oskar",
    "priya",
    "quinn",
    "rosa",
    "sam",
    "teo",
    "uma",
    "viktor",
    "wanda",
    "xenia",
    "yara",
    "zoe",
)

ANNOUNCEMENTS = (
    "Goal tonight: the whole album, start to finish",
    "New strings on, requests sound better than ever",
    "Tea break at the top of the hour",
    "Longest queue so far this week. Thank you!",
)

_REELS = ("cherry", "bell", "lemon", "seven", "star")


def performer_name(number: int) -> str:
    return _name(PERFORMERS, number)


def user_name(number: int) -> str:
    return _name(USERS, number)


def _name(names: tuple[str, ...], number: int) -> str:
    """The name at `number`; beyond the end the names repeat with a suffix."""
    again, index = divmod(number, len(names))
    return names[index] if not again else f"{names[index]}-{again + 1}"


def draw_request(random: Random, performer_id: str, user_id: str) -> Request:
    catalogue = random.choices(CATALOGUES, [each.weight for each in CATALOGUES])[0]
    offer = random.choice(catalogue.offers)
    tokens = max(1, round(offer.tokens * random.choice((1, 1, 1, 1, 1.2, 1.5, 2))))
    return Request(
        catalogue=catalogue,
        performer_id=performer_id,
        user_id=user_id,
        title=offer.title,
        description=random.choice(offer.notes),
        tokens=tokens,
        seconds=offer.seconds,
        metadata=_metadata(random, catalogue),
    )


def draw_applause(random: Random, performer_id: str, user_id: str) -> Request:
    return Request(
        catalogue=TIP_MENU,
        performer_id=performer_id,
        user_id=user_id,
        title=APPLAUSE.title,
        description=random.choice(APPLAUSE.notes),
        tokens=APPLAUSE.tokens,
        seconds=APPLAUSE.seconds,
        passes_through=True,
    )


def _metadata(random: Random, catalogue: Catalogue) -> Mapping[str, Any]:
    match catalogue.feature:
        case "wheel":
            return {"segment": random.randint(1, 12), "segments": 12}
        case "slot-machine":
            return {"reels": random.choices(_REELS, k=3)}
    return {"menu": "main"}
