"""Checks of single values: URLs, host names and keys.

The functions are pure. The text of a ValueError follows the variable's name ("must be …") and never repeats the value,
which may be a secret.
"""

import re
from ipaddress import ip_address
from itertools import pairwise
from urllib.parse import SplitResult, urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

MINIMUM_KEY_BYTES = 32
"""RFC 7518 section 3.2: an HS256 key is at least as long as the hash output."""
MINIMUM_DISTINCT = 8
"""Distinct characters of a key. 32 random hexadecimal digits have fewer with a probability of about 1 in 5,000,000."""
SHORTEST_PERIOD = 16
"""The shortest period, in characters, that a key which repeats itself may have."""

_MAILTO = re.compile(r"mailto:[^@\s\x00-\x1f]{1,64}@[A-Za-z0-9.-]{1,253}")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
_NO_SENTENCE = re.compile(r"[0-9A-Z]")
"""32 random characters of base64 are all small letters or `-` or `_` once in 10^11 keys."""
_EXAMPLE = re.compile("secret|passw|change|example|default|develop|product|testing", re.IGNORECASE)
"""Each is in a random key of 64 characters of base64 less than once in 500,000 keys."""
_REDIS_DATABASE = re.compile(r"/?[0-9]{0,5}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?")


def check_key(key: str) -> str:
    if len(key.encode()) < MINIMUM_KEY_BYTES:
        raise ValueError(f"must be at least {MINIMUM_KEY_BYTES} bytes long")
    return key


def check_bearer(token: str) -> str:
    """A bearer token travels in an HTTP header."""
    if not all("!" <= character <= "~" for character in token):
        raise ValueError("must be ASCII characters without spaces")
    return token


def check_contact(contact: str) -> str:
    """A contact for the operators of push services: a mailto: or https: URL (RFC 8292 section 2.1)."""
    if not _MAILTO.fullmatch(contact):
        try:
            is_https = http_url(contact).scheme == "https"
        except ValueError:
            is_https = False
        if not is_https:
            raise ValueError("must be mailto: and an address, or an https URL")
    return contact


def is_guessable(key: str) -> bool:
    """Whether a key is visibly not random: it has few distinct characters, a short period, mostly a sequence (`abcd…`),
    only small letters and separators as in a sentence, or contains a word that examples use."""
    if len(set(key)) < MINIMUM_DISTINCT or not _NO_SENTENCE.search(key) or _EXAMPLE.search(key):
        return True
    if any(key[period:] == key[:-period] for period in range(1, min(SHORTEST_PERIOD, len(key)))):
        return True
    steps = sum(abs(ord(after) - ord(before)) <= 1 for before, after in pairwise(key))
    return steps * 2 > len(key)


def check_host(host: str) -> str:
    """A host name or address."""
    if not is_address(host) and (not _HOST.fullmatch(host) or len(host) > 253):
        raise ValueError("must be a host name or an IP address")
    return host


def is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ip_address(host).is_loopback)


def http_url(url: str) -> SplitResult:
    """The parts of an http(s) URL with a host, a sensible port, and neither a user nor a fragment."""
    if _BLANK.search(url):
        raise ValueError("must not contain spaces")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme not in ("http", "https") or port == 0:
            raise ValueError
        check_host(host)
    except ValueError:
        raise ValueError("must be an http(s) URL with a host and, at most, a port from 1 to 65535") from None
    if parts.username is not None or parts.password is not None or "#" in url:
        raise ValueError("must be a URL without a user, a password or a fragment")
    return parts


def check_base_url(url: str) -> str:
    """An http(s) URL that paths are appended to."""
    if http_url(url).query or "?" in url:
        raise ValueError("must be a base URL without a query")
    return url.rstrip("/")


def is_origin(origin: str) -> bool:
    """Whether this is an origin as a browser sends it: scheme, host in small letters, port; no path."""
    try:
        parts = http_url(origin)
    except ValueError:
        return False
    return origin == f"{parts.scheme}://{parts.netloc.lower()}"


def check_database_url(url: str) -> str:
    if not url.startswith(("sqlite:///", "postgresql://", "postgres://")):
        raise ValueError("must start with sqlite:/// or postgresql://")
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("must be a URL whose port is a number") from None
    if url.startswith("sqlite:"):
        _check_sqlite(parts)
    elif _BLANK.search(url):
        raise ValueError("must not contain spaces; write %20")
    elif parts.port is not None and not 1 <= parts.port <= 65535:
        raise ValueError("must have a port from 1 to 65535")
    return url


def _check_sqlite(parts: URL) -> None:
    if parts.database in (None, "", ":memory:"):
        raise ValueError("must name a file: a queue in memory would be lost")
    if parts.query:
        raise ValueError("must be sqlite:/// and a file's path without a query")


def check_redis_url(url: str) -> str:
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must start with redis://, rediss:// or unix://")
    if _BLANK.search(url):
        raise ValueError("must not contain spaces; write %20")
    try:
        parts = urlsplit(url)
        is_unix = parts.scheme == "unix"
        sensible = parts.port != 0 and bool(parts.path if is_unix else parts.hostname)
    except ValueError:
        is_unix = sensible = False
    if not sensible:
        raise ValueError("must have a host, or with unix:// a path, and at most a port from 1 to 65535")
    if not is_unix and not _REDIS_DATABASE.fullmatch(parts.path):
        # The driver would take database 0.
        raise ValueError("must have a number as its database, or none")
    return url
