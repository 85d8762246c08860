"""Checks the addresses that webhooks may go to, when an endpoint is registered and again for every connection.

The address of a name can change, so it is checked when a connection is made, and the connection goes to the checked
address. Redirects are never followed.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore2

from app.domain.errors import FieldError, InvalidRequest

LONGEST_URL = 2000
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""The part of IPv6 that is routed publicly; the rest is reserved, local, or a form of an IPv4 address."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""The IPv6 form of IPv4 addresses in networks with a NAT64 translator (RFC 6052)."""


class ForbiddenTarget(httpcore2.ConnectError):
    """The address is one that webhooks may not go to."""


class Targets:
    """The addresses that the operator allows.

    `hosts`: if it is not empty, webhooks may go to these hosts only, even if their addresses are private. If it is
    empty, production refuses every address that is not public, and development allows any.
    """

    def __init__(self, hosts: Collection[str], *, production: bool) -> None:
        self._hosts = frozenset(hosts)
        self._production = production

    def check(self, url: str, field: str = "url") -> None:
        """Raises InvalidRequest, which names `field`, for a URL that may not be called."""
        problem = self._problem(url)
        if problem is not None:
            raise InvalidRequest(f"The request is not valid: {field} {problem}.", errors=[FieldError(field, problem)])

    def _problem(self, url: str) -> str | None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            return "is not a URL"
        if len(url) > LONGEST_URL or not url.isascii() or any(character <= " " for character in url):
            return f"must be at most {LONGEST_URL} printable ASCII characters"
        if parts.scheme not in ("http", "https") or not host or port == 0:
            return "must be an http or https URL with a host"
        if parts.username is not None or parts.password is not None or parts.fragment:
            return "must hold neither credentials nor a fragment"
        if self._production and parts.scheme != "https":
            return "must be https"
        if self._hosts and host.lower() not in self._hosts:
            return "has a host that webhooks may not go to"
        if not self._allows_private(host) and _is_private_literal(host):
            return "has a private address"
        return None

    def _allows_private(self, host: str) -> bool:
        return not self._production or host.lower() in self._hosts

    async def address_of(self, host: str, port: int) -> str:
        """The address to connect to. Raises ForbiddenTarget if any of the host's addresses is not allowed."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # UnicodeError: the name is not valid, such as a..b
            raise httpcore2.ConnectError("the host's name has no address") from None
        addresses = [str(each[4][0]) for each in found]
        if not self._allows_private(host) and not all(map(_is_public, addresses)):
            raise ForbiddenTarget("the host has a private address")
        return addresses[0]


class GuardedBackend(httpcore2.AnyIOBackend):
    """Connects to checked addresses only. The TLS layer still verifies the host's name."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the overridden method has it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        async with asyncio.timeout(timeout):
            address = await self._targets.address_of(host, port)
        return await super().connect_tcp(address, port, timeout, local_address, socket_options)


def _is_private_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return not _is_public(host)


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # An IPv4 address can be written as several kinds of IPv6 address.
        ip = ip.ipv4_mapped or ip.sixtofour or _translated(ip) or ip
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _GLOBAL_UNICAST:
        return False
    return ip.is_global and not ip.is_multicast


def _translated(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else None
