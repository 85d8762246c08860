"""The VAPID key (RFC 8292): the P-256 key that identifies this service to push services. It is written as PEM, or as
the 32 bytes of the private number in base64url, the form that most tools print."""

import base64
import binascii

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

PRIVATE_BYTES = 32


def new_private_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def read_private_key(text: str) -> ec.EllipticCurvePrivateKey:
    """The key in a text. Raises ValueError as `checks` does."""
    problem = "must be a P-256 private key: PEM, or 32 bytes in base64url; make one with: python -m app vapid-key"
    try:
        if text.lstrip().startswith("-----BEGIN"):
            key = load_pem_private_key(text.encode(), None)
        else:
            number = decoded(text.strip())
            if len(number) != PRIVATE_BYTES:
                raise ValueError(problem)
            key = ec.derive_private_key(int.from_bytes(number, "big"), ec.SECP256R1())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(problem) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(problem)
    return key


def private_text(key: ec.EllipticCurvePrivateKey) -> str:
    """The private number in base64url."""
    return encoded(key.private_numbers().private_value.to_bytes(PRIVATE_BYTES, "big"))


def public_text(key: ec.EllipticCurvePrivateKey) -> str:
    """The uncompressed point in base64url, as `PushManager.subscribe` takes it."""
    return encoded(key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


def encoded(content: bytes) -> str:
    """Bytes in base64url, without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """The bytes of a base64url text, with or without padding. Raises ValueError."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url") from None
