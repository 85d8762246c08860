"""The address that a connection or request counts for.

Behind a trusted proxy it is the last address in `X-Forwarded-For` that is not a trusted proxy's: the entries before it
may be invented. An IPv6 address counts as its /64 network, the usual network of one customer; an IPv4 address mapped
into IPv6 counts as IPv4.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
Headers = Iterable[tuple[bytes, bytes]]

UNKNOWN = "unknown"
"""The address of a peer that has none: a Unix socket."""
LARGEST_FORWARDED = 1024
"""Characters of `X-Forwarded-For` that are read, from its end."""


class Proxies:
    """The proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` count (TRUSTED_PROXIES)."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = tuple(networks)
        # Saves 4 % of the CPU of an intake that comes by a proxy (`bench --without proxies`).
        self._is_trusted = lru_cache(maxsize=4096)(self._contains)

    def trusts(self, address: str | None) -> bool:
        return bool(self._networks) and address is not None and self._is_trusted(address)

    def _contains(self, address: str) -> bool:
        try:
            parsed = _parsed(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def client(self, peer: str | None, headers: Headers) -> str | None:
        """The client's address, not normalised. `peer`: the address of the connection's other end."""
        if not self.trusts(peer):
            return peer
        client = peer
        forwarded = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        for entry in reversed(forwarded[-LARGEST_FORWARDED:].decode("latin-1").split(",")):
            address = _without_port(entry.strip())
            try:
                _parsed(address)
            except ValueError:
                # No trusted proxy writes this: the address of the proxy that passed it on counts.
                break
            client = address
            if not self._is_trusted(address):
                break
        return client

    def scheme(self, peer: str | None, headers: Headers) -> str | None:
        """`http` or `https` as the proxy says; None if it says nothing, or is not trusted."""
        if not self.trusts(peer):
            return None
        said = [value.strip().lower() for name, value in headers if name == b"x-forwarded-proto"]
        return said[-1].decode() if said and said[-1] in (b"http", b"https") else None


# Saves 19 % of the CPU of an intake from an IPv6 address where requests are counted (`bench --without addresses`).
@lru_cache(maxsize=4096)
def counted_as(address: str | None) -> str:
    """The key that an address is counted under."""
    if address is None:
        return UNKNOWN
    try:
        parsed = _parsed(address)
    except ValueError:
        return UNKNOWN
    return str(parsed) if parsed.version == 4 else str(ip_network((parsed, 64), strict=False))


def _parsed(address: str) -> IPv4Address | IPv6Address:
    parsed = ip_address(address.partition("%")[0])
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed


def _without_port(entry: str) -> str:
    """Some proxies write `192.0.2.1:4711` or `[2001:db8::1]:4711`."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
