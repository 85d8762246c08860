"""A push service on loopback, with browsers: it decrypts and checks messages by RFC 8291 and RFC 8292 with its own
code."""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.settings.vapid_key import decoded, encoded
from tests.support.server import Json
from tests.support.stream_server import listening, port_of

P256 = ec.SECP256R1()


@dataclass(frozen=True, slots=True)
class Keys:
    """A browser's side of a subscription."""

    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(P256))
    auth: bytes = field(default_factory=lambda: secrets.token_bytes(16))

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def decrypted(self, body: bytes) -> bytes:
        """The content of one message, in one record."""
        salt, size, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        sender, record = body[21 : 21 + length], body[21 + length :]
        assert len(body) <= 4096
        assert len(record) <= size
        shared = self.private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(P256, sender))
        key = _expanded(_hmac(self.auth, shared), b"WebPush: info\0" + self.public + sender, 32)
        secret = _hmac(salt, key)
        cipher = AESGCM(_expanded(secret, b"Content-Encoding: aes128gcm\0", 16))
        padded = cipher.decrypt(_expanded(secret, b"Content-Encoding: nonce\0", 12), record, None).rstrip(b"\0")
        assert padded[-1:] == b"\2"
        return padded[:-1]


def _hmac(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()


def _expanded(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF's second step, which takes one round for so few bytes."""
    return _hmac(key, info + b"\1")[:length]


def checked_claims(authorization: str, public_key: str) -> Json:
    """The claims of a VAPID header that this key has signed."""
    scheme, _, rest = authorization.partition(" ")
    fields = dict(part.strip().split("=", 1) for part in rest.split(","))
    assert (scheme, fields["k"]) == ("vapid", public_key)
    head, claims, signature = fields["t"].split(".")
    assert orjson.loads(decoded(head)) == {"typ": "JWT", "alg": "ES256"}
    numbers = decoded(signature)
    key = ec.EllipticCurvePublicKey.from_encoded_point(P256, decoded(public_key))
    der = encode_dss_signature(int.from_bytes(numbers[:32], "big"), int.from_bytes(numbers[32:], "big"))
    key.verify(der, f"{head}.{claims}".encode(), ec.ECDSA(SHA256()))
    found: Json = orjson.loads(decoded(claims))
    assert time.time() < found["exp"] <= time.time() + 24 * 3600
    return found


@dataclass(frozen=True, slots=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    content: Json
    """The message as the browser reads it."""


@dataclass(slots=True)
class PushService:
    port: int = 0
    received: list[Received] = field(default_factory=list)
    answer: Callable[[Received], tuple[int, str]] = lambda _: (201, "")
    """Status and further header lines, each ended by CRLF."""
    hold: asyncio.Event | None = None
    """While it is not set, no answer comes."""
    _browsers: dict[str, Keys] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def browser(self) -> Json:
        """A new browser's subscription, as its `toJSON` gives it."""
        path, keys = f"/send/{secrets.token_urlsafe(12)}", Keys()
        self._browsers[path] = keys
        return {
            "endpoint": f"{self.origin}{path}",
            "keys": {"p256dh": encoded(keys.public), "auth": encoded(keys.auth)},
        }

    async def until(self, count: int) -> list[Received]:
        """Wait until this many messages have come."""
        async with asyncio.timeout(20):
            while len(self.received) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.received

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head.decode().split("\r\n")[:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            method, path, _ = first.split(" ")
            assert method == "POST"
            body = await reader.readexactly(int(headers["content-length"]))
            content = orjson.loads(self._browsers[path].decrypted(body))
            received = Received(path, headers, body, content)
            self.received.append(received)
            self._changed.set()
            if self.hold is not None:
                await self.hold.wait()
            status, more = self.answer(received)
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{more}\r\n".encode())
            await writer.drain()


@asynccontextmanager
async def push_service(port: int = 0) -> AsyncIterator[PushService]:
    service = PushService()
    async with listening(service.serve, port) as server:
        service.port = port_of(server)
        yield service
