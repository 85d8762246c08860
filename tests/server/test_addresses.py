"""The address that a connection counts for: peers, proxies, and the headers of both."""

from ipaddress import ip_network

import pytest

from app.server.addresses import UNKNOWN, Proxies, counted_as

PROXIES = Proxies([ip_network("10.0.0.0/8"), ip_network("2001:db8:ffff::/48")])


def forwarded(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", value.encode()) for value in values]


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["nonsense, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["1.1.1.1," * 5000 + "198.51.100.1"], "198.51.100.1"),
        ("2001:db8:ffff::1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        (None, ["198.51.100.1"], None),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxy(
    peer: str | None, values: list[str], client: str | None
) -> None:
    assert PROXIES.client(peer, forwarded(*values)) == client


def test_nobody_is_trusted_unless_named() -> None:
    assert Proxies().client("127.0.0.1", forwarded("198.51.100.1")) == "127.0.0.1"
    assert Proxies().scheme("127.0.0.1", [(b"x-forwarded-proto", b"https")]) is None


@pytest.mark.parametrize(("said", "scheme"), [(b"https", "https"), (b" HTTP ", "http"), (b"gopher", None)])
def test_a_trusted_proxy_says_how_it_was_reached(said: bytes, scheme: str | None) -> None:
    assert PROXIES.scheme("10.0.0.1", [(b"x-forwarded-proto", said)]) == scheme
    assert PROXIES.scheme("192.0.2.1", [(b"x-forwarded-proto", said)]) is None


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, UNKNOWN),
        ("/run/socket", UNKNOWN),
    ],
)
def test_an_ipv6_address_counts_by_its_network_of_64_bits(address: str | None, name: str) -> None:
    assert counted_as(address) == name
