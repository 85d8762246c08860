"""The host site's public keys: its tokens are verified with them, and a failing host site delays nobody."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.utils import base64url_encode

from app.access import auth, key_set
from app.access.auth import Authenticator
from app.access.key_set import KeySet
from app.domain.errors import Unavailable
from tests.access.test_auth import HOUR, NOW, SECRET, Clock, by_hand, claims, refusal, token
from tests.support.server import ok, problem, serving
from tests.support.stream_server import listening, port_of


@pytest.fixture
def clock() -> Clock:
    return Clock()


class HostSite:
    """A host site that publishes a JWKS; a test says which keys, and whether it answers."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.published = [self.jwk(self.rsa, "rsa-1"), self.jwk(self.ec, "ec-1")]
        self.status = 200
        self.body: bytes | None = None
        self.headers: dict[str, str] = {}
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
                for name, value in site.headers.items():
                    self.send_header(name, value)
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
async def keys(site: HostSite, clock: Clock) -> AsyncIterator[KeySet]:
    async with KeySet(site.url, clock) as keys:
        yield keys


@pytest.fixture
def federated(keys: KeySet, clock: Clock) -> Authenticator:
    return Authenticator(secret=SECRET, clock=clock, key_set=keys)


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
    clock.advance(seconds=key_set.FETCHES_APART.total_seconds())
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


async def test_a_withdrawn_key_stops_working_once_the_keys_are_refreshed(
    federated: Authenticator, keys: KeySet, site: HostSite, clock: Clock
) -> None:
    presented = token(site.rsa, "RS256", "rsa-1")
    await federated.principal(presented)
    del site.published[0]
    await keys.refresh()
    assert site.fetches == 1, "keys that are fresh are not fetched"
    clock.advance(seconds=key_set.KEYS_FRESH.total_seconds())
    await keys.refresh()
    assert site.fetches == 2
    assert await refusal(federated, presented) == "The token is signed with an unknown key."


@pytest.mark.parametrize(
    ("status", "body"), [(500, None), (404, b""), (200, b"<html>"), (200, b"[]"), (200, b'{"keys":[]}'), (302, b"")]
)
async def test_missing_keys_are_a_503_and_not_a_refusal(
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
    clock.advance(seconds=key_set.FETCHES_APART.total_seconds())
    assert (await federated.principal(presented)).sub == "ada"


async def test_an_unreachable_host_site_is_a_503(clock: Clock) -> None:
    with HostSite().running() as site:
        gone = site.url
    async with KeySet(gone, clock) as keys:
        federated = Authenticator(secret=SECRET, clock=clock, key_set=keys)
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


async def test_keys_are_fetched_before_the_first_token_comes(
    federated: Authenticator, keys: KeySet, site: HostSite
) -> None:
    assert not keys.is_current
    await keys.refresh()
    assert keys.is_current
    site.answering.clear()
    assert (await federated.principal(token(site.rsa, "RS256", "rsa-1"))).sub == "ada"
    assert site.fetches == 1
    site.answering.set()


async def test_keys_are_not_current_once_the_host_site_has_been_in_trouble_for_a_while(
    keys: KeySet, site: HostSite, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await keys.refresh()
    site.status = 500
    for _ in range(10):
        clock.advance(minutes=1)
        await keys.refresh()
    assert not keys.is_current
    assert caplog.text.count("were not fetched") == 1, "trouble is said once, not at every attempt"
    site.status = 200
    clock.advance(minutes=1)
    await keys.refresh()
    assert keys.is_current


@asynccontextmanager
async def dripping(answer: bytes, chunk: int, pause_seconds: float) -> AsyncIterator[str]:
    """The URL of a host that sends an answer without an end, a chunk at a time."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        while True:
            writer.write(b" " * chunk)
            await writer.drain()
            await asyncio.sleep(pause_seconds)

    async with listening(drip) as server:
        yield f"http://127.0.0.1:{port_of(server)}/jwks.json"


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("answer", [OK + b"\r\n", OK + b"X-Endless: ", b"HTTP/1.1"], ids=["body", "header", "status"])
async def test_a_host_that_drips_is_given_up_after_the_total_time(clock: Clock, site: HostSite, answer: bytes) -> None:
    async with dripping(answer, 1, 0.01) as url, KeySet(url, clock, fetch_seconds=0.3) as keys:
        federated = Authenticator(secret=SECRET, clock=clock, key_set=keys)
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await federated.principal(token(site.rsa, "RS256", "rsa-1"))


async def test_an_answer_without_end_is_given_up_at_a_size(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    async with dripping(OK + b"\r\n", 64 * 1024, 0) as url, KeySet(url, clock, fetch_seconds=60) as keys:
        async with asyncio.timeout(20):
            await keys.refresh()
    assert [record.__dict__["problem"] for record in caplog.records] == ["the answer is too large"]


async def test_the_end_does_not_wait_for_a_host_that_drips(clock: Clock) -> None:
    async with dripping(OK + b"\r\n", 1, 0.01) as url:
        async with asyncio.timeout(5):
            async with KeySet(url, clock, fetch_seconds=60) as keys:
                fetching = asyncio.create_task(keys.refresh())
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await fetching


async def test_a_service_whose_keys_drip_answers_and_ends_all_the_same(tmp_path: Path, site: HostSite) -> None:
    forged = token(site.rsa, "RS256", "rsa-1", exp=4_000_000_000)
    async with dripping(OK + b"\r\n", 1, 0.01) as url:
        # In a thread of its own: this loop is the host that drips.
        with serving(tmp_path, auth_jwks_url=url) as server:
            async with server.api() as api:
                refused = await asyncio.wait_for(api.get("/v1/users/ada/queue/items", forged), 10)
                assert problem(refused, 503, "UNAVAILABLE")["retryAfterSeconds"] == 10
                began = time.monotonic()
                ready = ok(await api.get("/readyz"))
                assert (ready["status"], ready["checks"]["tokenKeys"]) == ("degraded", "degraded")
                ok(await api.get("/healthz"))
            assert time.monotonic() - began < 2
            began = time.monotonic()
        assert time.monotonic() - began < 8


async def test_a_redirect_is_not_followed(keys: KeySet, site: HostSite) -> None:
    elsewhere = HostSite()
    with elsewhere.running():
        site.status, site.headers = 302, {"Location": elsewhere.url}
        await keys.refresh()
    assert elsewhere.fetches == 0
    assert not keys.is_current


async def test_keys_that_no_token_is_checked_with_are_left_out(
    federated: Authenticator, keys: KeySet, site: HostSite
) -> None:
    p384 = ec.generate_private_key(ec.SECP384R1())
    outsized = dict(site.published[0], kid="outsized", n=base64url_encode(b"\xff" * 2048).decode())
    site.published += [
        "no key",  # type: ignore[list-item]
        {**site.jwk(site.rsa, "for-encryption"), "use": "enc"},
        site.jwk(p384, "p-384"),
        outsized,
        {"kty": "RSA", "kid": "broken", "n": 7, "e": []},
    ]
    await keys.refresh()
    assert (await federated.principal(token(site.rsa, "RS256", "rsa-1"))).sub == "ada"
    for kid in ("for-encryption", "p-384", "outsized", "broken"):
        assert await refusal(federated, token(site.rsa, "RS256", kid)) == "The token is signed with an unknown key."
