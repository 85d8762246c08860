import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.utils import base64url_encode

from app.access import auth
from app.access.auth import Authenticator, Principal, sign
from app.domain.command import Actor, Role
from app.domain.errors import TokenExpired, Unauthorized, Unavailable

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
    """A good viewer's claims with some changed; a change to `...` takes one away."""
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


# What a good token means


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


async def test_only_a_good_token_is_told_that_it_has_expired(authenticator: Authenticator) -> None:
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


# What is remembered


async def test_a_token_is_verified_once_while_it_is_believed(
    authenticator: Authenticator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    presented = token()
    first = await authenticator.principal(presented)
    monkeypatch.setattr(authenticator, "_secret", "the key has been changed since then, for all tokens")
    assert await authenticator.principal(presented) is first
    assert await refusal(authenticator, token(sub="bob")) == auth.NOT_VALID
    clock.advance(seconds=auth.VERIFIED_FOR.total_seconds())
    assert await refusal(authenticator, presented) == auth.NOT_VALID


async def test_only_so_many_tokens_are_remembered_the_newest(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "VERIFIED_LIMIT", 10)
    presented = [token(sub=f"user-{number}") for number in range(100)]
    for each in presented:
        await authenticator.principal(each)
    assert len(authenticator._verified) == 10
    monkeypatch.setattr(authenticator, "_secret", "the key has been changed since then, for all tokens")
    for each in presented[-10:]:
        await authenticator.principal(each)
    assert await refusal(authenticator, presented[-11]) == auth.NOT_VALID


async def test_a_refused_token_is_not_remembered(authenticator: Authenticator) -> None:
    await refusal(authenticator, token("another-key-for-tests-of-32-bytes-or-more"))
    assert authenticator._verified == {}


# Signing


@pytest.mark.parametrize(
    ("role", "sub", "performer_id", "ttl_seconds", "sentence"),
    [
        (Role.SYSTEM, "timer", None, 60, "role"),
        (Role.VIEWER, "a b", None, 60, "sub"),
        (Role.MODERATOR, "max", None, 60, "performerId"),
        (Role.VIEWER, "ada", None, -60, "expired"),
    ],
)
def test_a_token_that_would_be_refused_is_not_signed(
    role: Role, sub: str, performer_id: str | None, ttl_seconds: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        sign(SECRET, role, sub, performer_id=performer_id, ttl_seconds=ttl_seconds, now=NOW)


# The host site's own keys


class HostSite:
    """A host site that publishes a JWKS; a test says which keys, and whether it answers."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.published = [self.jwk(self.rsa, "rsa-1"), self.jwk(self.ec, "ec-1")]
        self.status = 200
        self.body: bytes | None = None
        self.fetches = 0
        self.answering = threading.Event()
        self.answering.set()
        self.asked = threading.Event()
        self.url = ""

    @staticmethod
    def jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str) -> dict[str, Any]:
        public = key.public_key()
        shown = (
            jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
            if isinstance(public, rsa.RSAPublicKey)
            else jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
        )
        return {**shown, "kid": kid, "use": "sig"}

    @contextmanager
    def running(self) -> Iterator["HostSite"]:
        site = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.fetches += 1
                site.asked.set()
                site.answering.wait(10)
                body = json.dumps({"keys": site.published}).encode() if site.body is None else site.body
                self.send_response(site.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
            self.url = f"http://127.0.0.1:{server.server_port}/jwks.json"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


@pytest.fixture
def site() -> Iterator[HostSite]:
    with HostSite().running() as site:
        yield site


@pytest.fixture
def federated(site: HostSite, clock: Clock) -> Authenticator:
    return Authenticator(secret=SECRET, clock=clock, jwks_url=site.url)


async def test_tokens_of_the_host_site_are_verified_by_its_published_keys(
    federated: Authenticator, site: HostSite
) -> None:
    assert (await federated.principal(token(site.rsa, "RS256", "rsa-1", sub="ada"))).sub == "ada"
    assert (await federated.principal(token(site.ec, "ES256", "ec-1", sub="bob"))).sub == "bob"
    assert site.fetches == 1


async def test_the_shared_key_is_not_taken_once_public_keys_are_configured(
    federated: Authenticator, site: HostSite
) -> None:
    assert await refusal(federated, token(SECRET, "HS256", "rsa-1")) == auth.NOT_VALID
    assert site.fetches == 0


async def test_a_published_key_is_never_used_as_a_shared_one(federated: Authenticator, site: HostSite) -> None:
    public = site.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signing_input = by_hand({"alg": "HS256", "kid": "rsa-1"}, claims(role="admin")).rpartition(".")[0]
    signature = jwt.get_algorithm_by_name("HS256").sign(signing_input.encode(), public)
    assert await refusal(federated, f"{signing_input}.{base64url_encode(signature).decode()}") == auth.NOT_VALID


async def test_a_shared_key_that_a_host_site_publishes_by_mistake_is_not_taken(
    federated: Authenticator, site: HostSite
) -> None:
    site.published.append({"kty": "oct", "kid": "oops", "k": base64url_encode(SECRET.encode()).decode()})
    assert await refusal(federated, token(SECRET, "HS256", "oops")) == auth.NOT_VALID


async def test_the_algorithm_is_the_keys_and_not_the_tokens(federated: Authenticator, site: HostSite) -> None:
    assert await refusal(federated, token(site.ec, "ES256", "rsa-1")) == auth.NOT_VALID
    assert await refusal(federated, token(site.rsa, "RS512", "rsa-1")) == auth.NOT_VALID
    assert await refusal(federated, token(site.rsa, "PS256", "rsa-1")) == auth.NOT_VALID


async def test_a_key_of_somebody_else_under_a_known_name_is_not_valid(federated: Authenticator) -> None:
    theirs = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert await refusal(federated, token(theirs, "RS256", "rsa-1")) == auth.NOT_VALID


async def test_a_broken_token_is_refused_without_asking_the_host_site(federated: Authenticator, site: HostSite) -> None:
    for forged in ("hello", by_hand({"alg": "none"}, claims()), by_hand({"alg": "RS256", "kid": 7}, claims(), b"x")):
        assert await refusal(federated, forged) == auth.NOT_VALID
    assert await refusal(federated, token(site.rsa, "RS256")) == "The token does not name its key (kid)."
    assert site.fetches == 0


async def test_a_new_key_is_found_and_made_up_key_ids_do_not_make_a_storm(
    federated: Authenticator, site: HostSite, clock: Clock
) -> None:
    await federated.principal(token(site.rsa, "RS256", "rsa-1"))
    for number in range(100):
        assert await refusal(federated, token(site.rsa, "RS256", f"made-up-{number}")) == (
            "The token is signed with an unknown key."
        )
    assert site.fetches == 1

    site.published.append(site.jwk(site.ec, "ec-2"))
    clock.advance(seconds=auth.FETCHES_APART.total_seconds())
    await federated.principal(token(site.ec, "ES256", "ec-2"))
    assert site.fetches == 2


async def test_a_clock_that_is_put_back_does_not_put_off_the_next_fetch(
    federated: Authenticator, site: HostSite, clock: Clock
) -> None:
    await federated.principal(token(site.rsa, "RS256", "rsa-1"))
    site.published.append(site.jwk(site.ec, "ec-2"))
    clock.advance(hours=-2)
    await federated.principal(token(site.ec, "ES256", "ec-2"))
    assert site.fetches == 2


async def test_a_withdrawn_key_stops_working(federated: Authenticator, site: HostSite, clock: Clock) -> None:
    presented = token(site.rsa, "RS256", "rsa-1")
    await federated.principal(presented)
    del site.published[0]
    clock.advance(seconds=auth.VERIFIED_FOR.total_seconds())
    await federated.principal(presented)  # starts the fetch and does not wait for it
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "fetch-jwks"))
    clock.advance(seconds=auth.VERIFIED_FOR.total_seconds())
    assert await refusal(federated, presented) == "The token is signed with an unknown key."


@pytest.mark.parametrize(
    ("status", "body"), [(500, None), (404, b""), (200, b"<html>"), (200, b"[]"), (200, b'{"keys":[]}'), (302, b"")]
)
async def test_keys_that_cannot_be_had_are_a_503_and_not_a_refusal(
    federated: Authenticator,
    site: HostSite,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: bytes | None,
) -> None:
    site.status, site.body = status, body
    presented = token(site.rsa, "RS256", "rsa-1")
    for _ in range(20):
        with pytest.raises(Unavailable) as caught:
            await federated.principal(presented)
        assert caught.value.retry_after_seconds == 10
    assert site.fetches == 1
    assert len(caplog.messages) == 1
    assert "were not fetched" in caplog.text
    assert presented not in caplog.text

    site.status, site.body = 200, None
    clock.advance(seconds=auth.FETCHES_APART.total_seconds())
    assert (await federated.principal(presented)).sub == "ada"


async def test_a_host_site_that_is_not_there_is_a_503(clock: Clock) -> None:
    with HostSite().running() as site:
        gone = site.url
    federated = Authenticator(secret=SECRET, clock=clock, jwks_url=gone)
    with pytest.raises(Unavailable):
        await federated.principal(token(site.rsa, "RS256", "rsa-1"))


async def test_known_keys_outlive_a_host_site_in_trouble_for_a_while(
    federated: Authenticator, site: HostSite, clock: Clock
) -> None:
    await federated.principal(token(site.rsa, "RS256", "rsa-1"))
    site.status = 500
    late = int((NOW + 3 * HOUR).timestamp())
    clock.advance(minutes=59)
    assert (await federated.principal(token(site.rsa, "RS256", "rsa-1", exp=late))).sub == "ada"
    with pytest.raises(Unavailable):
        await federated.principal(token(site.rsa, "RS256", "a-newer-one", exp=late))
    clock.advance(minutes=1)
    with pytest.raises(Unavailable):
        await federated.principal(token(site.rsa, "RS256", "rsa-1", sub="bob", exp=late))


async def test_one_fetch_serves_all_who_wait_and_survives_one_who_leaves(
    federated: Authenticator, site: HostSite
) -> None:
    site.answering.clear()
    waiting = [
        asyncio.create_task(federated.principal(token(site.rsa, "RS256", "rsa-1", sub=f"user-{number}")))
        for number in range(5)
    ]
    await asyncio.to_thread(site.asked.wait, 10)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    site.answering.set()
    principals = await asyncio.gather(*waiting[1:])
    assert [principal.sub for principal in principals] == ["user-1", "user-2", "user-3", "user-4"]
    assert site.fetches == 1
