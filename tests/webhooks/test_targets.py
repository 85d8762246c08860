"""The addresses that webhooks may go to, checked for a URL and when a connection is made."""

import httpcore2
import pytest

from app.domain.errors import InvalidRequest
from app.domain.webhook import Endpoint
from app.parts import utc_now
from app.webhooks import signing
from app.webhooks.sender import Message, Sender
from app.webhooks.targets import Targets
from tests.webhooks.consumer import consumer

PRODUCTION = Targets([], production=True)
DEVELOPMENT = Targets([], production=False)


def endpoint_of(url: str) -> Endpoint:
    now = utc_now()
    return Endpoint(
        owner="wheel",
        name="main",
        url=url,
        events=None,
        secret=signing.new_secret(),
        cursor="0",
        next_attempt_at=now,
        created_at=now,
        updated_at=now,
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/hook",
        "https://[::1]/hook",
        "https://10.0.0.8/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.8]/hook",
        "https://[2002:7f00:1::]/hook",
        "https://[64:ff9b::10.0.0.8]/hook",
        "https://[64:ff9b:1::10.0.0.8]/hook",
        "https://[::10.0.0.8]/hook",
        "https://[::ffff:0:10.0.0.8]/hook",
        "https://[fec0::1]/hook",
        "https://[fe80::1]/hook",
        "https://[fd00::1]/hook",
        "https://0.0.0.0/hook",
        "https://224.0.0.1/hook",
        "http://site.example/hook",
    ],
)
def test_production_takes_https_to_public_addresses_only(url: str) -> None:
    with pytest.raises(InvalidRequest):
        PRODUCTION.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "site.example/hook",
        "ftp://site.example/hook",
        "https://",
        "https://user:secret@site.example/hook",
        "https://site.example/hook#part",
        "https://site.example:99999/hook",
        "https://site.example/a b",
        "https://site.example/\n",
        "https://site.example/" + "a" * 2000,
    ],
)
def test_a_bad_address_is_refused_everywhere(url: str) -> None:
    for targets in (PRODUCTION, DEVELOPMENT):
        with pytest.raises(InvalidRequest):
            targets.check(url)


def test_hosts_that_the_operator_names_are_the_only_ones() -> None:
    targets = Targets(["hooks.internal", "10.0.0.8"], production=True)
    targets.check("https://hooks.internal/hook")
    targets.check("https://HOOKS.internal/hook")
    targets.check("https://10.0.0.8/hook")
    with pytest.raises(InvalidRequest):
        targets.check("https://site.example/hook")


def test_public_addresses_and_development_are_free() -> None:
    for address in ("8.8.8.8", "[2606:4700::1111]", "[64:ff9b::8.8.8.8]", "[::ffff:8.8.8.8]"):
        PRODUCTION.check(f"https://{address}/hook")
    PRODUCTION.check("https://site.example:8443/hook?from=queue")
    DEVELOPMENT.check("http://127.0.0.1:9000/hook")


async def test_a_name_that_resolves_to_a_private_address_is_not_connected_to() -> None:
    async with consumer() as hook, Sender(PRODUCTION, utc_now) as sender:
        url = f"http://localhost:{hook.port}/hook"
        message = Message(message_id="evt_1", event="webhook.test", performer_id=None, version=None, body=b"{}")
        attempt = await sender.send(endpoint_of(url), message)
        assert attempt.delivery.problem == "no answer (ForbiddenTarget)"
        assert hook.connections == 0
        async with Sender(DEVELOPMENT, utc_now) as elsewhere:
            assert (await elsewhere.send(endpoint_of(url), message)).delivery.is_delivered


async def test_named_hosts_may_be_private_and_unknown_names_are_a_plain_failure() -> None:
    assert await Targets(["localhost"], production=True).address_of("localhost", 9) in ("127.0.0.1", "::1")
    with pytest.raises(httpcore2.ConnectError):
        await DEVELOPMENT.address_of("no-such-host.invalid", 9)
