import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from jwt.utils import base64url_encode

from app.access import auth
from app.access.auth import Authenticator, Principal, sign
from app.domain.command import Actor, Role
from app.domain.errors import TokenExpired, Unauthorized

SECRET = "a-shared-key-for-tests-of-32-bytes-or-more"
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **period: float) -> None:
        self.now += timedelta(**period)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(clock: Clock) -> Authenticator:
    return Authenticator(secret=SECRET, clock=clock)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a valid viewer's token, with changes; a change to `...` removes a claim."""
    good = {"sub": "ada", "role": "viewer", "exp": int((NOW + HOUR).timestamp())}
    return {name: value for name, value in (good | changes).items() if value is not ...}


def token(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers={"kid": kid} if kid else None)


def by_hand(header: object, payload: object, signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
    return b".".join(base64url_encode(part) for part in parts).decode()


async def refusal(authenticator: Authenticator, presented: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        await authenticator.principal(presented)
    if presented:
        assert presented not in caught.value.detail
    return caught.value.detail


# Valid tokens


@pytest.mark.parametrize(
    ("role", "sub", "performer_id", "room"),
    [
        (Role.FEATURE, "wheel-of-fortune", None, None),
        (Role.VIEWER, "user:42", None, None),
        (Role.PERFORMER, "mira", None, "mira"),
        (Role.MODERATOR, "max", "mira", "mira"),
        (Role.ADMIN, "ops", None, None),
    ],
)
async def test_a_signed_token_comes_back_as_its_principal(
    authenticator: Authenticator, role: Role, sub: str, performer_id: str | None, room: str | None
) -> None:
    principal = await authenticator.principal(sign(SECRET, role, sub, performer_id=performer_id, now=NOW))
    assert principal == Principal(role=role, sub=sub, performer_id=room, expires_at=NOW + HOUR)
    assert principal.actor == Actor(role=role, id=sub)


@pytest.mark.parametrize("role", ["viewer", "feature", "admin"])
async def test_a_performer_id_in_another_roles_token_gives_no_room(authenticator: Authenticator, role: str) -> None:
    assert (await authenticator.principal(token(role=role, performerId="mira"))).performer_id is None


async def test_a_performers_room_is_its_sub_whatever_else_the_token_says(authenticator: Authenticator) -> None:
    principal = await authenticator.principal(token(role="performer", sub="mira", performerId="zoe"))
    assert principal.performer_id == "mira"


async def test_a_fraction_of_a_second_is_a_time_too(authenticator: Authenticator) -> None:
    principal = await authenticator.principal(token(exp=NOW.timestamp() + 0.5))
    assert principal.expires_at == NOW + timedelta(seconds=0.5)


async def test_issuer_and_audience_are_checked_where_they_are_set(clock: Clock) -> None:
    strict = Authenticator(secret=SECRET, clock=clock, issuer="https://site.example", audience="queue")
    good = sign(SECRET, Role.VIEWER, "ada", now=NOW, issuer="https://site.example", audience="queue")
    assert (await strict.principal(good)).sub == "ada"
    several = token(iss="https://site.example", aud=["chat", "queue"])
    assert (await strict.principal(several)).sub == "ada"

    assert await refusal(strict, token(iss="https://evil.example", aud="queue")) == (
        "The token comes from another issuer."
    )
    assert await refusal(strict, token(iss="https://site.example", aud="chat")) == (
        "The token is meant for another audience."
    )
    assert await refusal(strict, token(aud="queue")) == 'The token lacks the claim "iss".'
    assert await refusal(strict, token(iss="https://site.example")) == 'The token lacks the claim "aud".'


async def test_a_token_for_a_named_audience_is_not_taken_by_a_service_without_a_name(
    authenticator: Authenticator,
) -> None:
    assert await refusal(authenticator, token(aud="billing")) == "The token is meant for another audience."


# Time


async def test_a_token_expires_even_when_it_was_good_a_moment_ago(authenticator: Authenticator, clock: Clock) -> None:
    presented = token(exp=int(NOW.timestamp()) + 60)
    await authenticator.principal(presented)
    clock.advance(seconds=59)
    await authenticator.principal(presented)
    clock.advance(seconds=1 + auth.LEEWAY.total_seconds())
    with pytest.raises(TokenExpired, match=r"The token has expired\."):
        await authenticator.principal(presented)


async def test_only_of_a_good_token_the_answer_says_that_it_has_expired(authenticator: Authenticator) -> None:
    forged = token("another-key-for-tests-of-32-bytes-or-more", exp=0)
    assert await refusal(authenticator, forged) == auth.NOT_VALID


async def test_clocks_may_differ_by_the_leeway_and_no_more(authenticator: Authenticator) -> None:
    leeway, now = auth.LEEWAY.total_seconds(), NOW.timestamp()
    await authenticator.principal(token(exp=now - leeway + 1))
    await authenticator.principal(token(nbf=now + leeway))
    assert await refusal(authenticator, token(exp=now - leeway)) == "The token has expired."
    assert await refusal(authenticator, token(nbf=now + leeway + 1)) == "The token is not valid yet."


# Forged and broken tokens


async def test_without_a_token_the_refusal_asks_for_one(authenticator: Authenticator) -> None:
    assert await refusal(authenticator, "") == "A bearer token is needed."


FORGED = {
    "another key": token("another-key-for-tests-of-32-bytes-or-more"),
    "no algorithm": by_hand({"typ": "JWT"}, claims(), b"signature"),
    "alg none": by_hand({"alg": "none", "typ": "JWT"}, claims()),
    "alg None": by_hand({"alg": "None", "typ": "JWT"}, claims(), b"x"),
    "alg null": by_hand({"alg": None}, claims(), b"x"),
    "alg a list": by_hand({"alg": ["HS256"]}, claims(), b"x"),
    "HS384 of the right key": token(algorithm="HS384", key=SECRET * 2),
    "claims changed": ".".join(
        [token().split(".")[0], by_hand({}, claims(role="admin")).split(".")[1], token().split(".")[2]]
    ),
    "signature cut off": token().rpartition(".")[0] + ".",
    "not a token": "hello",
    "two dots": "..",
    "header not JSON": "AAAA.AAAA.AAAA",
    "header a list": by_hand([], claims(), b"x"),
    "header nested deeply": base64url_encode(b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}").decode() + ".e30.eA",
    "not ASCII": token() + "é",
    "lone surrogate": token() + "\ud800",
    "control characters": "\x00" + token(),
    "huge": "A" * 10_000_000,
    "huge but well formed": token(filler="x" * auth.MAXIMUM_TOKEN_LENGTH),
    "kid a number": by_hand({"alg": "HS256", "kid": 7}, claims(), b"x"),
    "crit unknown": jwt.encode(claims(), SECRET, algorithm="HS256", headers={"crit": ["x"], "x": 1}),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
async def test_a_forged_or_broken_token_is_not_valid(authenticator: Authenticator, forged: str) -> None:
    assert await refusal(authenticator, forged) == auth.NOT_VALID


NOT_TIMES: list[object] = ["9999999999", True, [], {}, float("nan"), float("inf"), 1e300, -1e300, 10**400]
NOT_ROLES: list[object] = ["system", "root", "ADMIN", "", 1, True, ["admin"], {"admin": True}]
NOT_IDS: list[object] = ["", "x" * 65, "a b", "ada\n", "ä", "../admin", 7, False, ["ada"], {}]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"exp": ...}, 'The token lacks the claim "exp".'),
        ({"sub": ...}, 'The token lacks the claim "sub".'),
        ({"role": ...}, 'The token lacks the claim "role".'),
        ({"exp": None}, 'The token lacks the claim "exp".'),
        *(({"exp": value}, 'The token\'s claim "exp" is not a time in seconds.') for value in NOT_TIMES),
        *(({"nbf": value}, 'The token\'s claim "nbf" is not a time in seconds.') for value in (None, *NOT_TIMES)),
        *(({"role": value}, "The token's role is not one that may ask for anything here.") for value in NOT_ROLES),
        *(({"sub": value}, "The token's sub is not 1 to 64 letters, digits or any of _ . : -") for value in NOT_IDS),
        *(
            ({"role": "moderator", "performerId": value}, "A moderator's token needs the performerId of a room.")
            for value in (..., None, *NOT_IDS)
        ),
    ],
)
async def test_a_claim_that_is_missing_or_of_the_wrong_kind_is_named(
    authenticator: Authenticator, changes: dict[str, Any], sentence: str
) -> None:
    encoded = by_hand({"alg": "HS256"}, claims(**changes)).rpartition(".")[0]
    signature = jwt.get_algorithm_by_name("HS256").sign(encoded.encode(), SECRET.encode())
    assert await refusal(authenticator, f"{encoded}.{base64url_encode(signature).decode()}") == sentence


async def test_claims_that_are_not_an_object_are_not_valid(authenticator: Authenticator) -> None:
    presented = jwt.PyJWS().encode(b"[1]", SECRET.encode(), algorithm="HS256")
    assert await refusal(authenticator, presented) == auth.NOT_VALID


async def test_the_last_day_of_the_calendar_is_a_time_like_any_other(authenticator: Authenticator) -> None:
    presented = token(exp=int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()))
    assert (await authenticator.principal(presented)).sub == "ada"


# Longest life and changed keys


@pytest.mark.parametrize(
    ("changes", "is_taken"),
    [
        ({"exp": NOW.timestamp() + 600}, True),
        ({"exp": NOW.timestamp() + 601}, False),
        ({"iat": NOW.timestamp() - 500, "exp": NOW.timestamp() + 100}, True),
        ({"iat": NOW.timestamp() - 500, "exp": NOW.timestamp() + 101}, False),
        # An iat that is still to come shortens nothing.
        ({"iat": NOW.timestamp() + 5000, "exp": NOW.timestamp() + 5001}, False),
        ({"exp": int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())}, False),
    ],
)
async def test_a_token_that_lives_longer_than_is_allowed_is_refused(
    clock: Clock, changes: dict[str, Any], is_taken: bool
) -> None:
    limited = Authenticator(secret=SECRET, clock=clock, max_token_seconds=600)
    presented = token(**changes)
    if is_taken:
        assert (await limited.principal(presented)).sub == "ada"
    else:
        assert await refusal(limited, presented) == "The token's life is longer than 600 seconds."
        assert (await Authenticator(secret=SECRET, clock=clock).principal(presented)).sub == "ada"


async def test_the_time_of_issue_must_be_a_time_where_it_counts(clock: Clock) -> None:
    limited = Authenticator(secret=SECRET, clock=clock, max_token_seconds=600)
    presented = jwt.PyJWS().encode(json.dumps(claims(iat="now")).encode(), SECRET.encode(), algorithm="HS256")
    assert await refusal(limited, presented) == 'The token\'s claim "iat" is not a time in seconds.'


async def test_a_key_that_was_replaced_is_accepted_beside_the_new_one_and_no_third(clock: Clock) -> None:
    old, new = "the-key-of-last-year-of-32-bytes-or-more", "the-key-of-this-year-of-32-bytes-or-more"
    changing = Authenticator(secret=new, previous_secret=old, clock=clock)
    for number, key in enumerate((old, new)):
        assert (await changing.principal(token(key, sub=f"user-{number}"))).sub == f"user-{number}"
    assert await refusal(changing, token()) == auth.NOT_VALID
    # Any other error is reported for a token of either key.
    assert await refusal(changing, token(old, exp=...)) == 'The token lacks the claim "exp".'
    assert await refusal(Authenticator(secret=new, clock=clock), token(old)) == auth.NOT_VALID


# Remembered tokens


async def test_a_token_is_verified_once_while_it_is_believed(authenticator: Authenticator, clock: Clock) -> None:
    presented = token()
    first = await authenticator.principal(presented)
    assert await authenticator.principal(presented) is first
    clock.advance(seconds=auth.VERIFIED_FOR.total_seconds())
    again = await authenticator.principal(presented)
    assert again == first
    assert again is not first


async def test_only_so_many_tokens_are_remembered_the_newest(clock: Clock) -> None:
    authenticator = Authenticator(secret=SECRET, clock=clock, remembered_tokens=10)
    presented = [token(sub=f"user-{number}") for number in range(100)]
    principals = [await authenticator.principal(each) for each in presented]
    for each, principal in zip(presented[-10:], principals[-10:], strict=True):
        assert await authenticator.principal(each) is principal
    assert await authenticator.principal(presented[-11]) is not principals[-11]


async def test_a_refused_token_is_not_remembered_in_place_of_a_good_one(clock: Clock) -> None:
    authenticator = Authenticator(secret=SECRET, clock=clock, remembered_tokens=1)
    presented = token()
    principal = await authenticator.principal(presented)
    await refusal(authenticator, token("another-key-for-tests-of-32-bytes-or-more"))
    assert await authenticator.principal(presented) is principal


# Signing


@pytest.mark.parametrize(
    ("role", "sub", "performer_id", "ttl_seconds", "sentence"),
    [
        (Role.SYSTEM, "timer", None, 60, "role"),
        (Role.VIEWER, "a b", None, 60, "sub"),
        (Role.MODERATOR, "max", None, 60, "performerId"),
        (Role.VIEWER, "ada", None, -60, "expired"),
        (Role.VIEWER, "ada", None, 601, "longer than 600 seconds"),
    ],
)
def test_a_token_that_would_be_refused_is_not_signed(
    role: Role, sub: str, performer_id: str | None, ttl_seconds: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        sign(
            SECRET,
            role,
            sub,
            performer_id=performer_id,
            ttl_seconds=ttl_seconds,
            now=NOW,
            max_token_seconds=600,
        )
